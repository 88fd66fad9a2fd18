"""Hybrid: CTC and an autoregressive decoder, the guide, over one memory, trained together.

Kim et al. 2017, "Joint CTC-Attention Based End-to-End Speech Recognition Using Multi-Task Learning"; joint reading by
one beam search as in Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition":

    joint = { use = "hybrid", main = "ctc", guide = { use = "attention_lstm", hidden_dim = 128 }, read = "joint" }

`guided_ctc` reads by CTC alone, so that the guide costs nothing after training: Hu et al. 2020, "GTC: Guided Training
of CTC Towards Efficient and Accurate Scene Text Recognition". Its default weights are those of SVTRv2 (Du et al. 2024),
1.0 for the guide and 0.1 for CTC, divided by their sum; as there, both losses reach the stages before:

    GTC = { use = "guided_ctc", guide = "nrtr" }

Where the papers leave it open: the joint score weighs the decoders as their losses are weighed. No sum over texts
normalizes it, so it only ranks; nll, log_prob and alignment of joint reading are those of the guide.
"""

from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    CTCDecoder,
    CTCPrefixScorer,
    Decoder,
    DecoderOption,
    Hypotheses,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    hookimpl,
)

Read = Literal["main", "guide", "joint"]


class CTCWithGuide(Decoder):
    """The common part of both decoders: two decoders that are trained together, and one or both that read."""

    class Config(ComponentConfig):
        """Options of both decoders."""

        main: DecoderOption = Field(default="ctc")  # type: ignore[assignment]
        """A decoder of the CTC family."""

        guide: DecoderOption = Field(default="attention_lstm")  # type: ignore[assignment]
        """An autoregressive decoder."""

        guide_weight: float = Field(default=0.5, gt=0, lt=1)
        """Weight of the guide's loss; that of the main decoder has the rest. If both read, the weights of their
        scores too."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec, read: Read) -> None:
        super().__init__(config, memory, labels)
        main, guide = config.main.build(memory, labels), config.guide.build(memory, labels)
        if not isinstance(main, CTCDecoder):
            raise InfeasibleError(
                f"{self.name} needs a main decoder of the CTC family, {main.name} is of another; use ctc or lstm_ctc"
            )
        if not isinstance(guide, AutoregressiveDecoder):
            raise InfeasibleError(
                f"{self.name} needs an autoregressive guide, {guide.name} is of another family; use attention_lstm, "
                f"nrtr, parseq or lstm_cell"
            )
        if read == "joint" and not guide.reads_by_step:
            raise InfeasibleError(
                f"{self.name} with read = 'joint' needs a guide that searches as its family does, {guide.name} has a "
                f"search of its own; use read = 'guide', or another guide"
            )
        self.main, self.guide, self.guide_weight, self.read = main, guide, config.guide_weight, read
        self.reads_padding = self.reader.reads_padding or (read == "joint" and main.reads_padding)
        self.largest_beam = self.reader.largest_beam

    @property
    def reader(self) -> Decoder:
        """The decoder that reads; of two that read jointly, the guide, whose search it is."""
        return self.main if self.read == "main" else self.guide

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        return self.reader.nll(memory, labels)

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        of_main, of_guide = self.main.loss(memory, labels), self.guide.loss(memory, labels)
        return (1 - self.guide_weight) * of_main + self.guide_weight * of_guide

    def training_only(self) -> Sequence[nn.Module]:
        other = self.guide if self.read == "main" else self.main
        return [*self.reader.training_only(), *(other.training_only() if self.read == "joint" else [other])]

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe by the decoder that reads, or jointly by one beam search, also if `beam_size` is 1."""
        if self.read != "joint":
            return self.reader.transcribe(memory, beam_size=beam_size)
        scorer = CTCPrefixScorer(self.main.log_probs(memory))
        return self.guide.beam_search(memory, beam_size, scorer, 1 - self.guide_weight)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor | None:
        return self.reader.alignment(memory, labels)


@final
class Hybrid(CTCWithGuide):
    """CTC and a guide, read by either or jointly."""

    name = "hybrid"

    class Config(CTCWithGuide.Config):
        """Options of `hybrid`."""

        read: Read = "guide"
        """Which decoder transcribes; the other is used in training only. joint: the beam search of the guide, in which
        CTC scores each prefix by the probability of all texts that start with it."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels, config.read)


@final
class GuidedCTC(CTCWithGuide):
    """CTC that learns with a guide and reads without it."""

    name = "guided_ctc"

    class Config(CTCWithGuide.Config):
        """Options of `guided_ctc`."""

        guide_weight: float = Field(default=1.0 / 1.1, gt=0, lt=1)
        """Weight of the guide's loss; that of the main decoder has the rest."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels, "main")


@hookimpl
def register_decoders() -> list[type[CTCWithGuide]]:
    """Register the decoders of this file."""
    return [Hybrid, GuidedCTC]
