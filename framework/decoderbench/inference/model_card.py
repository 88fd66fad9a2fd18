"""The model card of a pack: what the recognizer is, how well it reads, and where that ends. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from decoderbench.analysis.predictions import TEST, read_predictions, transcriptions_of
from decoderbench.analysis.samples import codes_of_groups
from decoderbench.config.cell import Cell
from decoderbench.errors import DataError
from decoderbench.inference.choice import Chosen
from decoderbench.report.metric_texts import metric_name, metric_text, metric_with_interval
from decoderbench.report.tables import Table, bullet_list, escape_markdown
from decoderbench.statistics import Estimate, Scores, row

METRICS = ("exact_match", "cer")


def model_card(chosen: Chosen, *, refit: bool = False) -> str:
    """Return the model card of a trained model, Markdown: data, accuracy with intervals, limits.

    Args:
        chosen: the model.
        refit: whether the card is of the model that was trained on all images instead, with its options.
    """
    return "\n".join(_lines(chosen, refit)) + "\n"


def _lines(chosen: Chosen, refit: bool) -> Iterator[str]:
    cell, plan = chosen.record.cell, chosen.analysis.results.plan
    trained = f"It was trained with decoderbench, in the experiment {cell.experiment}, {cell.model_title}."
    yield from (f"# {escape_markdown(cell.variant_title)}", "")
    yield f"Reads the text in an image of one line. {escape_markdown(trained)}"
    if plan.question:
        yield from ("", f"The experiment asked: {escape_markdown(plan.question)}")
    yield from ("", "## Accuracy", "", _accuracy(chosen, refit).markdown(), "", "## Data", "")
    yield bullet_list(" ".join(line.split()) for line in (*plan.data_summary, *plan.data_notes))
    yield from ("", "## Limits", "", bullet_list(_limits(cell)))


def _accuracy(chosen: Chosen, refit: bool) -> Table:
    record, row = chosen.record, chosen.analysis.rows.iloc[chosen.row].to_dict()
    of_row = [metric_with_interval(metric, row, metric, f"{metric}_low", f"{metric}_high") for metric in METRICS]
    fold = f" in fold {record.cell.fold} of {record.cell.folds}" if record.cell.folds else ""
    this = [] if refit else [["this model", *(_of_model(chosen, metric) for metric in METRICS)]]
    own = (
        f"on {record.num_test or 0:,} test images{fold}, with 95 % intervals: of this model over images of the same "
        f"kind; of its row over training runs and images"
    )
    of_folds = (
        f"this model was trained on all images, so none is left to test it: the accuracy is that of its row, whose "
        f"models were trained on the other images of {record.cell.folds} folds and tested on one, with 95 % intervals "
        f"over training runs and images"
    )
    notes = [
        of_folds if refit else own,
        *([f"its row was chosen on validation images from {chosen.among} rows"] if chosen.among > 1 else []),
    ]
    return Table(
        name="accuracy",
        caption="Accuracy",
        headers=["", *map(metric_name, METRICS)],
        rows=[
            *this,
            [f"its row, {row['num_seeds']} of {row['num_planned_seeds']} seeds", *of_row],
        ],
        num_labels=1,
        notes=notes,
    )


def _of_model(chosen: Chosen, metric: str) -> str:
    """Return a metric of one model with its interval over images, or without where images have no numbers."""
    value = chosen.record.metrics.get(metric)
    if value is None:
        return "n/a"
    estimate = _estimate(chosen, metric)
    if estimate is None:
        return metric_text(metric, value)
    columns = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return metric_with_interval(metric, columns, "value", "low", "high")


def _estimate(chosen: Chosen, metric: str) -> Estimate | None:
    results = chosen.analysis.results
    try:
        table = read_predictions(results.directory, chosen.record, TEST)
    except DataError:
        return None
    terms = results.definitions[metric].per_sample(transcriptions_of(table))
    if terms is None:
        return None
    numerators, denominators = (values[None, None] for values in terms)
    groups = codes_of_groups(table["group"].to_pylist()) if "group" in table.column_names else None
    scores = Scores(numerators, denominators, groups=groups)
    return row(scores, 0, proportion=scores.proportion)


def _limits(cell: Cell) -> Iterator[str]:
    labels, image = cell.labels, cell.image
    form = {
        "stretch": f"stretched to {image.width} x {image.height}",
        "pad": f"scaled to a height of {image.height} and padded to a width of {image.width}",
        "keep": f"scaled to a height of {image.height}, at most {image.width} wide",
    }
    yield f"it knows {len(labels.charset)} characters and reads every other one as one of these: {labels.charset}"
    yield f"the labels of its experiment have at most {labels.max_length} characters; nothing is known of longer texts"
    if steps := labels.normalize.steps():
        yield f"texts are normalized: {', '.join(steps)}"
    yield f"images are read in {'gray' if image.channels == 1 else 'color'}, {form[image.resize]} pixels"
    yield "the intervals hold for images from the same source; they say nothing about images of another kind"
