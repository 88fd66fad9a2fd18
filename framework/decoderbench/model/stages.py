"""The contracts between the stages: Rectifier, Encoder, Bridge, Decoder, and what a decoder returns.

    images (B, C, H, W) -> Rectifier -> images -> Encoder -> features (B, C, H, W) -> Bridge -> memory (B, T, D)
    -> Decoder -> texts

A component is a class with a `name`, a nested `Config` (its options, with defaults) and a constructor that
sizes itself from the specs of the stage before it. One whose `forward` goes through `torch.export` may say so with
`exports = True`, which the conformance kit then holds it to. Classes are contracts, families or leaves; only a leaf is
ever built, and no leaf overrides what its family finished.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from decoderbench.labels import Labels
from decoderbench.options import ComponentConfig
from decoderbench.specs import FeatureMapSpec, ImageSpec, LabelSpec, SequenceSpec


@dataclass(frozen=True)
class Hypotheses:
    """What a decoder read in a batch of images.

    Attributes:
        ids: (B, S) int64, ids into the charset; positions past an end hold 0 and mean nothing.
        lengths: (B,) int64.
        log_prob: (B,) float32, nats. Autoregressive decoders give exactly log p(text | image), the end
            included. CTC gives the probability of the best path, or with a beam the mass that the beam
            collected for the text: both are lower bounds of log p(text | image).
    """

    ids: Tensor
    lengths: Tensor
    log_prob: Tensor


class Rectifier(nn.Module, ABC):
    """Image to image: straightens what the encoder is to read.

    Built with the config and the spec of the images that come in; `image` declares those that go out. It may raise
    `InfeasibleError` in its constructor as an encoder may.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    image: ImageSpec

    @abstractmethod
    def __init__(self, config: Any, image: ImageSpec) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H', W') of images (B, C, H, W), both in about [-1, 1], as `image` declares them."""


class Encoder(nn.Module, ABC):
    """Image to feature map.

    Built with the config and the images' spec, also on the meta device, where the plan asks for shapes and
    costs. Raise `InfeasibleError` in the constructor if the options cannot work at this image size: the cell
    is then planned, recorded with that reason and not trained.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    features: FeatureMapSpec

    @abstractmethod
    def __init__(self, config: Any, image: ImageSpec) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, C', H', W') of images (B, C, H, W) in [-1, 1], as `features` declares them."""


class Bridge(nn.Module, ABC):
    """Feature map to memory, the sequence (or single vector) that a decoder reads."""

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    memory: SequenceSpec

    @abstractmethod
    def __init__(self, config: Any, features: FeatureMapSpec) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return the memory (B, T, D) of features (B, C, H, W), as `memory` declares it."""


class Decoder(nn.Module, ABC):
    """Memory to text. Most decoders derive from a family: `CTCDecoder` or `AutoregressiveDecoder`."""

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__()

    @classmethod
    @abstractmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        """Return a sentence that says why this decoder cannot read these labels off this memory, or None."""

    @abstractmethod
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image) in nats, (B,), of a memory (B, T, D) in float32.

        One unit for every decoder: the trainer minimizes it and the report compares it.
        """

    @abstractmethod
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Read the memory (B, T, D). Never sees a label, and depends on nothing but memory and weights."""
