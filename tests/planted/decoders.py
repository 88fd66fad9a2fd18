"""Decoders with one fault each, and the rule that catches it."""

import os
import random
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from helpers.small_decoders import SmallCTC, SmallLSTM
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    Hypotheses,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    PerCharacterDecoder,
    SequenceSpec,
)
from planted import Fault


class WrongBlank(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        frames = torch.full_like(labels.lengths, memory.shape[1])
        log_probs = self.log_probs(memory).transpose(0, 1)
        last = self.vocabulary_size - 1
        return F.ctc_loss(log_probs, labels.ids + 1, frames, labels.lengths, blank=last, reduction="none")


class InfeasibleWithoutReason(SmallLSTM):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        if not memory.left_to_right:
            raise InfeasibleError("no")
        super().__init__(config, memory, labels)


class InfeasibleByAnotherError(SmallLSTM):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        if not memory.left_to_right:
            raise ValueError("needs frames in reading order")
        super().__init__(config, memory, labels)


class AlwaysFeasible(SmallCTC):
    """Hides from the CTC family how many frames the labels need."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, replace(labels, frames_needed=1))


class NeverFeasible(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        raise InfeasibleError("the moon is in the wrong quarter")


class DefinesInfeasible(SmallCTC):
    """Written for version 1 of the plugin API."""

    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        return None if memory.length > 1 else "it needs more than one frame"


class FixedWidth(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory[..., :7]) if memory.shape[-1] == 7 else self.head(memory)


class EightPositions(SmallLSTM):
    """Embeds the number of the step, in a table of a fixed length."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.positions = nn.Embedding(8, 16)

    def initial_state(self, memory: Tensor) -> Any:
        return *super().initial_state(memory), torch.zeros(len(memory), dtype=torch.int64)

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        hidden, cell, position = state
        read = torch.cat([self.embed(token) + self.positions(position), memory.mean(dim=1)], dim=-1)
        hidden, cell = self.cell(read, (hidden, cell))
        return self.head(hidden), (hidden, cell, position + 1)


class StateInADictionary(SmallLSTM):
    def initial_state(self, memory: Tensor) -> Any:
        hidden, cell = super().initial_state(memory)
        return {"hidden": hidden, "cell": cell}

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        logits, (hidden, cell) = super().step(token, (state["hidden"], state["cell"]), memory)
        return logits, {"hidden": hidden, "cell": cell}


class NeedsContiguous(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory.view(-1, memory.shape[2])).view(*memory.shape[:2], -1)


class NotANumber(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory) / torch.zeros(())


class BatchStatistics(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory - memory.mean(dim=0))


class InfiniteForEmptyText(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return torch.where(labels.lengths == 0, torch.inf, super().nll(memory, labels))


class WrongRank(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory).flatten(1)


class DropsFrames(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory)[:, 1:]


class NoBlank(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory)[..., 1:]


class DropsTheBatch(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels)[:1]


class IntegerIds(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids.int(), read.lengths, read.log_prob)


class ReturnsProbability(SmallCTC):
    """Returns a probability as log_prob."""

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids, read.lengths, read.log_prob.exp())


class NotNormalized(SmallCTC):
    def log_probs(self, memory: Memory | Tensor) -> Tensor:
        return self(Memory.of(memory).frames) - 0.5


class NormalizedOverPositions(PerCharacterDecoder):
    """A query per position, whose scores are normalized over the positions instead of the classes."""

    name = "normalized_over_positions"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.queries = nn.Parameter(torch.randn(self.num_positions, memory.dim))
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def log_probs(self, memory: Memory) -> Tensor:
        weights = memory.hide(self.queries @ memory.frames.transpose(1, 2)).softmax(dim=2)
        return self.head(weights @ memory.frames).log_softmax(dim=1)


class ChangesLabels(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        nll = super().nll(memory, labels)
        labels.ids.add_(1)
        return nll


class ChangesItsInput(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        with torch.no_grad():
            memory.mul_(0.5)
        return super().forward(memory)


class Detached(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory.detach())


class NllAsColumn(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels)[:, None]


class NllAsScalar(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels).mean()


class DoublePrecision(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels).double()


class UnregisteredBias(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.bias = torch.randn(self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory) + self.bias


class GrowsItsBias(SmallCTC):
    """Registers a parameter in its first pass, which a decoder built anew does not have."""

    def forward(self, memory: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Parameter(torch.zeros(self.vocabulary_size))
        return super().forward(memory) + self.late


class ListOfLayers(SmallCTC):
    """Keeps its second layer in a plain list, so neither optimizer nor state dict includes it."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.layers = [nn.Linear(32, 32)]

    def forward(self, memory: Tensor) -> Tensor:
        return self.head(self.layers[0](self.hidden(memory).tanh()))


class DrawsFromOwnGenerator(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.head.weight, generator=generator)


class IgnoresTheImage(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(1e-6 * memory)


class ReturnsClasses(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids + 1, read.lengths, read.log_prob)


class OverstatesLogProb(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids, read.lengths, read.log_prob / 2)


class ScoresThePath(SmallCTC):
    def transcribe_and_score(self, memory: Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
        read = self.transcribe(memory, beam_size=beam_size)
        return read, -read.log_prob


class IgnoresBeamSize(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return super().transcribe(memory)


class MultipliesElementwise(SmallCTC):
    """Multiplies matrices elementwise, which the FLOP counter does not count."""

    def forward(self, memory: Tensor) -> Tensor:
        hidden = (memory[..., None, :] * self.hidden.weight).sum(dim=-1) + self.hidden.bias
        return (hidden.tanh()[..., None, :] * self.head.weight).sum(dim=-1) + self.head.bias


class ShiftedTargets(SmallLSTM):
    """Reads the character that it predicts."""

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        ids = F.pad(labels.ids, (0, 1), value=self.end)
        ids = torch.where(F.pad(labels.mask(), (0, 1)), ids, self.end)
        scores = self.teacher_forced_logits(memory, ids).log_softmax(dim=-1).gather(2, ids[:, :, None]).squeeze(2)
        return -(scores * (torch.arange(ids.shape[1]) <= labels.lengths[:, None])).sum(dim=1)


class IgnoresTheEnd(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        tokens = F.pad(labels.ids, (1, 0), value=self.start)[:, :-1]
        if not labels.longest:
            return 0 * self.teacher_forced_logits(memory, tokens.new_full((len(memory), 1), self.start)).sum(dim=(1, 2))
        scores = self.teacher_forced_logits(memory, tokens).log_softmax(dim=-1)
        return -(scores.gather(2, labels.ids[:, :, None]).squeeze(2) * labels.mask()).sum(dim=1)


class CountsPadding(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        lengths = torch.full_like(labels.lengths, labels.longest)
        return super().nll(memory, Labels(labels.ids, lengths, (labels.longest,) * len(lengths)))


class AveragesCharacters(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels) / (labels.lengths + 1)


class UnusedParameter(SmallLSTM):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.spare = nn.Linear(3, 3)


class ExceedsMaxLength(SmallLSTM):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        self.max_length += 2
        read = super().transcribe(memory, beam_size=beam_size)
        self.max_length -= 2
        return read


class DrawsInEvalMode(SmallLSTM):
    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        return super().step(token, state, memory + 0.1 * torch.randn_like(memory))


class ShiftedTeacherForcing(SmallLSTM):
    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return super().teacher_forced_logits(memory, F.pad(tokens[:, :-1], (1, 0), value=self.start))


class StateWithLayersFirst(SmallLSTM):
    """Returns a state (layers, B, N), as nn.LSTM does, so beam search selects the wrong rows."""

    def initial_state(self, memory: Tensor) -> Any:
        hidden, cell = super().initial_state(memory)
        return hidden[None].expand(200, -1, -1), cell[None].expand(200, -1, -1)

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        logits, (hidden, cell) = super().step(token, (state[0][0], state[1][0]), memory)
        return logits, (hidden[None].expand(200, -1, -1), cell[None].expand(200, -1, -1))


class KeepsStateOutside(SmallLSTM):
    def initial_state(self, memory: Tensor) -> Any:
        self.kept = super().initial_state(memory)
        return self.kept

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        logits, self.kept = super().step(token, self.kept, memory)
        return logits, self.kept


class DropoutInEvalMode(SmallLSTM):
    """Applies dropout in eval mode too."""

    def initial_state(self, memory: Tensor) -> Any:
        return tuple(F.dropout(part + 1, 0.5) for part in super().initial_state(memory))


class SeedsTheProcess(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        torch.manual_seed(42)
        super().__init__(config, memory, labels)


class DrawsFromPython(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        random.random()
        return super().forward(memory)


class LeavesGradientsOff(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        torch.set_grad_enabled(False)


class LeavesDoublePrecision(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        torch.set_default_dtype(torch.float64)
        return read


class TakesAllThreads(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        torch.set_num_threads(torch.get_num_threads() + 1)
        os.environ["OMP_NUM_THREADS"] = "7"


class LeavesEvalMode(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        self.train()
        return read


class LearnsInInference(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.register_buffer("mean", torch.zeros(memory.dim))

    def forward(self, memory: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += memory.mean(dim=(0, 1))
        return super().forward(memory)


class ReadsWeights(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        if self.head.weight.abs().max().item() > 9:
            nn.init.zeros_(self.head.weight)


class StateOnTheCPU(SmallLSTM):
    """Calls torch.zeros without a device, which fails on a GPU only."""

    def initial_state(self, memory: Tensor) -> Any:
        return torch.zeros(memory.shape[0], 32), torch.zeros(memory.shape[0], 32)


class PlainTensor(SmallCTC):
    """Keeps a mask that is not a buffer, so `to` does not move it."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.mask = torch.ones(memory.dim)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory * self.mask)


class LengthsOnTheDevice(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        frames = torch.full_like(labels.lengths, memory.shape[1])
        log_probs = self.log_probs(memory).transpose(0, 1)
        return F.ctc_loss(log_probs, labels.ids + 1, frames, labels.lengths, reduction="none")


class ReadsTheLengths(SmallLSTM):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels) / (1 + 0 * labels.lengths.max().item())


class IndexesByMask(SmallLSTM):
    """Takes the scores of the characters by a mask, so the host must count them."""

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        spelled = labels.ids[labels.mask()]
        return super().nll(memory, labels) + 0 * spelled.sum()


class UploadsAConstant(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory) * torch.tensor([1.0, 2.0, 2.0], device=memory.device)


class LooksAtEachStep(SmallLSTM):
    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        if not self.training and token.eq(self.end).all():
            return memory.new_zeros(len(memory), self.vocabulary_size), state
        return super().step(token, state, memory)


class CannotBeExported(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        logits = super().forward(memory)
        return logits if logits.sum().item() > 1e9 else 1 * logits


class WeightsFromHash(SmallCTC):
    """Initializes weights from the hash of a string, which differs between processes."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        nn.init.constant_(self.head.bias, float(hash(labels.charset.characters) % 1000))


class WeightsInOrderOfASet(SmallCTC):
    """Initializes weights in the order of a set of strings, which differs between processes."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        order = [int(number) for number in {str(number) for number in range(100)}]
        nn.init.constant_(self.head.bias, float(order[0]))


class LossFromTheTime(SmallCTC):
    """Weights the loss by the time of day."""

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        return super().nll(memory, labels) * (1 + time.time() % 1)


class DropsByEntropy(SmallCTC):
    """Drops frames in training by random bytes of the system, which no seed determines."""

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        kept = torch.tensor([byte > 128 for byte in os.urandom(memory.shape[1])])
        return super().nll(memory * kept[:, None] if self.training else memory, labels)


class AlignsByLogits(SmallLSTM):
    """Returns the alignment in another form than probabilities."""

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), -1.0)


class AlignsHalfOfACharacter(SmallLSTM):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), 0.5 / memory.shape[1])


class AlignsFramesFirst(SmallLSTM):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), memory.shape[1], labels.longest), 1.0)


