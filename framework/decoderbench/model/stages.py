"""The contracts of the stages Rectifier, Encoder, Bridge and Decoder, and the result of a decoder.

    images (B, C, H, W) -> Rectifier -> images -> Encoder -> features (B, C, H, W) -> Bridge -> memory (B, T, D)
    -> Decoder -> texts

A component is a class with a `name`, a nested `Config` (its options, with defaults) and a constructor that takes all
sizes from the specs of the stage before it. The plan also calls the constructor on the meta device, to find shapes and
costs.

The constructor of any stage raises `InfeasibleError`, with a reason, if the options cannot work with the specs. The
cell is then planned, recorded with the reason and not trained.

`exports = True` promises that `forward` works with `torch.export`, so that a trained stage can be deployed without its
source code. The conformance kit verifies the promise; the framework itself never exports.

A class is a contract (this module), a family (`CTCDecoder`, `AutoregressiveDecoder`, `SequenceBridge`) or a leaf. Only
leaves are instantiated. A leaf implements the abstract methods of its family. Of the others it overrides only those
that the family offers for it, such as `AutoregressiveDecoder.teacher_forced_logits`.
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
    """The transcriptions of a batch of images.

    Attributes:
        ids: (B, S) int64, ids into the charset; positions past the end of a text hold 0 and have no meaning.
        lengths: (B,) int64, the number of characters of each text.
        log_prob: (B,) float32, nats. For autoregressive decoders it is log p(text | image), including the end of the
            text. For CTC it is the log probability of the best path or, with a beam, of all paths that the beam kept
            for the text; both are lower bounds of log p(text | image).
        ended: (B,) bool, whether the decoder itself ended the text. False where it would have gone on, but a text may
            have no more characters. None for decoders whose texts have no end of their own, such as CTC.
    """

    ids: Tensor
    lengths: Tensor
    log_prob: Tensor
    ended: Tensor | None = None


class Rectifier(nn.Module, ABC):
    """Image to image: straightens the text for the encoder.

    Constructed with the config and the spec of the input images; `image` declares the output images.
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
        """Map images (B, C, H, W) to images (B, C, H', W') of the declared size, both roughly in [-1, 1]."""


class Encoder(nn.Module, ABC):
    """Image to feature map.

    Constructed with the config and the spec of the images; `features` declares the feature map.
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
        """Map images (B, C, H, W) in [-1, 1] to features (B, C', H', W') of the declared size."""


class Bridge(nn.Module, ABC):
    """Feature map to memory: the sequence, or single vector, that a decoder reads.

    Constructed with the config and the spec of the features; `memory` declares the memory.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    memory: SequenceSpec

    @abstractmethod
    def __init__(self, config: Any, features: FeatureMapSpec) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to a memory (B, T, D) of the declared size."""


class Decoder(nn.Module, ABC):
    """Memory to text. Most decoders derive from a family: `CTCDecoder` or `AutoregressiveDecoder`.

    Constructed with the config, the spec of the memory and the spec of the labels.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__()

    @abstractmethod
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image) in nats, (B,) float32, for a memory (B, T, D) in float32.

        All decoders use the same unit: the trainer minimizes the result and the report compares it.
        """

    @abstractmethod
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe the memory (B, T, D). The result depends on memory and weights only, never on labels."""

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor | None:
        """Return which frames each character of a given text is read from, or None if the decoder cannot say.

        The health panels of a report come from it: it is called in eval mode for the texts that `transcribe` returned.

        Returns:
            (B, S, T) float32, S = `labels.longest`: entry (b, s, t) is the probability that character s of text b is
            read from frame t of the memory (B, T, D), given the characters before it or the whole text. So it lies in
            0..1, and is at least 1 in sum over the frames, since a character is read from at least one frame. The sum
            is 1 for attention, which reads a weighted mean, and may be larger for CTC, where a character may last for
            several frames. Positions past the end of a text have no meaning.
        """
        return None
