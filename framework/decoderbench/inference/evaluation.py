"""Trained models on other labeled images: records and a report as of a run, of other than those of the training.

Each image is read as `predict` reads it. All labels count: one that the charset cannot spell is wrong, as nothing that
is read can be equal to it. Images that cannot be read are counted, and not scored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.kept_images import ImageToKeep, keep_images
from decoderbench.config.cell import Cell
from decoderbench.config.experiment import to_name
from decoderbench.data.dataset import Dataset, Sample, Split
from decoderbench.data.image_cache import hash_data, read_fingerprint
from decoderbench.data.image_reading import read_image
from decoderbench.data.problems import list_characters
from decoderbench.errors import ConfigError, DataError, PendingCellsError
from decoderbench.exception_text import to_printable_line
from decoderbench.files.storage import write_atomically
from decoderbench.inference.choice import finished_models
from decoderbench.inference.image_batches import decode_images
from decoderbench.inference.loading import StoredModel
from decoderbench.metrics import Definition, Evaluation, Transcriptions, sources_of
from decoderbench.options import ImageOptions
from decoderbench.planning.reading import reading
from decoderbench.records.pack import is_pack, read_pack
from decoderbench.records.predictions import encode_predictions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord, digest_of_path
from decoderbench.registry.metric_definitions import definitions_with
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import device_name
from decoderbench.training.provenance import describe_arithmetic, describe_environment

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class OtherImages:
    """Labeled images that no model was trained on, as far as is known.

    Attributes:
        dataset: reads them.
        rows: the rows of the dataset that are scored.
        samples: of these rows.
        name: for people, and part of the name of the results.
        origin: digest of their path, by which other images of the same name are told from them.
    """

    dataset: Dataset
    rows: tuple[int, ...]
    samples: tuple[Sample, ...]
    name: str
    origin: str

    @classmethod
    def read(cls, dataset: Dataset, path: Path, registry: Registry, split: Split | None = None) -> OtherImages:
        """Read the samples of a dataset, which reads a path, of one split or of all.

        Raises:
            DataError: there are none.
        """
        name = path.resolve().name
        with reading(dataset, registry.plugins):
            samples = dataset.samples()
        rows = tuple(row for row, sample in enumerate(samples) if split in (None, sample.split))
        if not rows:
            raise DataError(f"{name}: no labeled image{f' of the split {split}' if split else ''} there")
        return cls(dataset, rows, tuple(samples[row] for row in rows), name, digest_of_path(path))

    def functions(self) -> Iterator[partial[Image]]:
        """Yield a function per image that returns it."""
        return (partial(read_image, self.dataset, row) for row in self.rows)


@dataclass(frozen=True)
class TrainedModels:
    """Models of one experiment.

    Attributes:
        experiment: its name.
        models: in the order of its rows.
        settings: what each setting of its grid changes, by its label.
        left_out: titles of its rows that have no finished model.
        origin: digest of the path that they come from.
    """

    experiment: str
    models: tuple[StoredModel, ...]
    settings: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    origin: str = ""

    @classmethod
    def of(cls, source: str | Path, rows: Sequence[str] = ()) -> TrainedModels:
        """Return the finished models of a results folder, of all rows or of some, or the one of a pack.

        Raises:
            ConfigError: no such row.
            DataError: the source cannot be read, or has no finished model.
        """
        if is_pack(Path(source)):
            if rows:
                raise ConfigError([f"--row: chooses among results, and {source} is one model; omit it"])
            pack = read_pack(Path(source))
            return cls(pack.manifest.experiment, (StoredModel.of_pack(pack),), {}, origin=digest_of_path(Path(source)))
        found = finished_models(source, rows)
        results, titles = found[0].analysis.results, found[0].analysis.samples.titles
        there = {chosen.row for chosen in found}
        left_out = () if rows else tuple(title for row, title in enumerate(titles) if row not in there)
        models = tuple(StoredModel.of_results(chosen) for chosen in found)
        return cls(results.plan.experiment, models, results.plan.settings, left_out, digest_of_path(Path(source)))


def name_of_evaluation(experiment: str, images: str) -> str:
    """Return the name of the results, as in "captchas-on-new-captchas"."""
    return to_name(f"{experiment}-on-{images}")


def evaluate_models(
    trained: TrainedModels,
    images: OtherImages,
    directory: ResultsDirectory,
    registry: Registry,
    *,
    experiment: str,
    device: torch.device,
    precision: str | None = None,
    command: str = "",
) -> tuple[Analysis, int]:
    """Read the images with every model, and write records of what was read.

    Args:
        trained: the models.
        images: what they read.
        directory: where the records go.
        registry: the components, and the metrics.
        experiment: the name of the results.
        device: where the models read.
        precision: as `TrainingOptions.precision`; by default that of each model.
        command: the command line that the report names as its origin.

    Returns:
        what the records say, and the number of images that cannot be read.

    Raises:
        ConfigError: the results are of other images of the same name.
        DataError: no image can be read, or the weights of a model.
    """
    metrics = definitions_with(registry["metric"])
    fingerprint = read_fingerprint(images.dataset)
    environment = describe_environment(device) | {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    models = trained.models
    cells = _cells_of(models, images, experiment, fingerprint)
    origin = sha256(f"{trained.origin} {images.origin}".encode()).hexdigest()[:16]
    _refuse_other_evaluation(directory, origin)
    plan = Plan(
        experiment=experiment,
        question=f"How well do models that were trained before read {images.name}?",
        command=command,
        cells=tuple(cells),
        settings=dict(trained.settings),
        data_summary=(
            f"labels   from {to_printable_line(images.dataset.label_source())}",
            f"samples  {len(images.samples):,} labeled images of {images.name}",
        ),
        origin=origin,
    )
    directory.write_plan(plan)
    unread: dict[int, str] = {}
    for model, cell in zip(models, cells, strict=True):
        logger.info("reading with %s", cell.title)
        evaluation, problems = _evaluate(model, cell, images, registry, metrics, device, precision)
        unread |= problems
        record = RunRecord(
            cell=cell,
            status="done",
            metrics=dict(evaluation.scores),
            metric_sources=sources_of(metrics.values()),
            num_test=len(evaluation.keys),
            device=device_name(device),
            environment=environment | describe_arithmetic(device) | {"trained_cell": model.cell.cell_id},
        )
        with directory.lease(cell, timeout=1.0) as leased:
            if not leased:
                raise PendingCellsError(f"another process writes {directory.cell_directory(cell)}")
            directory.delete_result(cell)
            folder = directory.cell_directory(cell)
            write_atomically(folder / "predictions.parquet", encode_predictions(evaluation))
            directory.publish(record)
    for row, problem in unread.items():
        logger.warning("%s: not scored: %s", images.samples[row].key, problem)
    plan = plan.model_copy(update={"data_notes": tuple(_notes_on(trained, images, cells, unread, registry))})
    directory.write_plan(plan)
    analysis = load_report(directory, plan=plan, metrics=metrics)
    _keep_images(analysis, images, cells)
    return analysis, len(unread)


def _cells_of(models: Sequence[StoredModel], images: OtherImages, experiment: str, fingerprint: str) -> list[Cell]:
    """Return the cells of the results: those of the models, on other images.

    Where models of several folds stand in one row, each counts as a seed of its own.
    """
    runs = sorted({(model.cell.seed, model.cell.fold or 0) for model in models})
    folded = any(model.cell.folds for model in models)
    dataset_hash = sha256(fingerprint.encode(errors="replace")).hexdigest()[:16]
    cells = []
    for model in models:
        trained = model.cell
        content = "\0".join([images.name, trained.cell_id, *map(trained.labels.normalize, _texts(images))])
        digest = sha256(content.encode(errors="replace")).hexdigest()[:16]
        changes = {
            "experiment": experiment,
            "dataset": images.dataset.name,
            "data_hash": hash_data(fingerprint, trained.image),
            "dataset_hash": dataset_hash,
            "labels": trained.labels.model_copy(update={"digest": digest}),
            "seed": runs.index((trained.seed, trained.fold or 0)) if folded else trained.seed,
            "fold": None,
            "folds": None,
        }
        cells.append(trained.model_copy(update=changes))
    return cells


def _texts(images: OtherImages) -> list[str]:
    return [sample.label for sample in images.samples]


def _evaluate(
    model: StoredModel,
    cell: Cell,
    images: OtherImages,
    registry: Registry,
    metrics: Mapping[str, Definition],
    device: torch.device,
    precision: str | None,
) -> tuple[Evaluation, dict[int, str]]:
    """Return what a model reads, and the problem of each image that cannot be read."""
    reader = model.build(registry, device, precision)
    references = list(map(cell.labels.normalize, _texts(images)))
    read = list(reader.transcribe_each(images.functions(), labels=references))
    unread = {row: each.problem for row, each in enumerate(read) if each.text is None}
    rows = [row for row in range(len(read)) if row not in unread]
    if not rows:
        raise DataError(f"{images.name}: none of {len(read):,} images can be read: {next(iter(unread.values()))}")
    hypotheses = [read[row].text or "" for row in rows]
    nll, scored = [read[row].label_nll for row in rows], [references[row] for row in rows]
    texts = Transcriptions(scored, hypotheses, nll)
    log_prob = [read[row].log_prob for row in rows]
    return Evaluation(
        keys=[images.samples[row].key for row in rows],
        references=scored,
        hypotheses=hypotheses,
        log_prob=[math.nan if value is None else value for value in log_prob],
        nll=nll,
        scores={name: definition.score(texts) for name, definition in metrics.items()},
        details={"group": [images.samples[row].group for row in rows], "text_log_prob": log_prob},
    ), unread


def _refuse_other_evaluation(directory: ResultsDirectory, origin: str) -> None:
    """Raise `ConfigError` if the folder has the results of other models, or on other images, of the same names."""
    try:
        known = directory.read_plan().origin
    except DataError:
        return
    if known != origin:
        what = "holds the evaluation of other models or images of the same names"
        raise ConfigError([f"--results {directory.path}: {what}; give another folder"])


def _notes_on(
    trained: TrainedModels, images: OtherImages, cells: Sequence[Cell], unread: Mapping[int, str], registry: Registry
) -> Iterator[str]:
    """Yield footnotes on models, on images of the training, and on labels that nothing can spell."""
    models, total = trained.models, len(images.samples)
    scored = [sample for row, sample in enumerate(images.samples) if row not in unread]
    if unread:
        yield f"not scored, because they cannot be read: {len(unread):,} of {total:,} images"
    if trained.left_out:
        yield f"rows without a finished model are left out: {'; '.join(trained.left_out)}"
    if len({model.cell.fold for model in models}) > 1:
        yield "the models of all folds read the same images here, so each of them counts as a seed of its row"
    if any(model.cell.data_hash == cell.data_hash for model, cell in zip(models, cells, strict=True)):
        yield "these are the images of the training itself, so the scores say nothing about new images"
    else:
        seen = frozenset().union(*(model.validated_on for model in models))
        forms = {model.cell.labels.normalize for model in models}
        if known := sum(any((each.key, form(each.label)) in seen for form in forms) for each in scored):
            yield (
                f"images with name and label of validation images of the training: {known:,} of {total:,}; they are of "
                f"the same data, so the scores say little about new images"
            )
    for labels in {model.cell.labels.model_copy(update={"digest": ""}): None for model in models}:
        charset, texts = labels.spec().charset, [labels.normalize(sample.label) for sample in scored]
        if outside := [missing for text in texts if (missing := charset.missing(text))]:
            yield (
                f"labels with characters outside the charset, which count as wrong: {len(outside):,} of {len(texts):,} "
                f"({list_characters(set().union(*outside))})"
            )
        if longer := sum(len(text) > labels.max_length for text in texts):
            yield (
                f"labels of more than {labels.max_length} characters, the longest of the training: {longer:,} of "
                f"{len(texts):,}"
            )
    yield from dict.fromkeys(note for model in models for note in model.changed_sources(registry))


def _keep_images(analysis: Analysis, images: OtherImages, cells: Sequence[Cell]) -> None:
    """Keep the images that the page shows."""
    places = {sample.key: number for number, sample in enumerate(images.samples)}
    options: dict[str, ImageOptions] = {cell.data_hash: cell.image for cell in cells}
    kept = []
    for name, key in analysis.wanted_images:
        number = places[key]
        (decoded,) = decode_images([partial(read_image, images.dataset, images.rows[number])], options[name], ahead=1)
        if decoded.pixels is not None:
            kept.append(ImageToKeep(name, key, "test", images.samples[number].label, decoded.pixels))
    keep_images(analysis.results.directory.path, kept)
