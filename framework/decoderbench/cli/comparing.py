"""Commands that ask how sure a comparison is: contrast, power."""

from __future__ import annotations

from collections import Counter
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoderbench.cli.common import PluginFolders, PluginNames, load_plugins, out

if TYPE_CHECKING:
    from decoderbench.analysis import Analysis
    from decoderbench.analysis.baselines import Difference
    from decoderbench.analysis.pilots import PairPlan
    from decoderbench.statistics import SeedsNeeded

Results = Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)]
Baseline = "The title or name of a row, or a label of an axis: rows are then matched on the other stages."


def contrast(
    results: Results,
    baseline: Annotated[str, typer.Option("--baseline", help=Baseline, show_default=False)],
    metric: Annotated[str, typer.Option("--metric", help="Such as exact_match, cer, nats_per_char.")] = "exact_match",
    axis: Annotated[
        str | None,
        typer.Option("--axis", help="Only rows that differ from the baseline in this axis, such as decoder."),
    ] = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Print paired differences to a baseline, with intervals and p values over seeds and test images."""
    from decoderbench.analysis.baselines import compare, find_pairs

    analysis = _read(results, plugin, plugins_dir)
    pairs = find_pairs(analysis.samples, baseline, axis)
    found, left_out = compare(analysis.samples, metric, pairs)
    _print_table(_table_of(analysis, metric, found))
    for line in [*_explanations(analysis, metric, found), *left_out, *analysis.samples.notes]:
        out.print(line, markup=False)


def power(
    results: Results,
    effect: Annotated[
        float, typer.Option("--effect", help="The difference to find, in points of exact match.", show_default=False)
    ],
    baseline: Annotated[
        str | None, typer.Option("--baseline", help=f"{Baseline}  [default: the median and the worst of all pairs]")
    ] = None,
) -> None:
    """Print how many seeds and test images find a difference with 80 % power at two-sided .05."""
    from decoderbench.analysis.baselines import find_pairs
    from decoderbench.analysis.pilots import plan_pairs

    analysis = _read(results, None, None)
    pairs = find_pairs(analysis.samples, baseline) if baseline is not None else None
    plans = plan_pairs(analysis.samples, effect / 100, pairs)
    points = f"{effect:g} point{'s' * (effect != 1)}"
    out.print(f"Seeds to find a difference of {points} of exact match, 80 % power, two-sided .05:", markup=False)
    for plan in plans:
        for line in _answers(plan, analysis.samples.titles):
            out.print(line, markup=False)
    planned = {(plan.row, plan.baseline) for plan in plans}
    missing = {row for row, base in pairs or [] if (row, base) not in planned}
    missing |= {row for row, images in enumerate(analysis.samples.image_sets) if images is None}
    if missing:
        titles = "; ".join(analysis.samples.titles[row] for row in sorted(missing))
        out.print(f"\nwithout a plan, for they have no two seeds on the same images: {titles}", markup=False)
    for note in analysis.samples.notes:
        out.print(f"\n{note}", markup=False)
    if folds := sorted({plan.folds for plan in plans} - {1}):
        numbers = " or ".join(map(str, folds))
        out.print(
            f"\nSeeds and images are those of {numbers} folds, as in the pilot: a seed is a model per fold.",
            markup=False,
        )
    out.print(
        "\nIn parentheses: the 80 % range that the few seeds and images of the pilot leave.\n"
        "For one contrast alone: where several are adjusted by Holm, it takes more.",
        markup=False,
    )


def _read(results: Path, plugin: list[str] | None, folders: list[Path] | None) -> Analysis:
    from decoderbench.analysis import load_report
    from decoderbench.registry.metric_definitions import definitions_of

    plugins = load_plugins(plugin, folders, builtin=False)
    return load_report(results, metrics=definitions_of(plugins))


def _table_of(analysis: Analysis, metric: str, found: list[Difference]) -> list[dict[str, str]]:
    from decoderbench.report.metric_texts import PERCENT, metric_text
    from decoderbench.report.tables import format_p, to_single_line

    titles = [to_single_line(title) for title in analysis.samples.titles]
    several = len({each.baseline for each in found}) > 1
    difference = "difference (points)" if metric in PERCENT else "difference"
    return [
        {
            "row": titles[each.row],
            **({"baseline": titles[each.baseline]} if several else {}),
            difference: metric_text(metric, estimate.value, sign="+"),
            "95 % interval": " to ".join(metric_text(metric, end, sign="+") for end in (estimate.low, estimate.high)),
            "p": format_p(estimate.p),
            "p (Holm)": format_p(each.p_holm),
            "seeds": str(estimate.seeds),
            "images": f"{estimate.images:,}",
        }
        for each in found
        for estimate in [each.estimate]
    ]


def _explanations(analysis: Analysis, metric: str, found: list[Difference]) -> list[str]:
    from decoderbench.analysis.marks import find_learning
    from decoderbench.report.metric_texts import metric_name

    definition = analysis.results.definitions[metric]
    bases = {each.baseline for each in found}
    against = f"row minus {analysis.samples.titles[bases.pop()]}" if len(bases) == 1 else "row minus baseline"
    better = "above" if definition.higher_is_better else "below"
    tested = sum(not isnan(each.estimate.p) for each in found)
    count = f"these {tested} contrasts" if tested > 1 else "this contrast alone"
    alone = [each for each in found if each.estimate.scope == "this trained model"]
    means = "images" if len(alone) == len(found) else "training runs and images"
    test = f"p is two-sided, of no difference in the mean over {means}; p (Holm) is adjusted over {count}."
    lines = [
        f"{metric_name(metric)}: {against}; {better} 0 the row is better than its baseline.",
        test if tested else "There is no interval and no p: one image, or one group, says nothing about others.",
    ]
    if len(alone) < len(found) and len(analysis.samples.variants) > 2:
        lines.append("All rows together say how seeds vary, so p is not that of a pair alone (Smyth 2004).")
    planned = len(analysis.samples.seeds)
    if any(each.estimate.seeds < planned for each in found):
        lines.append(f"Each pair has the seeds for which both rows have a result, of {planned} in the plan.")
    if alone:
        speak = "the interval and p speak of these trained models on new images, not of architectures"
        others = "; p (Holm) counts them among the others" if len(alone) < len(found) else ""
        lines.append(f"With one seed {speak}{others}.")
    folded = {len(each.estimate.components.fold_sizes) for each in found} - {1}
    if folded:
        lines.append(
            f"Each image was tested once per seed, in one of {' or '.join(map(str, sorted(folded)))} folds; models of "
            "different folds share training images, which the interval does not see."
        )
    learning = find_learning(analysis.samples, sorted({row for each in found for row in (each.row, each.baseline)}))
    if failed := Counter(learning.loc[learning["learned"].eq(False), "index"]):
        seeds = ", ".join(f"{analysis.samples.titles[row]} ({number})" for row, number in failed.items())
        lines.append(f"{'Models' if folded else 'Seeds'} that did not learn count like others: {seeds}.")
    if grouped := {each.estimate.units for each in found if each.estimate.units < each.estimate.images}:
        lines.append(f"The images come in groups, which count as one each: {', '.join(map(str, sorted(grouped)))}.")
    return lines


def _answers(plan: PairPlan, titles: list[str]) -> list[str]:
    pilot = plan.estimate
    grouped = f" in {pilot.units:,} groups" if pilot.units < pilot.images else ""
    in_folds = f" in {plan.folds} folds" if plan.folds > 1 else ""
    seen = f"{100 * pilot.value:+.1f} points with {pilot.seeds} seeds{in_folds} and {pilot.images:,} images{grouped}"
    what = f"{plan.why}, " if plan.why else ""
    head = f"\n{what}{titles[plan.row]} against {titles[plan.baseline]}: {seen} in the pilot"
    models = "models" if plan.folds > 1 else "seeds"
    remarks = [
        f"  {titles[row]}: {number} of {pilot.seeds * plan.folds} {models} did not learn; what follows is for runs "
        "that fail as often"
        for row, number in plan.not_learned.items()
    ]
    if not plan.plans:
        return [head, *remarks, "  they agree on every image, so how much they vary is not known"]
    lines = []
    for images, (needed, width) in plan.plans.items():
        as_now = ", as in the pilot" if images == pilot.images else ""
        now = f"with {pilot.seeds} seeds an interval of about +- {100 * width:.1f} points"
        lines.append(f"  {images:>6,} images{as_now}: {_seeds(needed)}; {now}")
    return [head, *remarks, *lines]


def _seeds(needed: SeedsNeeded) -> str:
    low, high = ("no number" if end is None else f"{end:,}" for end in (needed.low, needed.high))
    if needed.low is None:
        return "no number of seeds"
    middle = "no number of seeds" if needed.seeds is None else f"{needed.seeds:,} seeds"
    return f"{middle} ({low} to {high})"


def _print_table(rows: list[dict[str, str]]) -> None:
    from tabulate import tabulate

    texts = ("row", "baseline")
    align = ["left" if name in texts else "right" for name in rows[0]]
    out.print(tabulate(rows, headers="keys", tablefmt="github", colalign=align, disable_numparse=True), markup=False)
    out.print("", markup=False)
