"""Cell: one combination of a grid with one seed, with every default resolved. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from decoderbench.data.dataset import Split
from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.identity import NotDecisive, identity_of
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions
from decoderbench.seeds import derive_seed
from decoderbench.specs import ImageSpec, LabelSpec


class ResolvedComponent(Options):
    """A variant of one axis: its label in tables, the name of the component and all its options."""

    label: str
    use: str
    options: dict[str, Any]

    decisive: dict[str, Any]
    """The options that determine a result, as returned by `identity_of`: those whose value differs from the default
    that they were introduced with."""

    source: str
    """Digest of the source file that defines the component; an edited plugin counts as another component."""

    def identity(self) -> dict[str, Any]:
        """Return what determines the result: the component, its decisive options and its source, but not the label."""
        return {"use": self.use, "options": self.decisive, "source": self.source}


class ResolvedLabels(Options):
    """Charset and lengths of the normalized labels of an experiment, as found by the data audit."""

    charset: str
    max_length: int
    frames_needed: int

    normalize: LabelNormalizer = LabelNormalizer()
    """How the labels were normalized: two normalizers can give the same charset and different labels."""

    digest: str = ""
    """Digest of all labels, of the excluded rows and of the folds: two charsets can become the same normalized charset.
    """

    width_per_character: Annotated[tuple[float, float, float] | None, NotDecisive()] = None
    """Share of the image width per character, as `LabelSpec` says it; None where an earlier version planned the cell.
    It follows from the data, so it is no further part of a cell's identity."""

    def spec(self) -> LabelSpec:
        """Return the spec that decoders are built from."""
        return LabelSpec(
            charset=Charset(self.charset),
            max_length=self.max_length,
            frames_needed=self.frames_needed,
            width_per_character=self.width_per_character,
        )


class StartPoint(Options):
    """The trained model whose weights a cell starts from."""

    digest: str
    """Digest of the pack; names its copy in the results folder."""

    title: str
    """Its row, experiment and seed, for people."""


