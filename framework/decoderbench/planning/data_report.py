"""The audit of data alone: all that is wrong with them, whether or not a run would accept it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from decoderbench.config.experiment import Experiment, parse_experiment
from decoderbench.config.merging import merge
from decoderbench.data.dataset import Dataset
from decoderbench.data.problems import CODES, Problem, validate_codes
from decoderbench.data.train_limit import limited_sizes
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DataError
from decoderbench.planning.compare_preset import fit_preset
from decoderbench.planning.inputs import has_same_data, read_inputs

if TYPE_CHECKING:
    from decoderbench.data.audit import Audit
    from decoderbench.registry.registry import Registry

EXAMPLES = 3  # keys shown per problem


@dataclass(frozen=True)
class DataReport:
    """All that an audit found.

    Attributes:
        refused: problems that are not allowed, but that a code would allow.
        faults: problems that no code allows, as sentences.
        audit: labels, splits, allowed problems and notes; None if labels cannot be read.
        images_audited: whether images were audited too.
    """

    refused: tuple[Problem, ...]
    faults: tuple[str, ...]
    audit: Audit | None
    images_audited: bool

    @property
    def accepted(self) -> bool:
        """Whether a run would accept the data."""
        return not self.refused and not self.faults

    def with_limits(self, limits: Iterable[int | None]) -> DataReport:
        """Return it with a fault for each `train_limit` above the number of images."""
        faults = list(self.faults)
        parts = self.audit.parts() if self.audit else []
        for limit in limits:
            try:
                for part in parts:
                    limited_sizes(part.counts, limit)
            except DataError as error:
                faults.append(str(error))
        return replace(self, faults=tuple(faults))

    def lines(self) -> list[str]:
        """Return everything as lines; the last one is the verdict."""
        summary = self.audit.summary() if self.audit else []
        allowed, notes = (self.audit.problems, self.audit.notes) if self.audit else ((), ())
        return [
            *summary,
            *(f"allowed  {_shortened(problem)}" for problem in allowed),
            *(f"note     {note}" for note in notes),
            *(f"refused  {fault}" for fault in self.faults),
            *(f"refused  {_shortened(problem)}" for problem in self.refused),
            *([] if self.images_audited else ["note     no image was audited, as the data cannot be read"]),
            self._verdict(),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        audit = self.audit
        return {
            "accepted": self.accepted,
            "faults": self.faults,
            "refused": list(map(asdict, self.refused)),
            "allowed": list(map(asdict, audit.problems)) if audit else [],
            "label_source": audit.label_source if audit else None,
            "split_source": audit.split_source if audit else None,
            "samples": audit.counts if audit else None,
            **({"folds": [fold.counts for fold in audit.folds]} if audit and audit.folds else {}),
            "excluded": len(audit.excluded) if audit else None,
            "lengths": audit.lengths if audit else None,
            "characters": audit.characters if audit else None,
            "notes": audit.notes if audit else [],
            "images_audited": self.images_audited,
        }

    def _verdict(self) -> str:
        if self.accepted:
            return "accepted: a run trains on these data"
        moves = []
        if self.refused:
            codes = " ".join(f"--allow {problem.code}" for problem in self.refused)
            moves.append(f"{codes} would accept {len(self.refused)} of them")
        if self.faults:
            moves.append(f"{len(self.faults)} cannot be allowed and must be corrected")
        kinds = len(self.refused) + len(self.faults)
        return f"refused: {kinds} kind{'s' * (kinds > 1)} of problems; {'; '.join(moves)}"


@dataclass(frozen=True)
class DataReports:
    """What an audit found in each of the data that the settings of an experiment have.

    Attributes:
        reports: the findings, by the labels of the settings with these data; without settings, one empty label.
    """

    reports: Mapping[tuple[str, ...], DataReport]

    @property
    def accepted(self) -> bool:
        """Whether a run would accept all of the data."""
        return all(report.accepted for report in self.reports.values())

    def lines(self) -> list[str]:
        """Return everything as lines; the settings come first if they have several data."""
        several = len(self.reports) > 1
        return [
            line
            for settings, report in self.reports.items()
            for line in (*([f"settings {', '.join(settings)}"] if several else []), *report.lines())
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data: a single report, or a list of them with their settings."""
        if len(self.reports) == 1:
            return next(iter(self.reports.values())).as_json()
        data = [{"settings": settings, **report.as_json()} for settings, report in self.reports.items()]
        return {"accepted": self.accepted, "data": data}