class AlignsTheEnd(SmallLSTM):
    """Returns a row for the end of the text too."""

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest + 1, memory.shape[1]), 1.0)


class AlignsNotANumber(SmallLSTM):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), float("nan"))


class EmitsAllCharactersAtOnce(SmallCTC):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), 1.0)


class AlignsWithTheBatch(SmallLSTM):
    """Normalizes its weights over the batch too."""

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        weights = (memory.mean(dim=2) - memory.mean(dim=(0, 2))).softmax(dim=1)  # (B, T)
        return weights[:, None].expand(-1, labels.longest, -1)


class AlignsByPadding(SmallLSTM):
    """Reads the ids past the end of a text."""

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        weights = (memory.mean(dim=2) + labels.ids.sum(dim=1, keepdim=True) * memory[..., 0]).softmax(dim=1)
        return weights[:, None].expand(-1, labels.longest, -1)


class AlignsLongTextsOnly(SmallLSTM):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor | None:
        if labels.longest < 2:
            return None
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), 1 / memory.shape[1])


class AlignsOnTheHost(SmallLSTM):
    def alignment(self, memory: Tensor, labels: Labels) -> Tensor:
        return memory.new_full((len(memory), labels.longest, memory.shape[1]), 1 / float(labels.lengths.max() + 1))


