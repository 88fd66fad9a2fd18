"""What is kept of the texts that a decoder returned: its own score of them, and where it read their characters."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decoderbench import Charset, ComponentConfig, Decoder, Hypotheses, Labels, LabelSpec, SequenceSpec
from decoderbench.alignments import MEASURES
from decoderbench.model.memory import Memory
from decoderbench.training.returned_texts import ReturnedTexts

CHARSET = Charset("ab")
READ = Hypotheses(torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 1]), torch.zeros(2), torch.tensor([True, False]))
MEMORY = torch.zeros(2, 3, 4)


class Scripted(Decoder):
    """Gives each text the nll 10 * length, and a prepared alignment."""

    name = "scripted"
    Config = ComponentConfig

    def __init__(self, weights: Tensor | None = None, nll: float = 10.0) -> None:
        spec = LabelSpec(charset=CHARSET, max_length=2)
        super().__init__(None, SequenceSpec(length=3, dim=4, left_to_right=True), spec)
        self.weights, self.per_character = weights, nll

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        assert labels.lengths.tolist() == list(labels.host_lengths)
        return self.per_character * labels.lengths.float()

    def transcribe(self, memory: Tensor, *, beam_size: int = 1) -> Hypotheses:
        return READ

    def alignment(self, memory: Tensor, labels: Labels) -> Tensor | None:
        return self.weights


def add(decoder: Decoder, read: Hypotheses = READ, drawn: tuple[int, ...] = ()) -> ReturnedTexts:
    memory = SimpleNamespace(left_to_right=True)
    recognizer: Any = SimpleNamespace(decoder=decoder, bridge=SimpleNamespace(memory=memory))
    texts = ReturnedTexts(recognizer, CHARSET, drawn)
    texts.add(np.array([7, 3]), Memory.of(MEMORY), read, read)
    return texts


def test_text_is_scored_by_the_decoders_own_nll() -> None:
    columns = add(Scripted()).columns()
    assert columns["text_log_prob"] == [-20.0, -10.0]
    assert (columns["ended"], columns["frames"]) == ([True, False], [3, 3])


@pytest.mark.parametrize("nll", [math.inf, math.nan])
def test_text_that_cannot_be_scored_has_no_score(nll: float) -> None:
    assert add(Scripted(nll=nll)).columns()["text_log_prob"] == [None, None]


def test_decoder_without_ends_and_alignment_leaves_these_columns_empty() -> None:
    texts = add(Scripted(), Hypotheses(READ.ids, READ.lengths, READ.log_prob))
    columns = texts.columns()
    assert columns["ended"] == [None, None]
    assert [columns[name] for name in MEASURES] == [[None, None]] * len(MEASURES)
    assert texts.alignments(["key"] * 8) == ()


WEIGHTS = torch.tensor([[[1.0, 0, 0], [0, 0, 1]], [[0, 0.5, 0.5], [math.nan] * 3]])


def test_alignments_of_drawn_rows_are_kept_without_what_lies_past_the_end() -> None:
    texts = add(Scripted(WEIGHTS), drawn=(3, 5, 7))
    columns = texts.columns()
    assert columns["frames_per_character"] == pytest.approx([1.0, 2.0])
    assert columns["alignment_monotonicity"] == [1.0, None]
    found = texts.alignments([f"{row}.png" for row in range(8)])
    assert [(one.sample, one.text) for one in found] == [("3.png", "b"), ("7.png", "ab")]
    assert [one.weights.tolist() for one in found] == [[[0, 0.5, 0.5]], [[1, 0, 0], [0, 0, 1]]]


def test_alignment_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(B, S, T\) = \(2, 2, 3\), it is \(2, 3, 2\); decoderbench check"):
        add(Scripted(WEIGHTS.transpose(1, 2)))


@pytest.mark.parametrize("wrong", [-0.5, math.nan])
def test_alignment_with_impossible_weights_is_refused(wrong: float) -> None:
    weights = WEIGHTS.clone()
    weights[0, 1, 0] = wrong
    with pytest.raises(ValueError, match="has weights below 0, or that are not a number"):
        add(Scripted(weights)).columns()
