"""How sure a table can be: one estimator over seeds x images for rows, differences, effects and interactions.

Arrays in, numbers out; numpy and scipy.special only.
"""

from decoderbench.statistics.crossed import Components
from decoderbench.statistics.estimates import Estimate, Scope, contrast
from decoderbench.statistics.families import (
    ALPHA,
    Contrast,
    Pair,
    all_pairs,
    family,
    holm,
    mark_bold,
    not_shown_to_be_worse,
)
from decoderbench.statistics.planning import SeedsNeeded, half_width, power, seeds_needed
from decoderbench.statistics.rows import row
from decoderbench.statistics.scores import Scores
from decoderbench.statistics.selective import Kept, images_needed, keep_confident

__all__ = [
    "ALPHA",
    "Components",
    "Contrast",
    "Estimate",
    "Kept",
    "Pair",
    "Scope",
    "Scores",
    "SeedsNeeded",
    "all_pairs",
    "contrast",
    "family",
    "half_width",
    "holm",
    "images_needed",
    "keep_confident",
    "mark_bold",
    "not_shown_to_be_worse",
    "power",
    "row",
    "seeds_needed",
]