def audit_experiment(
    experiment: Experiment,
    registry: Registry,
    *,
    base_dir: Path,
    dataset: Dataset | None = None,
    faults: Sequence[str] = (),
    deadline: Deadline = NO_DEADLINE,
) -> DataReports:
    """Audit the data of all settings of an experiment, as `audit_data` does, each of them once.

    `dataset` and what it reported, `faults`, are used for the settings whose options it has.
    """
    groups: list[dict[str, Experiment]] = []
    for label, changed in experiment.settings().items():
        same = (group for group in groups if has_same_data(next(iter(group.values())), changed))
        group = next(same, None)
        if group is None:
            groups.append(group := {})
        group[label] = changed
    reports = {}
    for group in groups:
        first = next(iter(group.values()))
        known = dataset is not None and registry["dataset"].configure(first.dataset)[1] == dataset.config
        report = audit_data(
            first,
            registry,
            base_dir=base_dir,
            dataset=dataset if known else None,
            faults=list(faults) if known else None,
            deadline=deadline,
        )
        limits = {changed.dataset.train_limit for changed in group.values()}
        reports[tuple(group)] = report.with_limits(limits)
    return DataReports(reports)


def audit_data(
    experiment: Experiment,
    registry: Registry,
    *,
    base_dir: Path,
    dataset: Dataset | None = None,
    faults: list[str] | None = None,
    cache_dir: Path | None = None,
    deadline: Deadline = NO_DEADLINE,
) -> DataReport:
    """Audit the labels and images of an experiment, and go on after each problem as far as possible.

    Args:
        experiment: whose data, image size, label rules and allowed codes count.
        registry: the components.
        base_dir: where relative paths of the experiment start.
        dataset: the dataset of the experiment if it has been read already.
        faults: what it reported then.
        cache_dir: where decoded images are kept.
        deadline: when to stop reading or decoding; images decoded until then are kept.

    Raises:
        ConfigError: an allowed code is unknown.
        PendingCellsError: the deadline passed.
    """
    codes = validate_codes(experiment.allow)
    collected, audit, images_audited = list(faults or ()), None, False
    # With every code allowed, no problem hides those that are looked for after it.
    lenient = experiment.model_copy(update={"allow": CODES})
    try:
        inputs = read_inputs(
            lenient,
            registry,
            base_dir=base_dir,
            cache_dir=cache_dir,
            dataset=dataset,
            deadline=deadline,
            report_problem=collected.append,
        )
        audit = inputs.label_audit
        audit = inputs.audit
        images_audited = True
    except DataError as error:
        collected.append(str(error))
    refused: tuple[Problem, ...] = ()
    if audit:
        refused = tuple(problem for problem in audit.problems if problem.code not in codes)
        allowed = tuple(problem for problem in audit.problems if problem.code in codes)
        audit = replace(audit, problems=allowed, allow=codes)
    return DataReport(refused, tuple(dict.fromkeys(collected)), audit, images_audited)


def audit_path(
    path: Path,
    registry: Registry,
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    deadline: Deadline = NO_DEADLINE,
) -> DataReports:
    """Audit a folder of labeled images, or an LMDB, with the options that `compare` would give it.

    Args:
        path: the folder.
        registry: the components.
        changes: keys that override those of the preset, as plain data.
        deadline: when to stop.

    Raises:
        ConfigError: the changes have mistakes.
        PendingCellsError: the deadline passed.
    """
    faults: list[str] = []
    try:
        data, dataset, _ = fit_preset(path, registry, changes=changes, deadline=deadline, report_problem=faults.append)
    except DataError as error:
        return DataReports({("",): DataReport((), (*dict.fromkeys(faults), str(error)), None, False)})
    experiment = parse_experiment(registry.decide_options(merge(data, dict(changes))), source="audit")
    return audit_experiment(experiment, registry, base_dir=Path(), dataset=dataset, faults=faults, deadline=deadline)


def _shortened(problem: Problem) -> str:
    return str(replace(problem, keys=problem.keys[:EXAMPLES]))
