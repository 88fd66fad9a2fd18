"""Decoders that are broken in one place, and the rule that each breaks."""

import os
import random
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from helpers.support import SmallCTC, SmallLSTM
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, Hypotheses, Labels, LabelSpec, SequenceSpec
from planted import Fault


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


class EightPositions(SmallLSTM):
    """Embeds the number of the step, in a table of a length of its own."""

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


class Infinite(SmallCTC):
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


class Percent(SmallCTC):
    """Its log_prob is a probability, which is above zero."""

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        return Hypotheses(read.ids, read.lengths, read.log_prob.exp())


class NotNormalized(SmallCTC):
    def _log_probs(self, memory: Tensor) -> Tensor:
        return self(memory) - 0.5


class SpoilsLabels(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        nll = super().nll(memory, labels)
        labels.ids.add_(1)
        return nll


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


class ListOfLayers(SmallCTC):
    """Its second layer is in a plain list, which no optimizer and no file sees."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.layers = [nn.Linear(32, 32)]

    def forward(self, memory: Tensor) -> Tensor:
        return self.head(self.layers[0](self.hidden(memory).tanh()))


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


class DiceOutsideTraining(SmallLSTM):
    """Its dropout heeds no mode."""

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


class LearnsWhileReading(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.register_buffer("mean", torch.zeros(memory.dim))

    def forward(self, memory: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += memory.mean(dim=(0, 1))
        return super().forward(memory)


class LooksAtWeights(SmallCTC):
    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        if self.head.weight.abs().max().item() > 9:
            nn.init.zeros_(self.head.weight)


class StateOnTheHost(SmallLSTM):
    """torch.zeros without a device: it works until it meets a GPU."""

    def initial_state(self, memory: Tensor) -> Any:
        return torch.zeros(memory.shape[0], 32), torch.zeros(memory.shape[0], 32)


class PlainTensor(SmallCTC):
    """A mask that no `to` moves, as it is no buffer."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.mask = torch.ones(memory.dim)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory * self.mask)


class ExportsByHearsay(SmallCTC):
    def forward(self, memory: Tensor) -> Tensor:
        logits = super().forward(memory)
        return logits if logits.sum().item() > 1e9 else 1 * logits


class OrderOfASet(SmallCTC):
    """Its weights depend on the order of a set of strings, which each process has its own of."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        nn.init.constant_(self.head.bias, float(hash(labels.charset.characters) % 1000))


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


class NameWithBlanks(SmallCTC):
    name = "Small CTC!"


fault = partial(Fault, "decoder")
FAULTS = [
    # can it be registered at all
    fault(WithoutDefault, "can_be_registered", "option 'hidden_dim' of decoder 'small_ctc' without a default; give it"),
    fault(WithoutDocstring, "can_be_registered", "option 'hidden_dim' of decoder 'small_ctc' without a docstring; say"),
    fault(WithoutInitialState, "can_be_registered", "decoder WithoutInitialState does not implement initial_state"),
    fault(NameWithBlanks, "can_be_registered", "has the name 'Small CTC!'; give it one of a-z, 0-9"),
    # what it says of itself
    fault(LeftToRightOrNot, "says_what_it_cannot_read", "got False for SequenceSpec.*return a sentence"),
    fault(AlwaysFits, "says_what_it_cannot_read", r"CTC needs frames enough.*; got None for SequenceSpec\(length=1"),
    fault(NeverFits, "scores_each_image", "got the moon is in the wrong quarter;.* accept one of these"),
    # tensors
    fault(FixedWidth, "fits_every_size", "sizes itself from its specs.*; got RuntimeError: mat1 and mat2"),
    fault(EightPositions, "fits_every_size", "got IndexError: index out of range"),
    fault(StateInADictionary, "fits_every_size", r"a state is a tensor or a \(nested\) tuple of tensors, given dict"),
    fault(NeedsContiguous, "scores_each_image", "got RuntimeError: view size is not compatible"),
    fault(WrongRank, "fits_every_size", r"must give logits \(B, T, V\) = \(2, 5, 3\), it gave \(2, 15\)"),
    fault(DropsFrames, "fits_every_size", r"must give logits \(B, T, V\) = \(2, 5, 3\), it gave \(2, 4, 3\)"),
    fault(NoBlank, "fits_every_size", r"must give logits \(B, T, V\) = \(2, 5, 3\), it gave \(2, 5, 2\)"),
    fault(DropsTheBatch, "scores_each_image", r"got torch.float32 of shape \(1,\) for 6 images"),
    fault(NotANumber, "scores_each_image", "finite float32 number.*; got .*nan.*; stay in log space"),
    fault(Infinite, "scores_each_image", "finite float32 number.*; got {'': inf}; stay in log space"),
    fault(Column, "scores_each_image", r"number an image, .*; got torch.float32 of shape \(6, 1\)"),
    fault(Scalar, "scores_each_image", r"number an image, .*; got torch.float32 of shape \(\)"),
    fault(DoublePrecision, "scores_each_image", r"number an image, .*; got torch.float64 of shape \(6,\)"),
    fault(IntegerIds, "keeps_to_its_charset", r"got ids torch.int32 .*return ids \(B, S\)"),
    fault(Percent, "keeps_to_its_charset", "got log_prob .*; give the logarithm of a probability"),
    fault(TooManyCharacters, "keeps_to_its_charset", "got ids .*; keep blank, start and end to yourself"),
    fault(NeverEnds, "keeps_to_its_charset", r"got lengths from \d to 5 .*at most 3 characters"),
    fault(InPlace, "leaves_its_inputs_alone", "got an input that was changed in place; work on a copy"),
    fault(SpoilsLabels, "leaves_the_labels_alone", "got ids that were changed in place; work on a copy of the labels"),
    fault(Detached, "trains_every_parameter", "no finite gradient for what it reads; keep it in the graph"),
    fault(UnusedParameter, "trains_every_parameter", "no gradient for spare.weight, spare.bias"),
    fault(Unregistered, "comes_back_from_a_file", "a twin that loaded the file.*; register every tensor"),
    fault(ListOfLayers, "comes_back_from_a_file", "a twin that loaded the file.*; register every tensor"),
    fault(ForeignDice, "starts_from_the_seed", "another head.weight when built again from the same seed"),
    fault(LooksAtWeights, "builds_on_meta", "got RuntimeError: Tensor.item"),
    fault(StateOnTheHost, "stays_on_its_device", "got .* of tensors on cpu and meta; make tensors where the input is"),
    fault(PlainTensor, "stays_on_its_device", "got mul of tensors on cpu and meta; make tensors where the input is"),
    fault(ByHand, "is_counted", "got no operation that is counted"),
    fault(ExportsByHearsay, "exports_as_it_declares", "as `exports = True` declares; got "),
    # probability
    fault(WrongBlank, "is_a_probability", r"summed over texts is at most 1.*; got [\d.]+ over the 63 texts"),
    fault(NotNormalized, "is_a_probability", "normalize over the whole vocabulary"),
    fault(ForgottenEnd, "is_a_probability", "charge for the end"),
    fault(Averaged, "is_a_probability", "instead of averaging"),
    fault(BatchStatistics, "scores_each_image_alone", "mix nothing across the batch"),
    fault(CountsPadding, "scores_each_image_alone", "mask what is padding"),
    fault(Optimist, "claims_what_it_scores", "with beam_size = 1 a log_prob of"),
    fault(ShiftedTargets, "claims_what_it_scores", "with beam_size = 1 a log_prob of"),
    fault(NeverBeams, "finds_the_best_text", "search as the family does"),
    fault(ReadsTooLate, "forces_what_it_steps", "read the same token"),
    fault(LayersFirst, "steps_row_by_row", "put the batch first in every tensor of a state"),
    fault(RemembersOutsideTheState, "steps_row_by_row", "all that a step remembers into the state"),
    fault(BlindToTheImage, "memorizes", r"instead of \['', 'a', 'b', 'ab', 'ba', 'aab'\] after 150 steps"),
    # what must be left alone
    fault(Dice, "depends_on_its_own_image_alone", "draw nothing in eval mode"),
    fault(DiceOutsideTraining, "depends_on_its_own_image_alone", "draw nothing in eval mode: heed self.training"),
    fault(SeedsTheProcess, "leaves_the_process_alone", "of the seed of torch, .* after building; draw from torch's"),
    fault(DrawsFromPython, "leaves_the_process_alone", "another state of the random state of Python after training"),
    fault(LeavesGradientsOff, "leaves_the_process_alone", "another state of the grad mode after building"),
    fault(LeavesDoublePrecision, "leaves_the_process_alone", "another state of the default dtype after reading"),
    fault(TakesAllThreads, "leaves_the_process_alone", "the number of threads, the environment after building"),
    fault(LeavesEvalMode, "changes_nothing_by_reading", r"another mode of itself, hidden, head; leave train\(\)"),
    fault(LearnsWhileReading, "changes_nothing_by_reading", "another mean after reading; learn in training mode only"),
    fault(OrderOfASet, "agrees_between_processes", "two different outcomes of one seed; depend on torch's seed alone"),
]
HEALTHY = [SmallCTC, SmallLSTM]