class EndedAsNumber(SmallLSTM):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return replace(read, ended=read.lengths.float())


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


class NameWithSpaces(SmallCTC):
    name = "Small CTC!"


fault = partial(Fault, "decoder")
FAULTS = [
    # registration
    fault(WithoutDefault, "can_be_registered", "option 'hidden_dim' of decoder 'small_ctc' without a default; give it"),
    fault(
        WithoutDocstring,
        "options_are_described",
        "option 'hidden_dim' of decoder 'small_ctc' without a docstring; desc",
    ),
    fault(WithoutInitialState, "can_be_registered", "decoder WithoutInitialState does not implement initial_state"),
    fault(NameWithSpaces, "can_be_registered", "has the name 'Small CTC!'; use a-z, 0-9"),
    fault(
        DefinesInfeasible,
        "can_be_registered",
        "decoder 'small_ctc' defines infeasible, which nothing calls since plugin API version 2; raise InfeasibleError",
    ),
    # feasibility
    fault(InfeasibleWithoutReason, "infeasible_gives_reason", "got 'no' for SequenceSpec.*give the reason as a sent"),
    fault(InfeasibleByAnotherError, "infeasible_gives_reason", "got ValueError: needs frames in reading order"),
    fault(
        AlwaysFeasible,
        "infeasible_gives_reason",
        r"as CTC with too few frames.*; got no error for SequenceSpec\(length=1",
    ),
    fault(
        NeverFeasible, "nll_is_one_number_per_image", "got the moon is in the wrong quarter;.* accept at least one of"
    ),
    # shapes and dtypes
    fault(FixedWidth, "works_at_every_size", "takes all sizes from its specs.*; got RuntimeError: mat1 and mat2"),
    fault(EightPositions, "works_at_every_size", "got IndexError: index out of range"),
    fault(
        StateInADictionary, "works_at_every_size", r"a state is a tensor or a \(nested\) tuple of tensors, given dict"
    ),
    fault(NeedsContiguous, "nll_is_one_number_per_image", "got RuntimeError: view size is not compatible"),
    fault(WrongRank, "works_at_every_size", r"must return logits \(B, T, V\) = \(2, 5, 3\), it returned \(2, 15\)"),
    fault(DropsFrames, "works_at_every_size", r"must return logits \(B, T, V\) = \(2, 5, 3\), it returned \(2, 4, 3\)"),
    fault(NoBlank, "works_at_every_size", r"must return logits \(B, T, V\) = \(2, 5, 3\), it returned \(2, 5, 2\)"),
    fault(DropsTheBatch, "nll_is_one_number_per_image", r"got torch.float32 of shape \(1,\) for 6 images"),
    fault(NotANumber, "nll_is_one_number_per_image", "finite float32 number.*; got .*nan.*; stay in log space"),
    fault(InfiniteForEmptyText, "nll_is_one_number_per_image", "finite float32 number.*; got {'': inf}; stay in log"),
    fault(NllAsColumn, "nll_is_one_number_per_image", r"number per image, .*; got torch.float32 of shape \(6, 1\)"),
    fault(NllAsScalar, "nll_is_one_number_per_image", r"number per image, .*; got torch.float32 of shape \(\)"),
    fault(DoublePrecision, "nll_is_one_number_per_image", r"number per image, .*; got torch.float64 of shape \(6,\)"),
    fault(IntegerIds, "transcriptions_are_valid", r"got ids torch.int32 .*return ids \(B, S\)"),
    fault(ReturnsProbability, "transcriptions_are_valid", "got log_prob .*; return the logarithm of a probability"),
    fault(ReturnsClasses, "transcriptions_are_valid", "got ids .*; do not return blank, start or end"),
    fault(EndedAsNumber, "transcriptions_are_valid", r"got ended torch.float32 .*; return ended as \(B,\) bool"),
    # alignment
    fault(AlignsByLogits, "alignment_is_of_given_texts", "got weights from -1 to -1 that sum to -5 for a character"),
    fault(AlignsHalfOfACharacter, "alignment_is_of_given_texts", "that sum to 0.5 for a character"),
    fault(AlignsFramesFirst, "alignment_is_of_given_texts", r"got torch.float32 of shape \(6, 5, 3\); .* \(6, 3, 5\)"),
    fault(AlignsTheEnd, "alignment_is_of_given_texts", r"got torch.float32 of shape \(6, 4, 5\)"),
    fault(AlignsNotANumber, "alignment_is_of_given_texts", "got weights from nan to nan"),
    fault(EmitsAllCharactersAtOnce, "alignment_is_of_given_texts", "got a frame that emits 3 characters"),
    fault(
        AlignsWithTheBatch, "alignment_matches_single_images", "in a batch a weight of .*mix nothing across the batch"
    ),
    fault(AlignsByPadding, "alignment_matches_single_images", "with other padding a weight of .*past the end"),
    fault(AlignsLongTextsOnly, "alignment_matches_single_images", "an alignment of some texts and None of others"),
    fault(
        AlignsWithTheBatch, "images_do_not_affect_each_other", "next to other images .*; mix nothing across the batch"
    ),
    fault(AlignsOnTheHost, "does_not_wait_for_device", "got a wait for a value"),
    fault(ExceedsMaxLength, "transcriptions_are_valid", r"got lengths from \d to 5 .*at most 3 characters"),
    # training and weights
    fault(ChangesItsInput, "inputs_are_unchanged", "got an input changed in place; work on a copy"),
    fault(ChangesLabels, "labels_are_unchanged", "got ids changed in place; work on a copy of the labels"),
    fault(Detached, "every_parameter_gets_gradient", "no finite gradient for the input; keep it in the graph"),
    fault(UnusedParameter, "every_parameter_gets_gradient", "no gradient for spare.weight, spare.bias"),
    fault(UnregisteredBias, "state_dict_round_trips", "after loading the weights an output .*; register every tensor"),
    fault(
        GrowsItsBias,
        "training_goes_on_from_saved_state",
        "got a state that a module built anew cannot load: it has late, which the model does not have; keep what",
    ),
    fault(ListOfLayers, "state_dict_round_trips", "after loading the weights an output .*; register every tensor"),
    fault(DrawsFromOwnGenerator, "initial_weights_depend_on_seed_only", "another head.weight when built again"),
    fault(IgnoresTheImage, "memorizes_six_texts", r"instead of \['', 'a', 'b', 'ab', 'ba', 'aab'\] after 150 steps"),
    # devices
    fault(ReadsWeights, "builds_on_meta_device", "got RuntimeError: Tensor.item"),
    fault(StateOnTheCPU, "stays_on_one_device", "got .* of tensors on cpu and cuda; create tensors on the device of"),
    fault(PlainTensor, "stays_on_one_device", "got mul of tensors on cpu and cuda; create tensors on the device of"),
    fault(
        LengthsOnTheDevice,
        "does_not_wait_for_device",
        r"a wait for .*a copy from cuda to cpu at decoders.py:\d+.*; keep",
    ),
    fault(
        ReadsTheLengths, "does_not_wait_for_device", r"a wait for a value \(item.*\) at decoders.py:\d+; keep values"
    ),
    fault(
        IndexesByMask, "does_not_wait_for_device", "a wait for an index that is a mask at .*product for x.mask., Lab"
    ),
    fault(UploadsAConstant, "does_not_wait_for_device", "a wait for a copy from cpu to cuda at .*buffer for torch.ten"),
    fault(
        LooksAtEachStep, "does_not_wait_for_device", "a wait for a value .* at decoders.py:.*; keep values on the dev"
    ),
    fault(MultipliesElementwise, "macs_can_be_counted", "got no operation that is counted"),
    fault(CannotBeExported, "exported_program_matches", "as `exports = True` promises; got "),
    # probabilities
    fault(
        WrongBlank, "probabilities_sum_to_at_most_one", r"summed over texts is at most 1.*; got [\d.]+ for the 63 tex"
    ),
    fault(NormalizedOverPositions, "probabilities_sum_to_at_most_one", "for the 9 texts of at most 1 characters"),
    fault(NotNormalized, "probabilities_sum_to_at_most_one", "normalize over the whole vocabulary"),
    fault(IgnoresTheEnd, "probabilities_sum_to_at_most_one", "include the end of the text"),
    fault(AveragesCharacters, "probabilities_sum_to_at_most_one", "instead of averaging"),
    fault(BatchStatistics, "nll_matches_single_images", "mix nothing across the batch"),
    fault(CountsPadding, "nll_matches_single_images", "mask the padding"),
    fault(OverstatesLogProb, "log_prob_matches_nll", "with beam_size = 1 a log_prob of"),
    fault(ShiftedTargets, "log_prob_matches_nll", "with beam_size = 1 a log_prob of"),
    fault(ScoresThePath, "transcribe_and_score_agrees", "with beam_size = 1 an nll of"),
    fault(IgnoresBeamSize, "wide_beam_finds_best_text", "search as the family does"),
    fault(ShiftedTeacherForcing, "teacher_forcing_matches_step", "read the same token"),
    fault(StateWithLayersFirst, "step_works_row_by_row", "put the batch first in every tensor of a state"),
    fault(KeepsStateOutside, "step_works_row_by_row", "everything that a step remembers into the state"),
    # randomness and side effects
    fault(DrawsInEvalMode, "images_do_not_affect_each_other", "draw no random numbers in eval mode"),
    fault(DropoutInEvalMode, "images_do_not_affect_each_other", "in eval mode: check self.training"),
    fault(SeedsTheProcess, "global_state_is_unchanged", "of the seed of torch, .* after construction; draw from torch"),
    fault(DrawsFromPython, "global_state_is_unchanged", "a change of the random state of Python after training"),
    fault(LeavesGradientsOff, "global_state_is_unchanged", "a change of the grad mode after construction"),
    fault(LeavesDoublePrecision, "global_state_is_unchanged", "a change of the default dtype after inference"),
    fault(TakesAllThreads, "global_state_is_unchanged", "the number of threads, the environment after construction"),
    fault(LeavesEvalMode, "inference_changes_nothing", r"another mode of the module, hidden, head; leave train\(\)"),
    fault(LearnsInInference, "inference_changes_nothing", "a change of mean by inference; learn in training mode only"),
    fault(WeightsFromHash, "fresh_processes_agree", "two different results from one seed; depend on torch's seed only"),
    fault(WeightsInOrderOfASet, "fresh_processes_agree", "two different results from one seed; .*the order of a set"),
    fault(LossFromTheTime, "fresh_processes_agree", "two different results from one seed; .*the time"),
    fault(DropsByEntropy, "fresh_processes_agree", "two different results from one seed; .*other random generators"),
]
HEALTHY = [SmallCTC, SmallLSTM]
