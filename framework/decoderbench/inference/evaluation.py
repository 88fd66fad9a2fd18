"""Trained models on other labeled images: records and a report as of a run, of images that no model has seen.

Each image is read as `predict` reads it. All labels count: one that the charset cannot spell is wrong, as nothing that
is read can be equal to it. Images that cannot be read are counted, and not scored.
"""

from __future__ import annotations

import logging
import math
import re
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
from decoderbench.data.dataset import Dataset, Sample, Split
from decoderbench.data.image_cache import hash_data, read_fingerprint
from decoderbench.data.image_reading import read_image
from decoderbench.data.problems import list_characters
from decoderbench.errors import ConfigError, DataError
from decoderbench.exception_text import to_printable_line
from decoderbench.inference.choice import finished_models
from decoderbench.inference.image_batches import decode_images
from decoderbench.inference.loading import StoredModel
from decoderbench.metrics import Definition, Evaluation, Transcriptions, sources_of
from decoderbench.options import ImageOptions
from decoderbench.pack import is_pack, read_pack
from decoderbench.planning.reading import reading
from decoderbench.predictions import encode_predictions
from decoderbench.records import Plan, RunRecord
from decoderbench.registry.metric_definitions import definitions_with
from decoderbench.registry.registry import Registry
from decoderbench.results_directory import ResultsDirectory, digest_of_path
from decoderbench.storage import write_atomically
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
    """

    experiment: str
    models: tuple[StoredModel, ...]
    settings: Mapping[str, str]
    left_out: tuple[str, ...] = ()

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
            return cls(pack.manifest.experiment, (StoredModel.of_pack(pack),), {})
        found = finished_models(source, rows)
        results, titles = found[0].analysis.results, found[0].analysis.samples.titles
        there = {chosen.row for chosen in found}
        left_out = () if rows else tuple(title for row, title in enumerate(titles) if row not in there)
        models = tuple(StoredModel.of_results(chosen) for chosen in found)
        return cls(results.plan.experiment, models, results.plan.settings, left_out)


def name_of_evaluation(experiment: str, images: str) -> str:
    """Return the name of the results, as in "captchas-on-new-captchas"."""
    return re.sub(r"[^a-z0-9_.-]+", "-", f"{experiment}-on-{images}".lower()).strip("-._")[:64]


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
    directory.refuse_other_data(images.origin, {cell.data_hash for cell in cells})
    notes = list(_notes_on(trained, images))
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
        data_notes=tuple(notes),
        origin=images.origin,
    )
    directory.write_plan(plan)
    unread: Mapping[int, str] = {}
    for model, cell in zip(models, cells, strict=True):
        logger.info("reading with %s", cell.title)
        evaluation, unread = _evaluate(model, cell, images, registry, metrics, device, precision)
        record = RunRecord(
            cell=cell,
            status="done",
            metrics=dict(evaluation.scores),
            metric_sources=sources_of(metrics.values()),
            num_test=len(evaluation.keys),
            device=device_name(device),
            environment=environment | describe_arithmetic(device) | {"trained_cell": model.cell.cell_id},
        )
        with directory.lease(cell):
            directory.delete_result(cell)
            folder = directory.cell_directory(cell)
            write_atomically(folder / "predictions.parquet", encode_predictions(evaluation))
            directory.publish(record)
    for row, problem in unread.items():
        logger.warning("%s: not scored: %s", images.samples[row].key, problem)
    if unread:
        notes.append(f"not scored, because they cannot be read: {len(unread):,} of {len(images.samples):,} images")
        plan = plan.model_copy(update={"data_notes": tuple(notes)})
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


def _notes_on(trained: TrainedModels, images: OtherImages) -> Iterator[str]:
    """Yield footnotes on models that are left out, on images of the training, and on labels that nothing can spell."""
    texts, models = _texts(images), trained.models
    if trained.left_out:
        yield f"rows without a finished model are left out: {'; '.join(trained.left_out)}"
    if any(model.cell.folds for model in models):
        yield "the models of all folds read the same images here, so each of them counts as a seed of its row"
    seen = frozenset().union(*(model.validated_on for model in models))
    normalize = models[0].cell.labels.normalize
    if known := sum((sample.key, normalize(sample.label)) in seen for sample in images.samples):
        yield (
            f"images with name and label of validation images of the training: {known:,} of {len(texts):,}; they are "
            f"of the same data, so the scores say little about new images"
        )
    for labels in {model.cell.labels.charset: model.cell.labels for model in models}.values():
        charset = labels.spec().charset
        if outside := [missing for text in texts if (missing := charset.missing(labels.normalize(text)))]:
            yield (
                f"labels with characters outside the charset, which count as wrong: {len(outside):,} of {len(texts):,} "
                f"({list_characters(set().union(*outside))})"
            )
    longest = max(model.cell.labels.max_length for model in models)
    if longer := sum(len(normalize(text)) > longest for text in texts):
        yield f"labels of more than {longest} characters, the longest of the training: {longer:,} of {len(texts):,}"


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