class Cell(Options):
    """A recognizer to train: its settings, its names, and its sizes as computed by the plan."""

    experiment: str
    dataset: str
    rectifier: ResolvedComponent
    encoder: ResolvedComponent
    bridge: ResolvedComponent
    decoder: ResolvedComponent
    seed: int
    image: ImageOptions
    labels: ResolvedLabels
    augmentation: AugmentationOptions
    training: TrainingOptions
    evaluation: EvaluationOptions
    data_hash: str

    trainers: dict[str, str] = Field(default_factory=dict)
    """Plugins that implement `run_cell` and so may train the cell instead of the built-in trainer: name and digest of
    the source file, in the order of registration. Digests and order are part of the cell's identity."""

    dataset_hash: str = ""
    """Digest of the dataset's fingerprint, without the image options; empty where an earlier version planned the cell.
    Cells with the same are tested on the same images, at whatever size. Not part of the cell's identity."""

    bucket_widths: tuple[int, ...] = ()
    """Widths in pixels, ascending, to which images of varying width are padded, as `data.width_buckets` says it; empty
    if all have one width, and where an earlier version planned the cell. It follows from the data, so it is not part of
    the cell's identity."""

    train_limit: int | None = None
    """Number of labeled images to train and validate on, both together; None for all."""

    start: StartPoint | None = None
    """What its weights start from; None for weights of their own. The digest is part of the cell's identity."""

    fold: int | None = None
    """Which fold it is tested on, counted from 0, of data that are divided into `folds`; None without folds."""

    folds: int | None = None
    """K, the number of folds. Which images each has is part of the digest of the labels."""

    purpose: Literal["test", "tuning", "undecided", "refit"] = "test"
    """`tuning`: a trial, which is scored on validation images and never tested. `undecided`: to be tested with options
    that trials choose and have not chosen yet; it is never trained. `refit`: trained on the images of all splits, to be
    used; its scores say nothing. Part of the cell's identity unless it is `test`."""

    tuned: dict[str, Any] = Field(default_factory=dict)
    """Values of the options that are tuned, as in `{"training.learning_rate": 0.002}`: those that a trial tries, or
    that were chosen. The options themselves hold them too, so they are no further part of the cell's identity."""

    setting: str = ""
    """Label of the setting under which it is trained; empty without settings. Not part of the cell's identity, what
    the setting says is."""

    name: str = ""
    """Name of the combination, as in "CRNN"; empty if it has none. Not part of the cell's identity."""

    frames: int | None = None
    """T, the frames of the memory; None if it could not be planned."""

    num_parameters: int | None = None
    """Parameters that reading an image needs, of all stages; None if it could not be planned."""

    num_training_only_parameters: int = 0
    """Further parameters, which training alone uses, such as those of an auxiliary head."""

    frames_per_character: tuple[float, float, float] | None = None
    """Frames of the memory per character of the training labels: 5th, 50th and 95th percentile. Options of decoders
    may follow it. None if it could not be planned."""

    gmacs: float | None = None
    """Multiply-accumulates to transcribe one image, in units of 10^9; None if they could not be counted."""

    infeasible: str | None = None
    """Why the cell cannot be trained; None if it can."""

    @property
    def components(self) -> tuple[ResolvedComponent, ...]:
        """The four stages, in the order of the data flow."""
        return self.rectifier, self.encoder, self.bridge, self.decoder

    @property
    def variant(self) -> tuple[str, ...]:
        """The labels of rectifier, encoder, bridge, decoder and setting, which are the same for all seeds of a row."""
        return *(part.label for part in self.components), self.setting

    @property
    def variant_title(self) -> str:
        """The labels as one text for people; the rectifier `none` is omitted, and so is a setting without a label."""
        return " / ".join(filter(None, self.variant[self.rectifier.use == "none" :]))

    @property
    def title(self) -> str:
        """The variant, the seed and the fold as one text for people; of a trial, what it tries too."""
        trial = f" / tuning: {self.tuned_text}" if self.purpose == "tuning" else ""
        return f"{self.variant_title} / {self.model_title}{trial}"

    @property
    def model_title(self) -> str:
        """The seed and the fold as text, as in "seed 0 / fold 2 of 5"."""
        return f"seed {self.seed}" + (f" / fold {self.fold} of {self.folds}" if self.folds else "")

    @property
    def start_title(self) -> str:
        """What its weights start from, for people: of a row with the same title, that one; empty without a start."""
        if self.start is None:
            return ""
        stages = " / ".join(filter(None, self.variant[self.rectifier.use == "none" : -1]))
        own = next((own for own in (self.name, stages) if own and self.start.title.startswith(f"{own} of ")), "")
        return f"the row with the same stages{self.start.title.removeprefix(own)}" if own else self.start.title

    @property
    def training_seed(self) -> int:
        """The seed of its first weights, batches and augmentation: another one in each fold, the same for all rows.

        Models of different folds must be as independent as those of different seeds, or their mean would vary more than
        its interval says.
        """
        return derive_seed(self.seed, "fold", str(self.fold)) if self.folds else self.seed

    @property
    def place(self) -> tuple[tuple[str, ...], int, int | None]:
        """Its variant, seed and fold, which no other cell of a plan has."""
        return self.variant, self.seed, self.fold

    @property
    def tuned_text(self) -> str:
        """The values of tuned options as text, as in "learning_rate 0.002, beam_size 5"; empty without tuning."""
        names = [option.rpartition(".")[2] for option in self.tuned]
        shown = names if len(set(names)) == len(names) else self.tuned
        values = (value if isinstance(value, str) else json.dumps(value) for value in self.tuned.values())
        return ", ".join(f"{name} {value}" for name, value in zip(shown, values, strict=True))

    @property
    def scored_split(self) -> Split:
        """The split that its record scores: validation for a trial, whose test images are never read."""
        return "val" if self.purpose == "tuning" else "test"

    @property
    def data_key(self) -> str:
        """Digest of the images and labels that the cell is trained and tested on, whatever its `train_limit`.

        Cells of all folds have the same.
        """
        return data_key_of(self.data_hash, self.labels)

    @cached_property  # a report asks for it several times per cell
    def cell_id(self) -> str:
        """Component names, seed, fold, and a digest of everything that determines the result; names the cell's folder.

        Labels are not part of it, so a row keeps its results when it is renamed.
        """
        decisive = {
            "components": [part.identity() for part in self.components],
            "seed": self.seed,
            "data_hash": self.data_hash,
            "image": identity_of(self.image),
            "labels": identity_of(self.labels),
            "augmentation": identity_of(self.augmentation),
            "training": identity_of(self.training),
            "evaluation": identity_of(self.evaluation),
            **({"trainers": list(self.trainers.values())} if self.trainers else {}),
            **({"train_limit": self.train_limit} if self.train_limit is not None else {}),
            **({"start": self.start.digest} if self.start is not None else {}),
            **({"fold": [self.fold, self.folds]} if self.folds else {}),
            **({"purpose": self.purpose} if self.purpose != "test" else {}),
        }
        digest = _digest(decisive)[:12]
        fold = f"-fold-{self.fold}" if self.folds else ""
        uses = [part.use for part in self.components]
        return f"{_slug(' '.join(uses[uses[0] == 'none' :]))}-seed-{self.seed}{fold}-{digest}"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, and the id that they give."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("cell_id", None)
        return copied

    def image_spec(self) -> ImageSpec:
        """Return the spec of the images, which the rectifier is built for."""
        return ImageSpec(channels=self.image.channels, height=self.image.height, width=self.image.width)


def stages_alike(components: Mapping[str, ResolvedComponent], cell: Cell) -> tuple[str, ...]:
    """Return the stages that are the same components with the same decisive options as those of a cell."""
    return tuple(
        axis
        for axis in AXES
        if (components[axis].use, components[axis].decisive) == (getattr(cell, axis).use, getattr(cell, axis).decisive)
    )


def data_key_of(data_hash: str, labels: ResolvedLabels) -> str:
    """Return a digest of images, given by their hash, and of their labels."""
    return _digest([data_hash, identity_of(labels)])[:16]


def shown_axes(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return the axes to show in a table of `cells`.

    The rectifier is left out if it is `none` in all of them, the setting if no cell has one.
    """
    cells = tuple(cells)
    rectified = any(cell.rectifier.use != "none" for cell in cells)
    return AXES[not rectified :] + (("setting",) if any(cell.setting for cell in cells) else ())


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:80] or "cell"
