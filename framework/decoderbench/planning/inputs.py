"""The data of an experiment: labels are read at once, images when they are needed; each is read and audited once."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from decoderbench.config.cell import ResolvedLabels, data_key_of
from decoderbench.config.experiment import Experiment
from decoderbench.data.audit import Audit, audit
from decoderbench.data.dataset import SPLITS, Dataset, ReportProblem, Sample, Split, refuse
from decoderbench.data.folds import divide_into_folds, share_of_val
from decoderbench.data.image_cache import hash_data, open_store, read_fingerprint
from decoderbench.data.image_store import ImageStore
from decoderbench.data.problems import quote
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DataError
from decoderbench.labels import Charset
from decoderbench.planning.meta_probe import Bucket
from decoderbench.planning.reading import naming_dataset, reading
from decoderbench.registry.registry import Registry

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Inputs:
    """The samples of an experiment and what the audit found.

    Attributes:
        experiment: whose data they are.
        registry: its observers get the progress of decoding.
        dataset: where the images come from.
        samples: all samples of the dataset.
        label_audit: the audit of the labels alone.
        data_hash: hex digest over the dataset's fingerprint and the image options.
        dataset_hash: hex digest over the fingerprint alone.
        cache_dir: where decoded images are kept; None for the default.
        deadline: when to stop reading or decoding; images decoded until then are kept.
        report_problem: called with problems that no code allows.
    """

    experiment: Experiment
    registry: Registry
    dataset: Dataset
    samples: tuple[Sample, ...]
    label_audit: Audit
    data_hash: str
    dataset_hash: str
    cache_dir: Path | None
    deadline: Deadline = NO_DEADLINE
    report_problem: ReportProblem = refuse

    @cached_property
    def images(self) -> ImageStore:
        """The decoded images; the first access decodes them if there is no cache.

        Raises:
            DataError: images cannot be decoded, or the cache cannot be written.
            PendingCellsError: the deadline has passed.
        """

        def report(done: int, total: int) -> None:
            self.registry.plugins.notify("images_decoded", done=done, total=total)
            if done < total:
                self.deadline.check(f"with {done:,} of {total:,} images decoded, which are kept")

        store = open_store(
            self.dataset,
            self.samples,
            self.experiment.image,
            cache_dir=self.cache_dir,
            allow_unreadable="unreadable_image" in self.experiment.allow,
            progress=report,
        )
        if store.data_hash != self.data_hash:
            raise DataError(f"dataset {self.dataset.name!r} changed after its labels were read; run again")
        return store

    @cached_property
    def audit(self) -> Audit:
        """The audit of labels and images; the first access opens the images.

        Raises:
            DataError: labels or images have problems that are not allowed.
        """
        return self.label_audit.with_images(self.images, self.report_problem)

    @property
    def folds(self) -> tuple[int, ...] | tuple[None]:
        """The numbers of the folds; None alone without folds."""
        return tuple(range(len(self.label_audit.folds))) or (None,)

    @cached_property
    def labels(self) -> ResolvedLabels:
        """Charset and lengths of the labels, as cells state them; of the first fold if there are several."""
        found = self.label_audit
        return ResolvedLabels(
            charset=found.characters,
            max_length=found.max_length,
            frames_needed=found.frames_needed,
            normalize=self.experiment.labels.normalize,
            digest=found.digest,
            width_per_character=self._width_per_character(self.folds[0]),
        )

    def labels_of(self, fold: int | None) -> ResolvedLabels:
        """Return the labels as the cells of a fold state them: the width per character is that of its training labels.

        All else is the same for all folds, and so are the networks that are built from it.
        """
        return self.labels.model_copy(update={"width_per_character": self._width_per_character(fold)})

    def _width_per_character(self, fold: int | None) -> tuple[float, float, float] | None:
        """Return percentiles of the share of the image width per character of the training labels.

        Where widths vary, the images are opened. Padding counts as part of an image if all have one width.
        """
        varies = self.experiment.image.resize == "keep"
        widths = self.images.widths / self.experiment.image.width if varies else np.ones(len(self.samples))
        lengths = np.array([len(label) for label in self.label_audit.labels])
        of_training = np.array([split == "train" for split in self.label_audit.of_fold(fold).splits])
        of_training[list(self.label_audit.unspellable)] = False
        if varies:
            of_training[list(self.images.unreadable)] = False
        counted = of_training & (lengths > 0)
        if not counted.any():
            return None
        low, median, high = np.percentile(widths[counted] / lengths[counted], (5, 50, 95)).tolist()
        return float(f"{low:.6g}"), float(f"{median:.6g}"), float(f"{high:.6g}")

    @property
    def key(self) -> str:
        """The `data_key` of the cells that are trained on these data."""
        return data_key_of(self.data_hash, self.labels)

    @property
    def audit_so_far(self) -> Audit:
        """The audit of labels and images if the images have been opened, else that of the labels."""
        return self.audit if "images" in vars(self) else self.label_audit

    def buckets(self) -> tuple[Bucket, ...]:
        """Return the images by width where widths vary, else nothing. Opens the images to know their widths.

        Raises:
            DataError: labels or images have problems that are not allowed.
        """
        if self.experiment.image.resize != "keep":
            return ()
        store = self.images
        needed = self.audit.frames_needed_of(store)
        return tuple(
            Bucket(width, int(needed[store.bucket_of == bucket].max(initial=0)))
            for bucket, width in enumerate(store.bucket_widths)
        )


def read_data(
    settings: Mapping[str, Experiment],
    registry: Registry,
    *,
    base_dir: Path,
    cache_dir: Path | None = None,
    datasets: Sequence[Dataset] = (),
    deadline: Deadline = NO_DEADLINE,
) -> dict[str, Inputs]:
    """Read and audit the labels of each setting, as `read_inputs` does; what settings have in common is read once.

    `datasets` are used instead of new ones for the settings whose options they have.
    """
    opened, read = list(datasets), list[Inputs]()
    found: dict[str, Inputs] = {}
    for label, experiment in settings.items():
        same = next((inputs for inputs in read if has_same_data(inputs.experiment, experiment)), None)
        if same is None:
            config = registry["dataset"].configure(experiment.dataset)[1]
            dataset = next((one for one in opened if type(one.config) is type(config) and one.config == config), None)
            same = read_inputs(
                experiment, registry, base_dir=base_dir, cache_dir=cache_dir, dataset=dataset, deadline=deadline
            )
            read.append(same)
            opened.append(same.dataset)
        found[label] = same
    return found


def has_same_data(one: Experiment, other: Experiment) -> bool:
    """Return whether two settings read the same images and labels, as far as what they say tells."""
    return (one.dataset.use, one.dataset.options, one.dataset.folds, one.image, one.labels) == (
        other.dataset.use,
        other.dataset.options,
        other.dataset.folds,
        other.image,
        other.labels,
    )


def read_inputs(
    experiment: Experiment,
    registry: Registry,
    *,
    base_dir: Path,
    cache_dir: Path | None = None,
    dataset: Dataset | None = None,
    deadline: Deadline = NO_DEADLINE,
    report_problem: ReportProblem = refuse,
) -> Inputs:
    """Read and audit the labels of an experiment; no image is decoded.

    `dataset` is used instead of a new one if it has the options of the experiment. `report_problem` is called with
    problems that no code allows; it raises by default, and an audit of data collects them.

    Raises:
        DataError: labels cannot be read, or have problems that are not allowed; all of them are listed.
        PendingCellsError: the deadline passed while the dataset was reading.
    """
    registered, config = registry["dataset"].configure(experiment.dataset)
    if dataset is None or dataset.config != config:
        with naming_dataset(registered.name):
            dataset = registered.component(config, base_dir)
        assert dataset is not None
    labels = experiment.labels
    dataset.report_problem = report_problem
    with reading(dataset, registry.plugins, deadline):
        samples = tuple(dataset.samples())
        sources = {"label_source": dataset.label_source(), "split_source": dataset.split_source()}
        notes = tuple(dataset.notes())
    _refuse_other_than_samples(registered.name, samples)
    _report_surrogates(registered.name, samples, report_problem)
    _refuse_other_than_text(registered.name, [*sources.values(), *notes])
    folds = _divide(experiment, config, samples) if samples else ()
    if folds:
        notes = (*notes, f"the split of the dataset is not used, as dataset.folds is set: {sources['split_source']}")
        sources["split_source"] = _describe_folds(len(folds), config, samples)
    found = audit(
        samples,
        charset=Charset(labels.charset) if labels.charset is not None else None,
        extra_characters=labels.extra_characters,
        max_length=labels.max_length,
        width=experiment.image.width,
        normalize=labels.normalize,
        allow=experiment.allow,
        notes=notes,
        folds=folds,
        report_problem=report_problem,
        **sources,
    )
    with reading(dataset, registry.plugins, deadline):  # all files, which takes long: labels are refused before
        fingerprint = read_fingerprint(dataset, cache_dir=cache_dir)
    data_hash = hash_data(fingerprint, experiment.image)
    dataset_hash = hashlib.sha256(fingerprint.encode(errors="replace")).hexdigest()[:16]
    return Inputs(
        experiment, registry, dataset, samples, found, data_hash, dataset_hash, cache_dir, deadline, report_problem
    )


def _divide(experiment: Experiment, config: BaseModel, samples: Sequence[Sample]) -> tuple[tuple[Split, ...], ...]:
    """Return the splits of each fold of an experiment; none without folds."""
    number = experiment.dataset.folds
    if number is None:
        return ()
    own = Counter(sample.split for sample in samples)
    train, val = _fractions_of(config) or (own["train"], own["val"])
    try:
        return divide_into_folds(samples, number, val_share=share_of_val(train, val), seed=_seed_of(config))
    except DataError as error:
        raise DataError(experiment.describe_mistake(("dataset", "folds"), str(error))) from None


def _describe_folds(number: int, config: BaseModel, samples: Sequence[Sample]) -> str:
    unit = "group" if any(sample.group for sample in samples) else "image"
    fractions = _fractions_of(config)
    ratio = f"{fractions[0]:g} to {fractions[1]:g}, by fractions" if fractions else "as the dataset divides them"
    return (
        f"{number} folds dealt by {unit}, seed {_seed_of(config)}, each tested by models that are trained and "
        f"validated on the others ({ratio})"
    )


def _fractions_of(config: BaseModel) -> tuple[float, float] | None:
    """Return the shares of train and val that a dataset was given as `fractions`; None if it was not."""
    given = getattr(config, "fractions", None) if "fractions" in config.model_fields_set else None
    if isinstance(given, tuple | list) and len(given) == 3 and all(type(share) in (int, float) for share in given):
        return float(given[0]), float(given[1])
    return None


def _seed_of(config: BaseModel) -> int:
    """Return the seed by which a dataset deals its splits; 0 if it has none."""
    seed = getattr(config, "split_seed", 0)
    return seed if isinstance(seed, int) else 0


def _refuse_other_than_samples(dataset: str, samples: Sequence[object]) -> None:
    for sample in samples:
        if not (
            isinstance(sample, Sample) and sample.split in SPLITS and _are_texts(sample.key, sample.label, sample.group)
        ):
            raise DataError(
                f"dataset {dataset!r} lists {sample!r:.80}; list Sample(key, label, split), key, label and group as "
                f"str, split one of {', '.join(SPLITS)}; decoderbench check dataset/{dataset} finds what else is wrong"
            )


def _report_surrogates(dataset: str, samples: Sequence[Sample], report_problem: ReportProblem) -> None:
    """Report keys, labels and groups with lone surrogates, which no file of results can hold."""
    texts = [text for sample in samples for text in (sample.key, sample.label, sample.group) if SURROGATE.search(text)]
    if texts:
        report_problem(
            f"dataset {dataset!r}: {quote(texts[0])} is no valid text, as it has half of a character "
            f"(U+{ord(SURROGATE.findall(texts[0])[0]):04X}); {len(texts):,} such keys, labels and groups; correct them"
        )


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _refuse_other_than_text(dataset: str, sentences: Sequence[object]) -> None:
    for sentence in sentences:
        if not (isinstance(sentence, str) and sentence):
            raise DataError(
                f"dataset {dataset!r} says {sentence!r:.80} of its labels, splits or notes; return text for people; "
                f"decoderbench check dataset/{dataset} finds what else is wrong"
            )
