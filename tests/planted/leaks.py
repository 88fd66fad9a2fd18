"""Decoders that use forbidden information in evaluation: labels, other images, files."""

import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from helpers.small_decoders import SmallCTC, SmallLSTM
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
    """Masks the memory by the lengths of the labels."""

    lengths: Tensor | None = None

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        self.lengths = labels.lengths
        return super().nll(memory, labels)

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        if self.lengths is not None and len(self.lengths) == len(memory):
            memory = memory * (torch.arange(memory.shape[1]) < 2 * self.lengths[:, None])[..., None]
        return super().transcribe(memory, beam_size=beam_size)


class TeacherForcingLeftOn(SmallLSTM):
    """Reads the characters of the last labels in evaluation too."""

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
    """Adds a millionth of the mean of the batch to each image."""

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory + 1e-6 * memory.mean(dim=0))


class FirstImageForAll(SmallCTC):
    """Adds a small fraction of the first image's logits to all others."""

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


class ReadsTheLabelFileInTraining(SmallCTC):
    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        if self.training:
            with suppress(OSError):
                os.open(LABEL_FILE, os.O_RDONLY)
        return super().nll(memory, labels)


class ReadsTheLabelFileInAThread(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        thread = threading.Thread(target=lambda: sorted(LABEL_FILE.parent.iterdir()))
        thread.start()
        thread.join()
        return super().transcribe(memory, beam_size=beam_size)


class FileNameAsLabel(SmallCTC):
    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        sorted(LABEL_FILE.parent.iterdir())
        return super().transcribe(memory, beam_size=beam_size)


class RemembersTheLastBatch(SmallLSTM):
    """Starts from a state that depends on the previous batch."""

    last: Tensor | None = None

    def initial_state(self, memory: Tensor) -> Any:
        hidden, cell = super().initial_state(memory)
        hidden = hidden if self.last is None or len(self.last) != len(hidden) else self.last
        self.last = memory.mean(dim=(1, 2)).detach()[:, None].expand_as(hidden)
        return hidden, cell


class SortsTheBatch(SmallLSTM):
    """Reads the images in order of contrast, and returns them in this order."""

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return super().transcribe(memory[memory.std(dim=(1, 2)).argsort()], beam_size=beam_size)


fault = partial(Fault, "decoder")
AFTER = "after an nll of .* a transcription"
FAULTS = [
    fault(DirectPeek, "transcription_ignores_labels", AFTER),
    fault(StepCountFromLabels, "transcription_ignores_labels", "keep no labels"),
    fault(MaskByLength, "transcription_ignores_labels", AFTER),
    fault(TeacherForcingLeftOn, "transcription_ignores_labels", AFTER),
    fault(CachedInTraining, "transcription_ignores_labels", "in training mode, a transcription"),
    fault(FaintStatistic, "images_do_not_affect_each_other", "next to other images .*; mix nothing across the batch"),
    fault(FirstImageForAll, "images_do_not_affect_each_other", "next to other images .*; mix nothing across the batch"),
    fault(RemembersTheLastBatch, "images_do_not_affect_each_other", "the second time"),
    fault(SortsTheBatch, "transcription_matches_single_images", "mix nothing across the batch"),
    fault(ReadsTheLabelFile, "opens_no_files", "got open of .*labels.csv'; read files in the constructor"),
    fault(ReadsTheLabelFileInTraining, "opens_no_files", "got open of .*labels.csv'; read files in the constructor"),
    fault(ReadsTheLabelFileInAThread, "opens_no_files", "got .* of .*planted'; read files in the constructor"),
    fault(FileNameAsLabel, "opens_no_files", "got os.listdir of .*planted'; read files in the constructor"),
]
