"""A decoder under check: the memories and labels it is built for, and what the rules ask of it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.labels import Charset, Labels
from decoderbench.model.autoregressive import AutoregressiveDecoder
from decoderbench.model.ctc import CTCDecoder
from decoderbench.model.stages import Decoder, Hypotheses
from decoderbench.specs import LabelSpec, SequenceSpec
from decoderbench.testing.modules import ModuleSubject
from decoderbench.testing.rules import require

CHARSET = Charset("ab")
LABELS = LabelSpec(charset=CHARSET, max_length=3)
TEXTS = ["", "a", "b", "ab", "ba", "aab"]
SIZES = [(5, 7), (1, 3), (9, 1), (12, 33)]  # T, D


@dataclass
class DecoderUnderCheck(ModuleSubject):
    """A decoder class and its options."""

    needs_input_gradient = True

    @cached_property
    def memories(self) -> list[SequenceSpec]:
        """The memories off which `infeasible` lets it read `LABELS`; the rules use the first."""
        offered = [SequenceSpec(length=length, dim=dim, left_to_right=True) for length, dim in SIZES]
        reasons = [self.cls.infeasible(self.config, spec, LABELS) for spec in offered]
        accepted = [spec for spec, reason in zip(offered, reasons, strict=True) if reason is None]
        require(bool(accepted), got="; ".join(map(str, reasons)), do=f"accept one of these (T, D) at least: {SIZES}")
        return accepted

    @property
    def is_ctc(self) -> bool:
        """Whether the family of the decoder is CTC."""
        return issubclass(self.cls, CTCDecoder)

    @property
    def is_autoregressive(self) -> bool:
        """Whether the family of the decoder is the autoregressive one."""
        return issubclass(self.cls, AutoregressiveDecoder)

    @property
    def longest(self) -> int:
        """The bound of a transcription: T for CTC, `max_length` for autoregressive decoders, else the larger."""
        if self.is_autoregressive:
            return LABELS.max_length
        frames = self.memories[0].length
        return frames if self.is_ctc else max(frames, LABELS.max_length)

    def build(self) -> Decoder:
        return self.build_for(self.memories[0])

    def build_for(self, memory: SequenceSpec) -> Decoder:
        """Build it, in training mode, for a memory."""
        decoder: Decoder = self.cls(self.config, memory, LABELS)
        return decoder

    def draw(self, batch: int) -> Tensor:
        """Draw a memory (B, T, D), not contiguous, as bridges yield it that turn (B, D, T)."""
        return torch.randn(batch, self.memories[0].dim, self.memories[0].length).transpose(1, 2)

    def learn(self, module: Decoder, inputs: Tensor) -> None:
        texts = [TEXTS[row % len(TEXTS)] for row in range(len(inputs))]
        labels = Labels.from_texts(texts, CHARSET, device=inputs.device)
        torch.autograd.backward(module.nll(inputs, labels).sum())

    def read(self, module: Decoder, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return log_prob (B,), lengths (B,) and ids (B, `longest`)."""
        return self._read(module, inputs, beam_size=1)

    def read_in_every_way(self, module: Decoder, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the same, without and with a beam."""
        return *self._read(module, inputs, beam_size=1), *self._read(module, inputs, beam_size=3)

    def _read(self, module: Decoder, inputs: Tensor, beam_size: int) -> tuple[Tensor, ...]:
        read = transcribe(module, inputs, beam_size=beam_size)
        ids = F.pad(read.ids, (0, max(0, self.longest - read.ids.shape[1])))[:, : self.longest]
        return read.log_prob, read.lengths, ids


def transcribe(decoder: Decoder, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
    """Transcribe as evaluation does."""
    with torch.inference_mode():
        return decoder.transcribe(memory, beam_size=beam_size)


def texts_of(hypotheses: Hypotheses) -> list[str]:
    """Return what was read."""
    rows = zip(hypotheses.ids.tolist(), hypotheses.lengths.tolist(), strict=True)
    return [CHARSET.decode(ids[:length]) for ids, length in rows]


def texts_up_to(longest: int) -> list[str]:
    """Return every text of at most `longest` characters, the shortest first."""
    return ["".join(text) for length in range(longest + 1) for text in product(CHARSET.characters, repeat=length)]


def nll_of(decoder: Decoder, memory: Tensor, texts: list[str]) -> Tensor:
    """Return -log p of a text for each image, (B,)."""
    with torch.no_grad():
        return decoder.nll(memory, Labels.from_texts(texts, CHARSET))


def nll_of_each(decoder: Decoder, memory: Tensor, texts: list[str]) -> Tensor:
    """Return -log p of every text for each image, (B, number of texts)."""
    return torch.stack([nll_of(decoder, image.expand(len(texts), -1, -1), texts) for image in memory])
