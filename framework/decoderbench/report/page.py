"""`report.md`: the tables and figures of an experiment, how they were measured and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decoderbench.report.frame import Results
from decoderbench.report.tables import Table, bullets, escape_markdown, listed, main_table, one_line


def markdown_report(
    results: Results, *, command: str, factors: Sequence[Table] = (), figures: Mapping[str, str]
) -> str:
    """Return the whole page. `factors` are tables; `figures` are file names and what they show."""
    plan = results.plan
    datasets = listed(cell.dataset for cell in plan.cells)
    sections = [
        f"# {escape_markdown(plan.experiment)}",
        f"Dataset: {escape_markdown(datasets)}.",
        main_table(results).markdown(),
        *(["## Factors"] if factors else []),
        *(f"{table.caption.capitalize()}.\n\n{table.markdown()}" for table in factors),
        *(["## Data", bullets(plan.data_summary)] if plan.data_summary else []),
        *(["## Figures"] if figures else []),
        *(f"![{escape_markdown(shown)}]({name})" for name, shown in figures.items()),
        "## How it was measured",
        bullets(_method(results)),
        "## Provenance",
        f"Planned, and last run, by\n\n    {one_line(plan.command)}",
        f"This report is made by\n\n    {one_line(command)}",
        bullets(_environment(results)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _method(results: Results) -> list[str]:
    images = [cell.image for cell in results.plan.cells]
    widths = [
        f"Widths vary: an image keeps its shape up to a width of {listed(image.width for image in images)} pixels, and "
        f"a batch holds one of {listed(image.buckets for image in images)} widths at most. GMACs are those of the "
        f"widest image, ms/image of one of middle width."
        for image in images[:1]
        if image.resize == "keep"
    ]
    training = [cell.training for cell in results.plan.cells]
    weights = {"best": "best on the validation split (exact match, then nats)", "last": "last"}
    tested = [record.num_test for record in results.records if record.num_test is not None]
    lines = [
        *widths,
        f"Training: {listed(options.steps for options in training)} steps of "
        f"{listed(options.batch_size for options in training)} images, the same for every row.",
        f"Weights tested: {listed(weights[options.keep] for options in training)}.",
        f"Images in the test split: {listed(tested)}." if tested else "",
        f"Beam size: {listed(cell.evaluation.beam_size for cell in results.plan.cells)}.",
        "ms/image is the median time to transcribe one image alone; train img/s leaves validation out.",
    ]
    return [line for line in lines if line]


def _environment(results: Results) -> list[str]:
    """Return what the records say about themselves, every value that occurs."""
    found: dict[str, list[str]] = {}
    for record in results.records:
        named = {"device": record.device} if record.device else {}
        for key, value in (record.environment | named).items():
            found.setdefault(key, []).append(value)
    lines = []
    for key, values in found.items():
        first, last = min(values), max(values)
        between = first if first == last else f"{first} to {last}"
        lines.append(f"{key}: {between if key == 'date' else listed(values)}")
    return lines
