"""Tables of errors: their kinds, on which characters and images, and whether a decoder knows. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.analysis.calibration import NUM_BINS
from decoderbench.analysis.errors import PER_100
from decoderbench.report.main_table import row_labels
from decoderbench.report.tables import MISSING, Table, format_fixed, format_interval

WRONG = {
    "same_length": "As long (%)",
    "too_long": "Too long (%)",
    "too_short": "Too short (%)",
    "truncated": "Truncated (%)",
    "empty": "Empty (%)",
}
"""The columns of `Errors.anatomy` that are wrong texts, and their headers."""

MANY = 15
"""The most pairs of rows and the most images that a table lists; the files have all."""

_CONFUSIONS = 5
"""The number of confusions that are shown of each row."""

_OVER = "over all images and seeds of a row"


def error_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of errors that have rows."""
    makers = (error_table, wrong_text_table, confusion_table, alone_table, agreement_table, all_wrong_table)
    return [table for make in makers if (table := make(analysis)) is not None]


def calibration_tables(analysis: Analysis) -> list[Table]:
    """Return the table of calibration as a list, empty if there are no predictions."""
    table = calibration_table(analysis)
    return [] if table is None else [table]


def error_table(analysis: Analysis) -> Table | None:
    """Return the edits of characters of each row; None without predictions."""
    return _table_of_rates(
        analysis,
        {name: name.replace("_", " ").capitalize() for name in PER_100},
        factor=1,
        name="errors",
        caption="edits per 100 characters of the labels",
        notes=[
            f"edits that turn the labels into the texts that were read, with 95 % intervals, {_OVER}; of several "
            "alignments with the fewest edits the one that, from the end backwards, takes a deletion before an "
            "insertion before a substitution",
            "repeats dropped: deletions of a character in a run of equal ones of which another one is read, as in "
            "ABCCD read as ABCD; they are among the deletions too",
        ],
    )


def wrong_text_table(analysis: Analysis) -> Table | None:
    """Return the kinds of wrong texts of each row; None without predictions."""
    return _table_of_rates(
        analysis,
        WRONG,
        factor=100,
        name="wrong_texts",
        caption="kinds of wrong texts, in percent of all texts",
        notes=[
            f"with 95 % intervals, {_OVER}; each wrong text counts once: as long as its label, longer, a proper "
            "beginning of it (truncated), empty, or shorter in another way",
        ],
    )


def confusion_table(analysis: Analysis) -> Table | None:
    """Return the most frequent edits of characters of each row; None if there are none."""
    labels, groups = row_labels(analysis), analysis.confusions.groupby("index", sort=False)
    rows = [
        [labels[int(str(index))], ", ".join(map(_confusion, own.head(_CONFUSIONS).to_dict("records")))]
        for index, own in groups
    ]
    if not rows:
        return None
    return Table(
        "confusions",
        "most frequent confusions of characters",
        ["Row", "Label as text (count)"],
        rows,
        num_labels=1,
        num_remarks=1,
        notes=[f"counts {_OVER}; tables/confusions.csv has more"],
    )


def alone_table(analysis: Analysis) -> Table | None:
    """Return how often each row is the only one that is right or wrong; None with fewer than two rows."""
    alone = analysis.agreement_frames.alone
    if alone.empty:
        return None
    labels = row_labels(analysis)
    return Table(
        "alone",
        "images that only one row reads right, or only one wrong, in percent",
        ["Row", "Only this right (%)", "Only this wrong (%)", "Seeds", "Images"],
        [
            [
                labels[row["index"]],
                *(_percent(row[name], 2) for name in ("only_right", "only_wrong")),
                *_counts(row),
            ]
            for row in alone.to_dict("records")
        ],
        num_labels=1,
        notes=[
            "among the rows that were tested on the same images, over the seeds that all of them have, seed by seed"
        ],
    )


def agreement_table(analysis: Analysis) -> Table | None:
    """Return how often both, one or none of two rows are right; None with fewer than two rows."""
    pairs = analysis.agreement
    if pairs.empty:
        return None
    labels = row_labels(analysis)
    chosen, which = pairs, "all pairs of rows"
    if len(pairs) > MANY:
        order = (-(pairs["only_a"] + pairs["only_b"])).argsort(kind="stable")
        chosen, which = pairs.iloc[order[:MANY]], f"the {MANY} of {len(pairs)} pairs of rows that differ most"
    return Table(
        "agreement",
        "images that both, one or none of two rows read right, in percent",
        ["Row A", "Row B", "Both (%)", "Only A (%)", "Only B (%)", "Neither (%)", "Seeds", "Images"],
        [
            [
                labels[pair["index_a"]],
                labels[pair["index_b"]],
                *(_percent(pair[name], 1) for name in ("both", "only_a", "only_b", "neither")),
                *_counts(pair),
            ]
            for pair in chosen.to_dict("records")
        ],
        num_labels=2,
        notes=[f"{which}, on the same images, over the seeds that both have, seed by seed"],
    )


