"""Cell: one combination of a grid with one seed, resolved down to every default. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.identity import identity_of
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions
from decoderbench.specs import ImageSpec, LabelSpec


class ResolvedComponent(Options):
    """A variant of one axis: its label in tables, the component's name and every option."""

    label: str
    use: str
    options: dict[str, Any]

    decisive: dict[str, Any]
    """The options that decide a result, as `identity_of` returns them: those that were set to another value than the
    one that they were introduced with."""

    source: str
    """Digest of the source file that defines the component: an edited plugin is another component."""

    def identity(self) -> dict[str, Any]:
        """Return what decides the result: the component, its decisive options and its source, but not the label."""
        return {"use": self.use, "options": self.decisive, "source": self.source}


class ResolvedLabels(Options):
    """What the normalized labels of the experiment are made of, as the data audit found it."""

    charset: str
    max_length: int
    frames_needed: int

    normalize: LabelNormalizer = LabelNormalizer()
    """How they came from the labels of the data: two normalizers can leave one charset and other labels."""

    digest: str = ""
    """Digest of every label, and of which are left out: two charsets can leave the same normalized one."""

    def spec(self) -> LabelSpec:
        """Return the spec that decoders are built from."""
        return LabelSpec(charset=Charset(self.charset), max_length=self.max_length, frames_needed=self.frames_needed)


class Cell(Options):
    """What to train, what it is called, and what the plan found out about it without training."""

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

    name: str = ""
    """What the combination is called, as in "CRNN"; empty if it has no name. Not part of the cell's identity."""

    frames: int | None = None
    """T of the memory; None if the encoder cannot be built."""

    num_parameters: int | None = None
    """Parameters of the whole recognizer, in millions."""

    gmacs: float | None = None
    """Multiply-accumulates to transcribe one image, in units of 10^9; None if they cannot be counted."""

    infeasible: str | None = None
    """Why the cell cannot be trained, or None."""

    @property
    def components(self) -> tuple[ResolvedComponent, ...]:
        """The four stages, in the order of the data flow."""
        return self.rectifier, self.encoder, self.bridge, self.decoder

    @property
    def variant(self) -> tuple[str, ...]:
        """The labels of the row that this cell's seeds share: rectifier, encoder, bridge, decoder."""
        return tuple(part.label for part in self.components)

    @property
    def variant_title(self) -> str:
        """What a person calls the row; a rectifier that does nothing is not named."""
        return " / ".join(self.variant[self.rectifier.use == "none" :])

    @property
    def title(self) -> str:
        """What a person calls the cell."""
        return f"{self.variant_title} / seed {self.seed}"

    @property
    def cell_id(self) -> str:
        """What is trained and a digest of everything that decides the result; also the folder's name.

        Labels are no part of it, so that a row can be renamed and keeps its result.
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
        }
        canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        uses = [part.use for part in self.components]
        return f"{_slug(' '.join(uses[uses[0] == 'none' :]))}-seed-{self.seed}-{digest}"

    def image_spec(self) -> ImageSpec:
        """Return the spec of the images, from which the rectifier is built."""
        return ImageSpec(channels=self.image.channels, height=self.image.height, width=self.image.width)


def shown_axes(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return the axes that a table of these cells names: rectifiers only if one of them does something."""
    return AXES[all(cell.rectifier.use == "none" for cell in cells) :]


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:80] or "cell"
