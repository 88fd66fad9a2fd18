"""`report.md`: tables and figures of an experiment, the method of measurement and the provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decoderbench.analysis.frame import Results
from decoderbench.report.sections import Section
from decoderbench.report.settings import settings_of
from decoderbench.report.tables import Table, bullet_list, escape_markdown, join_distinct, to_single_line


def markdown_report(
    results: Results, table: Table, *, command: str, sections: Sequence[Section], figures: Mapping[str, str]
) -> str:
    """Return the whole page. `table` is the main table, `sections` has the others, `figures` maps files to captions."""
    plan = results.plan
    datasets = join_distinct(cell.dataset for cell in plan.cells)
    parts = [
        f"# {escape_markdown(plan.experiment)}",
        escape_markdown(plan.question),
        f"Dataset: {escape_markdown(datasets)}.",
        table.markdown(),
        *(part for section in sections for part in _section(section)),
        *(["## Data", bullet_list(plan.data_summary)] if plan.data_summary else []),
        "## Settings",
        bullet_list(settings_of(plan)),
        *(["## Figures"] if figures else []),
        *(f"![{escape_markdown(caption)}]({name})" for name, caption in figures.items()),
        "## How it was measured",
        bullet_list(_method(results)),
        "## Provenance",
        f"Command of the last run:\n\n    {to_single_line(plan.command)}",
        f"Command that recreates this report:\n\n    {to_single_line(command)}",
        bullet_list(_environment(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> list[str]:
    texts = [f"{table.caption[:1].upper()}{table.caption[1:]}.\n\n{table.markdown()}" for table in section.tables]
    return [f"## {section.title}", *texts]


def _method(results: Results) -> list[str]:
    images = [cell.image for cell in results.plan.cells]
    widths = [
        "Widths vary: images keep their aspect ratio up to a width of "
        f"{join_distinct(image.width for image in images)} pixels and are padded to at most "
        f"{join_distinct(image.buckets for image in images)} different widths. GMACs are for the widest image, "
        "ms/image for one of middle width."
        for _ in [image for image in images if image.resize == "keep"][:1]
    ]
    trainers = join_distinct(name for cell in results.plan.cells for name in cell.trainers)
    training = [cell.training for cell in results.plan.cells]
    budgets = {(options.steps, options.batch_size) for options in training}
    same = ", the same for every row" if len(budgets) == 1 else "; the settings say which rows had which"
    weights = {"best": "best on the validation split (exact match, then nats)", "last": "last"}
    tested = [record.num_test for record in results.records if record.num_test is not None]
    folds = list(dict.fromkeys(cell.folds for cell in results.plan.cells if cell.folds))
    lines = [
        "CER is the character error rate over the whole split, 1-NED is one minus the normalized edit distance, and "
        "nats/char is -log p(text | image) per character. CER and nats/char are better when lower.",
        *widths,
        f"Training: {join_distinct(options.steps for options in training)} steps of "
        f"{join_distinct(options.batch_size for options in training)} images{same}.",
        f"Plugins that train cells in place of the built-in trainer: {trainers}." if trainers else "",
        "" if trainers else f"Weights evaluated: {join_distinct(weights[options.keep] for options in training)}.",
        f"Images in the test split{' of a fold' * bool(folds)}: {join_distinct(tested)}." if tested else "",
        f"Every row was trained once per seed and fold ({join_distinct(folds)} folds); its values are over the images "
        "of all folds, each of which was tested once per seed; variances are within folds."
        if folds
        else "",
        "Intervals and p values treat seeds and images as crossed random factors; differences are paired by both.",
        f"Beam size: {join_distinct(cell.evaluation.beam_size for cell in results.plan.cells)}.",
        "ms/image is the median time to transcribe a single image, while no other cell of this user was trained on the "
        "machine unless a note says so; train img/s excludes validation and the first ten steps.",
    ]
    return [line for line in lines if line]


def _environment(results: Results) -> list[str]:
    """Return the environment of the records: each key with every value that occurs, or the range of dates."""
    found: dict[str, list[str]] = {}
    for record in results.records:
        device = {"device": record.device} if record.device else {}
        for key, value in (record.environment | device).items():
            found.setdefault(key, []).append(value)
    lines = []
    for key, values in found.items():
        first, last = min(values), max(values)
        dates = first if first == last else f"{first} to {last}"
        lines.append(f"{key}: {dates if key == 'date' else join_distinct(values)}")
    return lines