def all_wrong_table(analysis: Analysis) -> Table | None:
    """Return the images that no cell of any row reads right, candidates for wrong labels; None if there are none."""
    images = analysis.all_wrong
    if images.empty:
        return None
    return Table(
        "all_wrong",
        "images that every row reads wrong with every seed: their labels may be wrong",
        ["Image", "Label", "Most frequent text", "Of all texts (%)", "Different texts"],
        [
            [
                *(row[name] for name in ("sample", "reference", "reading")),
                _percent(row["share"], 0),
                str(row["num_readings"]),
            ]
            for row in images.head(MANY).to_dict("records")
        ],
        num_labels=3,
        notes=[
            f"{len(images)} image{'s' * (len(images) > 1)}; those on which most texts agree come first"
            + (f", and the first {MANY} are shown" if len(images) > MANY else "")
        ],
    )


def calibration_table(analysis: Analysis) -> Table | None:
    """Return how well each row knows when it is right; None without predictions."""
    found = analysis.calibration
    known = found[found["num_seeds"] > 0]
    if known.empty:
        return None
    labels = row_labels(analysis)
    unscored = known[known["num_unscored"] > 0]
    return Table(
        "calibration",
        "confidence of the texts, and whether it tells right ones from wrong ones",
        ["Row", "Exact match (%)", "Mean confidence (%)", "ECE (points)", "AURC (%)", "Seeds"],
        [
            [
                labels[row["index"]],
                *(_percent(row[name], 1) for name in ("exact_match", "mean_confidence", "ece")),
                _percent(row["aurc"], 2),
                str(row["num_seeds"]),
            ]
            for row in known.to_dict("records")
        ],
        num_labels=1,
        notes=[
            "confidence: the probability that the decoder gives to the text that it returned, of test images, nothing "
            "fitted; means over seeds, without intervals",
            f"ECE: expected calibration error in {NUM_BINS} bins of equal mass, 0 is best; too high with few images",
            "AURC: mean share of wrong texts over all numbers of images that are answered, the most confident first; "
            "lower is better",
            *([_note_on_unscored(unscored, labels)] if len(unscored) else []),
        ],
    )


def _note_on_unscored(unscored: pd.DataFrame, labels: Sequence[str]) -> str:
    names = ", ".join(labels[index] for index in unscored["index"])
    return (
        f"{MISSING}: some texts have no probability, because an earlier version made the predictions or the decoder "
        f"cannot score a text ({names})"
    )


def _table_of_rates(
    analysis: Analysis, columns: Mapping[str, str], *, factor: float, name: str, caption: str, notes: Sequence[str]
) -> Table | None:
    known = analysis.errors[analysis.errors["num_texts"] > 0]
    if known.empty:
        return None
    labels = row_labels(analysis)
    rows = []
    for row in known.to_dict("records"):
        rates = []
        for column in columns:
            value, low, high = (factor * row[f"{column}{end}"] for end in ("", "_low", "_high"))
            rates.append(format_interval(value, (low, high), 2))
        rows.append([labels[row["index"]], *rates, str(row["num_seeds"]), f"{row['num_texts']:,}"])
    return Table(name, caption, ["Row", *columns.values(), "Seeds", "Texts"], rows, num_labels=1, notes=notes)


def _confusion(row: Mapping[Any, Any]) -> str:
    before, after = (_visible(row[name]) for name in ("reference", "hypothesis"))
    edit = f"{before} as {after}" if before and after else f"{before} lost" if before else f"{after} added"
    return f"{edit} ({row['count']})"


def _visible(character: str) -> str:
    """Return a character, or its code point if it cannot be seen."""
    hidden = character.isspace() or not character.isprintable()
    return f"U+{ord(character):04X}" if character and hidden else character


def _percent(value: float, decimals: int) -> str:
    return format_fixed(100 * value, decimals)


def _counts(row: Mapping[Any, Any]) -> list[str]:
    return [str(row["num_seeds"]), f"{row['num_images']:,}"]
