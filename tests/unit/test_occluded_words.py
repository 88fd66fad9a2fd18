"""`occluded_words`: `rendered_words` with a bar over each image."""

from pathlib import Path

import numpy as np

from decoderbench_plugins.datasets.rendered_words import RenderedWords
from decoderbench_plugins.datasets.rendered_words.occluded import OccludedWords

SMALL = {"charset": "01", "train": 6, "val": 2, "test": 2}


def occluded(occlusion: float) -> OccludedWords:
    return OccludedWords(OccludedWords.Config(**SMALL, occlusion=occlusion), Path())


def test_bar_hides_columns_of_the_same_text_and_a_wider_one_hides_more() -> None:
    plain = RenderedWords(RenderedWords.Config(**SMALL), Path())
    none, narrow, wide = map(occluded, (0.0, 0.1, 0.4))
    assert none.samples() == narrow.samples() == plain.samples()
    for row in range(6):
        drawn = [np.asarray(dataset.load_image(row)) for dataset in (plain, none, narrow, wide)]
        assert np.array_equal(drawn[0], drawn[1])
        width = drawn[0].shape[1]
        hidden = [set(np.flatnonzero((image != drawn[0]).any(axis=0)).tolist()) for image in drawn[2:]]
        for columns, share in zip(hidden, (0.1, 0.4), strict=True):
            assert len(columns) <= share * width + 1
            assert max(columns) - min(columns) <= share * width
        assert hidden[0] < hidden[1]
        bar = drawn[3][:, sorted(hidden[1])]
        assert len(np.unique(bar)) == 1  # of one brightness, over the whole height
    assert len({dataset.fingerprint() for dataset in (plain, none, narrow, wide)}) == 4
