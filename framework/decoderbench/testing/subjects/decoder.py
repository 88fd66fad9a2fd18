"""A decoder under check, and the memories and labels that it is built for."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.errors import InfeasibleError
from decoderbench.labels import Charset, Labels
from decoderbench.model.autoregressive import AutoregressiveDecoder
from decoderbench.model.ctc import CTCDecoder
from decoderbench.model.memory import Memory
from decoderbench.model.per_character import PerCharacterDecoder
from decoderbench.model.regular_width import PROJECT_MEMORY, REGULAR_WIDTH
from decoderbench.model.stages import Decoder, Hypotheses
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.specs import LabelSpec, SequenceSpec
from decoderbench.testing.assertions import expect
from decoderbench.testing.subjects.base import ModuleSubject, works

CHARSET = Charset("ab")
LABELS = LabelSpec(charset=CHARSET, max_length=3)
MANY = LabelSpec(charset=Charset("abcdefgh"), max_length=1)
"""More classes than positions: what is normalized over the wrong one of the two is noticed."""

TEXTS = ["", "a", "b", "ab", "ba", "aab"]
SIZES = [(5, 7), (1, 3), (9, 1), (12, 33)]  # T, D
MAPS = {5: (1, 5), 1: (1, 1), 9: (3, 3), 12: (3, 4)}
"""H and W by T, of the memories of decoders that read a map."""

BEAM_SIZES = (1, 3)


@dataclass
class DecoderSubject(ModuleSubject):
    """A decoder class and its options."""

    needs_input_gradient = True

    @cached_property
    def memories(self) -> list[SequenceSpec]:
        """The memories that are feasible for `LABELS`, at least one; most rules use the first."""
        reasons, accepted = [], []
        with preserving_global_state():  # rules check the effects of construction themselves
            for length, dim in SIZES:
                memory = self.spec_of(length, dim)
                try:
                    self.build_for(memory)
                    accepted.append(memory)
                except InfeasibleError as error:
                    reasons.append(str(error))
        expect(bool(accepted), got="; ".join(reasons), do=f"accept at least one of these (T, D): {SIZES}")
        return accepted

    def spec_of(self, length: int, dim: int) -> SequenceSpec:
        """Return the spec of a memory of one of `SIZES`: a map if the decoder needs one, else a sequence."""
        shape = MAPS[length] if self.cls.needs_map else None
        return SequenceSpec(length=length, dim=dim, left_to_right=shape is None or shape[0] == 1, shape=shape)

    @cached_property
    def beam_sizes(self) -> tuple[int, ...]:
        """The beam sizes to transcribe with, of those that the decoder accepts."""
        with preserving_global_state():
            largest = self.build().largest_beam
        return tuple(size for size in BEAM_SIZES if largest is None or size <= largest)

    @cached_property
    def advice(self) -> str | None:
        failing = [dim for length, dim in SIZES if not works(partial(self._use, length, dim))]
        if not failing or not works(partial(self._use, SIZES[-1][0], REGULAR_WIDTH)):
            return None
        return f"it works at D = {REGULAR_WIDTH}, not at D = {failing[0]}; {PROJECT_MEMORY}"

    def _use(self, length: int, dim: int) -> None:
        decoder = self.build_for(self.spec_of(length, dim))
        self.loss(decoder, torch.randn(2, length, dim))

    @property
    def is_ctc(self) -> bool:
        """Whether the decoder belongs to the CTC family."""
        return issubclass(self.cls, CTCDecoder)

    @property
    def is_autoregressive(self) -> bool:
        """Whether the decoder belongs to the autoregressive family."""
        return issubclass(self.cls, AutoregressiveDecoder)

    @property
    def is_per_character(self) -> bool:
        """Whether the decoder belongs to the family that predicts all characters at once."""
        return issubclass(self.cls, PerCharacterDecoder)

    @property
    def may_wait_in_inference(self) -> bool:  # type: ignore[override]
        """True for a class that derives directly from `Decoder`, because its search is its own."""
        return not (self.is_ctc or self.is_autoregressive)

    @property
    def max_text_length(self) -> int:
        """The most characters of a text: T for CTC, `max_length` in the other families, the larger one elsewhere."""
        if self.is_autoregressive or self.is_per_character:
            return LABELS.max_length
        frames = self.memories[0].length
        return frames if self.is_ctc else max(frames, LABELS.max_length)

    def build(self) -> Decoder:
        return self.build_for(self.memories[0])

    def build_for(self, memory: SequenceSpec, labels: LabelSpec = LABELS) -> Decoder:
        """Build the decoder for a memory, in training mode."""
        decoder: Decoder = self.cls(self.config, memory, labels)
        return decoder

    def draw_inputs(self, batch: int) -> Tensor:
        """Draw a memory (B, T, D), not contiguous, like the output of a bridge that transposes (B, D, T)."""
        return torch.randn(batch, self.memories[0].dim, self.memories[0].length).transpose(1, 2)

    def loss(self, module: Decoder, inputs: Tensor) -> Tensor:
        texts = [TEXTS[row % len(TEXTS)] for row in range(len(inputs))]
        labels = Labels.from_texts(texts, CHARSET, device=inputs.device)
        return module.loss(as_given(module, inputs), labels).sum()

    def infer(self, module: Decoder, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return log_prob (B,), lengths (B,), ids (B, `max_text_length`) and ended (B,) if given, without a beam."""
        return self._transcribe(module, inputs, beam_size=1)

    def infer_all_ways(self, module: Decoder, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the same for each beam size, and the alignment of texts if there is one."""
        results = [self._transcribe(module, inputs, beam_size=beam_size) for beam_size in self.beam_sizes]
        weights = align(module, inputs, [TEXTS[row % len(TEXTS)] for row in range(len(inputs))])
        return tuple(tensor for result in results for tensor in result) + (() if weights is None else (weights,))

    def _transcribe(self, module: Decoder, inputs: Tensor, beam_size: int) -> tuple[Tensor, ...]:
        read, width = transcribe(module, inputs, beam_size=beam_size), self.max_text_length
        ids = F.pad(read.ids, (0, max(0, width - read.ids.shape[1])))[:, :width]
        return read.log_prob, read.lengths, ids, *([] if read.ended is None else [read.ended.long()])


def as_given(decoder: Decoder, memory: Memory | Tensor) -> Memory | Tensor:
    """Return frames (B, T, D) as a map if the decoder needs one; anything else as it is."""
    if isinstance(memory, Memory) or not decoder.needs_map:
        return memory
    return replace(Memory.of(memory), shape=MAPS[memory.shape[1]])


def transcribe(decoder: Decoder, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
    """Transcribe as evaluation does."""
    with torch.inference_mode():
        return decoder.transcribe(as_given(decoder, memory), beam_size=beam_size)


def transcribe_and_score(decoder: Decoder, memory: Memory | Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
    """Transcribe and score as `predict` does."""
    with torch.inference_mode():
        return decoder.transcribe_and_score(as_given(decoder, memory), beam_size=beam_size)


def align(decoder: Decoder, memory: Memory | Tensor, texts: list[str]) -> Tensor | None:
    """Return the alignment of one text per image, as evaluation asks for it."""
    labels = Labels.from_texts(texts, CHARSET, device=memory.device)
    with torch.inference_mode():
        return decoder.alignment(as_given(decoder, memory), labels)


def texts_of(hypotheses: Hypotheses) -> list[str]:
    """Return the transcriptions as texts."""
    rows = zip(hypotheses.ids.tolist(), hypotheses.lengths.tolist(), strict=True)
    return [CHARSET.decode(ids[:length]) for ids, length in rows]


def texts_up_to(max_length: int) -> list[str]:
    """Return every text of at most `max_length` characters, in order of length."""
    return ["".join(text) for length in range(max_length + 1) for text in product(CHARSET.characters, repeat=length)]


def nll_of(decoder: Decoder, memory: Memory | Tensor, texts: list[str], charset: Charset = CHARSET) -> Tensor:
    """Return -log p of one text per image, (B,)."""
    with torch.no_grad():
        return decoder.nll(as_given(decoder, memory), Labels.from_texts(texts, charset))


def nll_of_all(decoder: Decoder, memory: Tensor, texts: list[str], charset: Charset = CHARSET) -> Tensor:
    """Return -log p of every text for each image, (B, number of texts)."""
    return torch.stack([nll_of(decoder, image.expand(len(texts), -1, -1), texts, charset) for image in memory])
