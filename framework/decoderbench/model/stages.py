"""The contracts of the stages Rectifier, Encoder, Bridge and Decoder, and the result of a decoder.

    images (B, C, H, W) -> Rectifier -> images -> Encoder -> features (B, C, H, W) -> Bridge -> frames (B, T, D)
    -> Memory -> Decoder -> texts

A component is a class with a `name`, a nested `Config` (its options, with defaults) and a constructor that takes all
sizes from the specs of the stage before it. The plan also calls the constructor on the meta device, to find shapes and
costs.

The constructor of any stage raises `InfeasibleError`, with a reason, if the options cannot work with the specs. The
cell is then planned, recorded with the reason and not trained.

`exports = True` promises that `forward` works with `torch.export`, so that a trained stage can be deployed without its
source code. The conformance kit verifies the promise; the framework itself never exports.

A class is a contract (this module), a family (`CTCDecoder`, `AutoregressiveDecoder`, `PerCharacterDecoder`,
`SequenceBridge`) or a leaf. Only leaves are instantiated. A leaf implements the abstract methods of its family. Of the
others it overrides only those that the family offers for it, such as `AutoregressiveDecoder.teacher_forced_logits`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from decoderbench.errors import InfeasibleError
from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.options import ComponentConfig
from decoderbench.specs import FeatureMapSpec, ImageSpec, LabelSpec, SequenceSpec


@dataclass(frozen=True)
class Hypotheses:
    """The transcriptions of a batch of images.

    Attributes:
        ids: (B, S) int64, ids into the charset; positions past the end of a text hold 0 and have no meaning.
        lengths: (B,) int64, the number of characters of each text.
        log_prob: (B,) float32, nats. For autoregressive and per-character decoders it is log p(text | image), including
            the end of the text. For CTC it is the log probability of the best path or, with a beam, of all paths that
            the beam kept for the text; both are lower bounds of log p(text | image).
        ended: (B,) bool, whether the decoder itself ended the text. False where it would have gone on, but a text may
            have no more characters. None for decoders whose texts have no end of their own, such as CTC.
    """

    ids: Tensor
    lengths: Tensor
    log_prob: Tensor
    ended: Tensor | None = None

    def labels(self, lengths: list[int] | None = None) -> Labels:
        """Return the texts as labels on their device. Unless their lengths on the host are given, it is waited for."""
        lengths = self.lengths.tolist() if lengths is None else lengths
        return Labels(self.ids[:, : max(lengths, default=0)], self.lengths, tuple(lengths))


class Rectifier(nn.Module, ABC):
    """Image to image: straightens the text for the encoder.

    Constructed with the config and the spec of the input images; `image` declares the output images.

    `keeps_columns = True` promises that a column of the output shows the same column of the input. Without it, nothing
    is known of where an image that was padded ends, and all frames of the memory count as valid.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    keeps_columns: ClassVar[bool] = False
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
    """Memory to text. Most derive from a family: `CTCDecoder`, `AutoregressiveDecoder` or `PerCharacterDecoder`.

    Constructed with the config, the spec of the memory and the spec of the labels. Where a method takes a memory, a
    tensor (B, T, D) is one too, as `Memory.of` says.

    Attributes:
        needs_map: whether it reads a feature map with height and width; other memories are infeasible then.
        reads_padding: whether `nll`, `transcribe` or `alignment` reads frames that are not valid. All others return
            the same whatever these hold; `loss` may read them, as that of CTC with a guide does.
        largest_beam: the largest beam size that `transcribe` accepts; None for any. May depend on the options.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]
    exports: ClassVar[bool] = False
    needs_map: ClassVar[bool] = False
    reads_padding: bool = False
    largest_beam: int | None = None

    @abstractmethod
    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__()
        if self.needs_map and memory.shape is None:
            raise InfeasibleError(
                f"{self.name} needs a feature map with its height and width, this memory is a sequence; use the bridge "
                f"feature_map"
            )

    @abstractmethod
    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image) in nats, (B,) float32, for the readout that `transcribe` uses.

        All decoders use the same unit: the report compares it.
        """

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return what training minimizes, (B,) float32: the trainer divides the sum by the number of characters.

        It is the nll unless a decoder overrides it: with auxiliary heads, several orders, or smoothed targets.
        """
        return self.nll(memory, labels)

    def first_character_in(self, weight: str, dimension: int) -> int:
        """Return the place of the charset's first character in a dimension of a weight whose size follows the charset.

        The other characters follow in order. So trained weights can start a decoder with other characters, or in
        another order. Override it where something else comes first, such as a blank.
        """
        return 0

    def training_only(self) -> Sequence[nn.Module]:
        """Return the parts that `loss` alone uses, such as auxiliary heads: their parameters are counted apart."""
        return ()

    @abstractmethod
    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe the memory. The result depends on memory and weights only, never on labels."""

    def transcribe_and_score(self, memory: Memory | Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
        """Return what `transcribe` returns, and the nll of these texts, (B,) in nats.

        Override it where one pass over the memory gives both.
        """
        read = self.transcribe(memory, beam_size=beam_size)
        return read, self.nll(memory, read.labels())

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor | None:
        """Return which frames each character of a given text is read from, or None if the decoder cannot say.

        The health panels of a report come from it: it is called in eval mode for the texts that `transcribe` returned.

        Returns:
            (B, S, T) float32, S = `labels.longest`: entry (b, s, t) is the probability that character s of text b is
            read from frame t of the memory, given the characters before it or the whole text. So it lies in 0..1, and
            is at least 1 in sum over the frames, since a character is read from at least one frame. The sum is 1 for
            attention, which reads a weighted mean, and may be larger for CTC, where a character may last for several
            frames. Positions past the end of a text have no meaning.
        """
        return None
