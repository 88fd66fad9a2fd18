"""Per position: frame s of the memory scores character s, independently of the other characters.

The decoder of ViTSTR: Atienza 2021, "Vision Transformer for Fast and Efficient Scene Text Recognition".

With `vocabulary`, the memory already holds the logits of a complete recognizer (an encoder that returns (B, V, 1, S),
and the bridge mean_height), with its classes in any order:

    CLOVA:         { use = "per_position", vocabulary = "0123...", first = 2, end = 1 }
    ViTSTR:        the same, and skip = 1, because its first frame predicts [GO]
    PARSeq:        { use = "per_position", vocabulary = "0123...", first = 1, end = 0 }
    docTR:         { use = "per_position", vocabulary = "0123..." }
"""

from typing import final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    PerCharacterDecoder,
    SequenceSpec,
    hookimpl,
)


@final
class PerPosition(PerCharacterDecoder):
    """p(text) is the product of the probabilities of its characters and of the end, each taken from its own frame."""

    name = "per_position"
    reads_padding = True  # a position is read from its own frame, whatever the frame shows

    class Config(ComponentConfig):
        """Options of `per_position`."""

        vocabulary: str | None = None
        """Characters of the recognizer whose logits are the memory, in the order of its classes. Probabilities are
        normalized over all D classes; characters outside the charset are never transcribed. Default: layers of this
        decoder score the charset and the end."""

        hidden_dim: int = Field(default=256, ge=0)
        """Width of the hidden layer before the scores; 0 for no hidden layer, as in ViTSTR. Ignored with
        vocabulary."""

        first: int = Field(default=0, ge=0)
        """Class of the first character of `vocabulary`; ignored without vocabulary."""

        end: int | None = Field(default=None, ge=0)
        """Class of the end of a text; default: the class after the last character. Ignored without vocabulary."""

        skip: int = Field(default=0, ge=0)
        """Number of frames before the frame of the first character."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        _refuse_infeasible(config, memory, labels)
        self.skip = config.skip
        self.head: nn.Module = nn.Identity()
        classes = list(range(self.vocabulary_size))
        if config.vocabulary is None:
            hidden = [nn.Linear(memory.dim, config.hidden_dim), nn.GELU()] if config.hidden_dim else []
            self.head = nn.Sequential(*hidden, nn.Linear(config.hidden_dim or memory.dim, self.vocabulary_size))
        else:
            of_characters = [
                config.first + config.vocabulary.index(character) for character in labels.charset.characters
            ]
            classes = [*of_characters, _class_of_end(config, config.vocabulary)]
        self.classes: Tensor
        self.register_buffer("classes", torch.tensor(classes), persistent=False)  # of each character and of the end

    def log_probs(self, memory: Memory) -> Tensor:
        logits: Tensor = self.head(memory.frames[:, self.skip : self.skip + self.num_positions])
        return logits.float().log_softmax(dim=2).index_select(2, self.classes)  # (B, S, V)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return 1 at the frame of each character and 0 elsewhere, (B, S, T)."""
        memory = Memory.of(memory)
        frames = torch.arange(labels.longest, device=memory.device) + self.skip
        weights = F.one_hot(frames, memory.length).float()  # (S, T)
        return weights.expand(memory.batch, -1, -1)


def _class_of_end(config: PerPosition.Config, vocabulary: str) -> int:
    return config.first + len(vocabulary) if config.end is None else config.end


def _refuse_infeasible(config: PerPosition.Config, memory: SequenceSpec, labels: LabelSpec) -> None:
    """Raise `InfeasibleError` for too few frames, or classes that contradict each other, the labels or the memory."""
    frames = config.skip + labels.max_length + 1
    if memory.length < frames:
        raise InfeasibleError(
            f"per_position needs T >= {frames} (the longest label, its end and {config.skip} skipped), this memory has "
            f"T = {memory.length}; use an earlier encoder stage, keep_width or a wider image"
        )
    vocabulary = config.vocabulary
    if vocabulary is None:
        return
    if twice := sorted({character for character in vocabulary if vocabulary.count(character) > 1}):
        raise InfeasibleError(
            f"per_position: vocabulary holds {', '.join(map(repr, twice))} more than once; list each class once"
        )
    end, last = _class_of_end(config, vocabulary), config.first + len(vocabulary) - 1
    if config.first <= end <= last:
        raise InfeasibleError(
            f"per_position: class {end} cannot be both the end and {vocabulary[end - config.first]!r}; the characters "
            f"are classes {config.first} to {last}, set first and end to the classes of the recognizer"
        )
    if missing := "".join(sorted(set(labels.charset.characters) - set(vocabulary))):
        raise InfeasibleError(
            f"per_position: the recognizer's vocabulary lacks {missing!r} of the labels; use another recognizer, or "
            f"map these characters with labels.normalize"
        )
    classes = max(last, end) + 1
    if memory.dim < classes:
        raise InfeasibleError(
            f"per_position: vocabulary, first and end need {classes} classes, this memory has D = {memory.dim}; pass "
            f"the logits unchanged, with mean_height without projection and LSTM"
        )


@hookimpl
def register_decoders() -> list[type[PerPosition]]:
    """Register the decoder of this file."""
    return [PerPosition]
