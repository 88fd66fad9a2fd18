"""Every registered decoder conforms, and the kit catches decoders that are broken in one place."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import DECODERS, REGISTRY, Options, SmallCTC, SmallLSTM
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, Decoder, Hypotheses, Labels, LabelSpec, SequenceSpec
from decoderbench.testing import ConformanceError, check_decoder


class PerPosition(Decoder):
    """Of no family: a classifier for each character's place, blind to what the others say."""

    name = "per_position"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.end, self.max_length = len(labels.charset), labels.max_length
        self.head = nn.Linear(memory.length * memory.dim, (self.max_length + 1) * (self.end + 1))

    @classmethod
    def infeasible(cls, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        return None

    def log_probs(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(memory.flatten(1)).view(len(memory), -1, self.end + 1)
        return logits.log_softmax(dim=-1)  # (B, S, V)

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        texts = F.pad(torch.where(labels.mask(), labels.ids, self.end), (0, 1), value=self.end)
        scores = self.log_probs(memory)[:, : texts.shape[1]].gather(2, texts[:, :, None]).squeeze(2)
        return -(scores * (torch.arange(texts.shape[1]) <= labels.lengths[:, None])).sum(dim=1)

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        log_probs = self.log_probs(memory)
        ids = log_probs[:, :-1].argmax(dim=-1)
        inside = (ids != self.end).long().cumprod(dim=1)
        ids, lengths = ids * inside, inside.sum(dim=1)
        return Hypotheses(ids, lengths, -self.nll(memory, Labels(ids, lengths, self.max_length)))


@pytest.mark.parametrize(("name", "options"), DECODERS, ids=str)
def test_it_conforms(name: str, options: Options) -> None:
    check_decoder(REGISTRY.decoders[name].component, **options)


@pytest.mark.parametrize("healthy", [SmallCTC, SmallLSTM, PerPosition])
def test_what_the_faults_are_planted_in_conforms(healthy: type[Decoder]) -> None:
    check_decoder(healthy)


class WrongBlank(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        frames = torch.full_like(labels.lengths, memory.shape[1])
        log_probs = self._log_probs(memory).transpose(0, 1)
        last = self.vocabulary_size - 1
        return F.ctc_loss(log_probs, labels.ids + 1, frames, labels.lengths, blank=last, reduction="none")


class LeftToRightOrNot(SmallCTC):
    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> Any:
        return not memory.left_to_right


class AlwaysFits(SmallCTC):
    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        return None


class NeverFits(SmallCTC):
    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> str:
        return "the moon is in the wrong quarter"


class FixedWidth(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory[..., :7]) if memory.shape[-1] == 7 else self.head(memory)


class NeedsContiguous(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory.view(-1, memory.shape[2])).view(*memory.shape[:2], -1)


class NotANumber(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory) / torch.zeros(())


class BatchStatistics(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory - memory.mean(dim=0))


class InPlace(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        with torch.no_grad():
            memory.mul_(0.5)
        return super().forward(memory)


class Detached(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory.detach())


class Column(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels)[:, None]


class Scalar(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels).mean()


class DoublePrecision(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels).double()


class Unregistered(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.bias = torch.randn(self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory) + self.bias


class ForeignDice(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.head.weight, generator=generator)


class BlindToTheImage(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(1e-6 * memory)


class TooManyCharacters(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids + 1, read.lengths, read.log_prob)


class Optimist(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids, read.lengths, read.log_prob / 2)


class NeverBeams(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return super().transcribe(memory)


class ByHand(SmallCTC):
    """Multiplies by sums, which no counter of matrix products sees."""

    def forward(self, memory: Tensor) -> Tensor:
        hidden = (memory[..., None, :] * self.hidden.weight).sum(dim=-1) + self.hidden.bias
        return (hidden.tanh()[..., None, :] * self.head.weight).sum(dim=-1) + self.head.bias


class ShiftedTargets(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        """Reads the character that it predicts."""
        ids = F.pad(labels.ids, (0, 1), value=self.end)
        ids = torch.where(F.pad(labels.mask(), (0, 1)), ids, self.end)
        scores = self.teacher_forced_logits(memory, ids).log_softmax(dim=-1).gather(2, ids[:, :, None]).squeeze(2)
        return -(scores * (torch.arange(ids.shape[1]) <= labels.lengths[:, None])).sum(dim=1)


class ForgottenEnd(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        tokens = F.pad(labels.ids, (1, 0), value=self.start)[:, :-1]
        if not labels.longest:
            return 0 * self.teacher_forced_logits(memory, tokens.new_full((len(memory), 1), self.start)).sum(dim=(1, 2))
        scores = self.teacher_forced_logits(memory, tokens).log_softmax(dim=-1)
        return -(scores.gather(2, labels.ids[:, :, None]).squeeze(2) * labels.mask()).sum(dim=1)


class CountsPadding(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, Labels(labels.ids, torch.full_like(labels.lengths, labels.longest), labels.longest))


class Averaged(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels) / (labels.lengths + 1)


class UnusedParameter(SmallLSTM):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.spare = nn.Linear(3, 3)


class NeverEnds(SmallLSTM):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        self.max_length += 2
        read = super().transcribe(memory, beam_size=beam_size)
        self.max_length -= 2
        return read


class Dice(SmallLSTM):
    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        return super().step(token, state, memory + 0.1 * torch.randn_like(memory))


class ReadsTooLate(SmallLSTM):
    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return super().teacher_forced_logits(memory, F.pad(tokens[:, :-1], (1, 0), value=self.start))


class LayersFirst(SmallLSTM):
    """Its state is (layers, B, N), as nn.LSTM has it, so that a beam takes the wrong rows."""

    def initial_state(self, memory: Tensor) -> Any:
        hidden, cell = super().initial_state(memory)
        return hidden[None].expand(200, -1, -1), cell[None].expand(200, -1, -1)

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        logits, (hidden, cell) = super().step(token, (state[0][0], state[1][0]), memory)
        return logits, (hidden[None].expand(200, -1, -1), cell[None].expand(200, -1, -1))


class RemembersOutsideTheState(SmallLSTM):
    def initial_state(self, memory: Tensor) -> Any:
        self.kept = super().initial_state(memory)
        return self.kept

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        logits, self.kept = super().step(token, self.kept, memory)
        return logits, self.kept


class WithoutDefault(SmallCTC):
    class Config(ComponentConfig):
        hidden_dim: int
        """Hidden width."""


class WithoutDocstring(SmallCTC):
    class Config(ComponentConfig):
        hidden_dim: int = 8


class WithoutInitialState(AutoregressiveDecoder):
    name = "without_initial_state"
    Config = ComponentConfig

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (WrongBlank, r"summed over texts is at most 1.*; got [\d.]+ over the 63 texts"),
        (LeftToRightOrNot, "None or a sentence.*; got False for SequenceSpec.*return a sentence"),
        (AlwaysFits, r"CTC needs frames enough.*; got None for SequenceSpec\(length=1"),
        (NeverFits, "got the moon is in the wrong quarter;.* accept one of these"),
        (FixedWidth, r"sizes itself from its specs.*; got RuntimeError: mat1 and mat2"),
        (NeedsContiguous, "got RuntimeError: view size is not compatible"),
        (NotANumber, "finite float32 number.*; got .*nan.*; stay in log space"),
        (BatchStatistics, "`nll` of its single images.*; mix nothing across the batch"),
        (InPlace, "got a memory that was changed in place; work on a copy"),
        (Detached, "no finite gradient for the memory; keep it in the graph"),
        (Column, r"number an image, .*; got torch.float32 of shape \(6, 1\)"),
        (Scalar, r"number an image, .*; got torch.float32 of shape \(\)"),
        (DoublePrecision, r"number an image, .*; got torch.float64 of shape \(6,\)"),
        (Unregistered, "a twin that loaded the state_dict.*; register every tensor"),
        (ForeignDice, "another head.weight when built again from the same seed"),
        (BlindToTheImage, r"memorises six texts.*instead of \['', 'a', 'b', 'ab', 'ba', 'aab'\] after 150 steps"),
        (TooManyCharacters, "ids of the charset.*; keep blank, start and end to yourself"),
        (Optimist, "at most -nll of the text.*with beam_size = 1 a log_prob of"),
        (NeverBeams, "finds the best of all texts"),
        (ByHand, "got no operation that is counted"),
        (ShiftedTargets, "at most -nll of the text.*with beam_size = 1 a log_prob of"),
        (ForgottenEnd, "summed over texts is at most 1.*charge for the end"),
        (CountsPadding, "`nll` of its single images.*mask what is padding"),
        (Averaged, "summed over texts is at most 1.*instead of averaging"),
        (UnusedParameter, "no gradient for spare.weight, spare.bias"),
        (NeverEnds, r"no more characters than the family allows; got lengths from \d to 5 .*at most 3 characters"),
        (Dice, "draw nothing in eval mode"),
        (ReadsTooLate, "`teacher_forced_logits` gives what `step` gives.*read the same token"),
        (LayersFirst, "`step` reads .* row by row.*put the batch first in every tensor of a state"),
        (RemembersOutsideTheState, "`step` reads .* row by row.*all that a step remembers into the state"),
        (WithoutDefault, "option 'hidden_dim' of decoder 'small_ctc' without a default; give it one"),
        (WithoutDocstring, "option 'hidden_dim' of decoder 'small_ctc' without a docstring; say below"),
        (WithoutInitialState, "decoder WithoutInitialState does not implement initial_state"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_caught(fault: type[Decoder], said: str) -> None:
    with pytest.raises(ConformanceError, match=f"(?s){said}"):
        check_decoder(fault)


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    check_decoder(SmallCTC)
    assert torch.equal(before, torch.get_rng_state())
