"""Per position: frame s of the memory scores character s, and no position looks at what another one says.

How ViTSTR reads: Atienza 2021, "Vision Transformer for Fast and Efficient Scene Text Recognition".

With `vocabulary` the memory already is the logits of a recognizer of your own (an encoder that yields (B, V, 1, S), and
the bridge mean_height), whatever the order of its classes:

    CLOVA:         { use = "per_position", vocabulary = "0123...", first = 2, end = 1 }
    ViTSTR:        the same, and skip = 1, for its first frame says [GO]
    PARSeq:        { use = "per_position", vocabulary = "0123...", first = 1, end = 0 }
    docTR:         { use = "per_position", vocabulary = "0123..." }
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Decoder, Hypotheses, Labels, LabelSpec, SequenceSpec, hookimpl


@final
class PerPosition(Decoder):
    """p(text) is the product of its characters' probabilities, each at its own frame, and of the end's behind them."""

    name = "per_position"

    class Config(ComponentConfig):
        """Options of `per_position`."""

        vocabulary: str | None = None
        """Characters of a recognizer whose logits the memory is, in the order of its classes. Probabilities are over
        all D classes of it; characters that no label may hold are never read. Left out: layers of the decoder's own
        score the charset and the end."""

        hidden_dim: int = Field(default=256, ge=0)
        """Width of the hidden layer before the decoder's own scores; 0 for none, as in ViTSTR, whose frames come from
        such layers. Without effect where vocabulary is given."""

        first: int = Field(default=0, ge=0)
        """Class of the first character of `vocabulary`; without effect where that is left out."""

        end: int | None = Field(default=None, ge=0)
        """Class of the end of a text; the one behind the last character if left out. Without effect where vocabulary
        is left out."""

        skip: int = Field(default=0, ge=0)
        """Frames before that of the first character."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.skip, self.max_length = config.skip, labels.max_length
        charset = labels.charset.characters
        self.head: nn.Module = nn.Identity()
        classes = list(range(len(charset)))
        self.end = len(charset)
        if config.vocabulary is None:
            hidden = [nn.Linear(memory.dim, config.hidden_dim), nn.GELU()] if config.hidden_dim else []
            self.head = nn.Sequential(*hidden, nn.Linear(config.hidden_dim or memory.dim, len(charset) + 1))
        else:
            # The plan also builds what `infeasible` refuses, so a character that is missing must not raise here.
            classes = [config.first + config.vocabulary.find(character) for character in charset]
            self.end = _end(config, config.vocabulary)
        self.classes: Tensor
        self.register_buffer("classes", torch.tensor(classes), persistent=False)  # of each character of the charset

    @classmethod
    def infeasible(cls, config: Config, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        """Refuse too few frames, and a foreign order of classes that cannot be, or that lacks a character."""
        needed = config.skip + labels.max_length + 1
        if memory.length < needed:
            return (
                f"per_position needs T >= {needed} (the longest label, its end and {config.skip} skipped), this memory "
                f"has T = {memory.length}; use an earlier encoder stage, keep_width or a wider image"
            )
        vocabulary = config.vocabulary
        if vocabulary is None:
            return None
        if twice := sorted({character for character in vocabulary if vocabulary.count(character) > 1}):
            return f"per_position: vocabulary holds {', '.join(map(repr, twice))} more than once; list each class once"
        end, behind = _end(config, vocabulary), config.first + len(vocabulary)
        if config.first <= end < behind:
            return (
                f"per_position: class {end} cannot be both the end and {vocabulary[end - config.first]!r}; the "
                f"characters are classes {config.first} to {behind - 1}, set first and end as the recognizer has them"
            )
        if missing := "".join(sorted(set(labels.charset.characters) - set(vocabulary))):
            return (
                f"per_position: the recognizer's vocabulary lacks {missing!r} of the labels; take another recognizer, "
                f"or map these characters with labels.normalize"
            )
        if memory.dim < (needed := max(behind, end + 1)):
            return (
                f"per_position: vocabulary, first and end take {needed} classes, this memory has D = {memory.dim}; "
                f"give it the logits themselves, by mean_height without projection and LSTM"
            )
        return None

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,), the end of the text included."""
        characters, end = self._log_probs(memory)
        ids, inside = labels.ids[:, : labels.longest], labels.mask()[:, : labels.longest]  # (B, L)
        scores = characters[:, : labels.longest].gather(2, ids[:, :, None]).squeeze(2)
        return -(torch.where(inside, scores, 0.0).sum(dim=1) + end.gather(1, labels.lengths[:, None]).squeeze(1))

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Return the most probable of all texts, whatever the beam.

        The best text of each length takes the best character at each of its positions, so that one sum over the
        positions scores them all. Reading until the end first is the most probable class can miss the best.
        """
        characters, end = self._log_probs(memory)
        best, ids = characters[:, :-1].max(dim=2)  # (B, L), L = max_length
        before_end = torch.cat([torch.zeros_like(end[:, :1]), best.cumsum(dim=1)], dim=1)  # (B, L + 1)
        log_prob, lengths = (before_end + end).max(dim=1)
        inside = torch.arange(self.max_length, device=memory.device) < lengths[:, None]
        return Hypotheses(torch.where(inside, ids, 0), lengths, log_prob)

    def _log_probs(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of each character of the charset, (B, S, N), and of the end, (B, S); S = max_length + 1."""
        logits: Tensor = self.head(memory[:, self.skip : self.skip + self.max_length + 1])
        log_probs = logits.float().log_softmax(dim=2)  # (B, S, V)
        return log_probs.index_select(2, self.classes), log_probs[:, :, self.end]


def _end(config: PerPosition.Config, vocabulary: str) -> int:
    return config.first + len(vocabulary) if config.end is None else config.end


@hookimpl
def register_decoders() -> list[type[PerPosition]]:
    """Offer the decoder of this file."""
    return [PerPosition]
