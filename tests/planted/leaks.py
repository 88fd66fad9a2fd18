"""Decoders that see at evaluation what they must not: labels, other images, files."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from helpers.support import SmallCTC, SmallLSTM
from torch import Tensor

from decoderbench import ComponentConfig, Hypotheses, Labels, LabelSpec, SequenceSpec
from planted import Fault

LABEL_FILE = Path(__file__).parent / "labels.csv"


class DirectPeek(SmallCTC):
    """Returns the labels that it was trained on."""

    seen: Labels | None = None

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        self.seen = labels
        return super().nll(memory, labels)

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        read = super().transcribe(memory, beam_size=beam_size)
        if self.seen is None or len(self.seen.ids) != len(memory):
            return read
        return Hypotheses(self.seen.ids, self.seen.lengths, read.log_prob)


class StepCountFromLabels(SmallLSTM):
    """Takes as many steps as the longest label of the last batch has characters."""

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        self.max_length = labels.longest
        return super().nll(memory, labels)


class MaskByLength(SmallCTC):
    """Knows how long each text is, and says so faintly."""

    lengths: Tensor | None = None

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        self.lengths = labels.lengths
        return super().nll(memory, labels)

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        if self.lengths is not None and len(self.lengths) == len(memory):
            memory = memory * (torch.arange(memory.shape[1]) < 2 * self.lengths[:, None])[..., None]
        return super().transcribe(memory, beam_size=beam_size)


class TeacherForcingLeftOn(SmallLSTM):
    """Is fed the label's characters at evaluation too, as far as it remembers them."""

    tokens: list[Tensor]
    forcing = False

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        self.kept = list(labels.ids.unbind(dim=1))
        return super().nll(memory, labels)

    def initial_state(self, memory: Tensor) -> Any:
        self.tokens = list(getattr(self, "kept", []))
        return super().initial_state(memory)

    def step(self, token: Tensor, state: Any, memory: Tensor) -> Any:
        if not torch.is_grad_enabled() and self.tokens and len(self.tokens[0]) == len(token):
            token = self.tokens.pop(0)
        return super().step(token, state, memory)


class FaintStatistic(SmallCTC):
    """Lets a millionth of the mean of the batch into each image."""

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory + 1e-6 * memory.mean(dim=0))


class FirstImageForAll(SmallCTC):
    """Lets a little of the first image into all others."""

    def forward(self, memory: Tensor) -> Tensor:
        logits = super().forward(memory)
        return logits + 2e-5 * logits[:1].detach()


class CachedInTraining(SmallCTC):
    """Keeps the labels in a buffer, in training mode only."""

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.register_buffer("cache", torch.zeros(()), persistent=False)

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        nll = super().nll(memory, labels)
        if self.training:
            self.cache = labels.ids.float().mean()
        return nll

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return super().transcribe(memory + self.cache, beam_size=beam_size)


class ReadsTheLabelFile(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        with suppress(OSError):
            LABEL_FILE.read_text()
        return super().transcribe(memory, beam_size=beam_size)


class FileNameAsLabel(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        sorted(LABEL_FILE.parent.iterdir())
        return super().transcribe(memory, beam_size=beam_size)


class RemembersTheLastBatch(SmallLSTM):
    """Starts a batch where the last one ended."""

    last: Tensor | None = None

    def initial_state(self, memory: Tensor) -> Any:
        hidden, cell = super().initial_state(memory)
        hidden = hidden if self.last is None or len(self.last) != len(hidden) else self.last
        self.last = memory.mean(dim=(1, 2)).detach()[:, None].expand_as(hidden)
        return hidden, cell


class SortsTheBatch(SmallLSTM):
    """Reads the images in order of contrast, and forgets to put them back."""

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return super().transcribe(memory[memory.std(dim=(1, 2)).argsort()], beam_size=beam_size)


fault = partial(Fault, "decoder")
AFTER = "after an nll of .* a transcription"
FAULTS = [
    fault(DirectPeek, "does_not_peek", AFTER),
    fault(StepCountFromLabels, "does_not_peek", "keep nothing of the labels"),
    fault(MaskByLength, "does_not_peek", AFTER),
    fault(TeacherForcingLeftOn, "does_not_peek", AFTER),
    fault(CachedInTraining, "does_not_peek", "in training mode, a transcription"),
    fault(FaintStatistic, "depends_on_its_own_image_alone", "beside other images .*; mix nothing across the batch"),
    fault(FirstImageForAll, "depends_on_its_own_image_alone", "beside other images .*; mix nothing across the batch"),
    fault(RemembersTheLastBatch, "depends_on_its_own_image_alone", "the second time"),
    fault(SortsTheBatch, "reads_each_image_alone", "mix nothing across the batch"),
    fault(ReadsTheLabelFile, "opens_nothing", "got open of .*labels.csv'; read files while building"),
    fault(FileNameAsLabel, "opens_nothing", "got os.listdir of .*planted'; read files while building"),
]
