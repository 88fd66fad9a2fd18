"""Alignments: that of CTC against all paths, the measures by hand, and the file."""

import math
from itertools import groupby, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import Charset, Labels
from decoderbench.alignments import MEASURES, Alignment, decode_alignments, encode_alignments
from decoderbench.model.ctc import BLANK, occupancy
from decoderbench.training.alignment_measures import measure_alignments

CHARSET = Charset("ab")


def occupancy_by_all_paths(log_probs: Tensor, text: str) -> Tensor:
    """Return p(frame t emits character s | text), (S, T), from every path of one image, log_probs (T, V)."""
    frames, classes = log_probs.shape
    ids = [index + 1 for index in CHARSET.encode(text)]
    weights, total = torch.zeros(len(ids), frames, dtype=torch.float64), 0.0
    for path in product(range(classes), repeat=frames):
        runs = [(symbol, len(list(run))) for symbol, run in groupby(path)]
        if [symbol for symbol, _ in runs if symbol != BLANK] != ids:
            continue
        probability = math.exp(sum(float(log_probs[frame, symbol]) for frame, symbol in enumerate(path)))
        total += probability
        character, frame = 0, 0
        for symbol, length in runs:
            if symbol != BLANK:
                weights[character, frame : frame + length] += probability
                character += 1
            frame += length
    return weights / total if total else weights


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 5),
    texts=st.lists(st.text("ab", max_size=3), min_size=1, max_size=3),
)
def test_occupancy_of_ctc_is_that_of_all_paths_that_spell_the_text(seed: int, frames: int, texts: list[str]) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(len(texts), frames, 3, generator=generator)).log_softmax(dim=2)
    found = occupancy(log_probs, Labels.from_texts(texts, CHARSET, max_length=4))
    assert found.shape == (len(texts), max(map(len, texts)), frames)
    for row, text in enumerate(texts):
        expected = occupancy_by_all_paths(log_probs[row], text)
        torch.testing.assert_close(found[row, : len(text)].double(), expected, atol=1e-5, rtol=1e-4)


def measure(weights: list[list[float]], *, length: int | None = None, left_to_right: bool = True) -> dict[str, float]:
    given = torch.tensor([weights], dtype=torch.float32)
    lengths = torch.tensor([len(weights) if length is None else length])
    found = measure_alignments(given, lengths, left_to_right=left_to_right)
    return dict(zip(MEASURES, found[0].tolist(), strict=True))


ONE_FRAME_EACH = [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
UNIFORM = [[0.2] * 5] * 3
MIRRORED = ONE_FRAME_EACH[::-1]
TWO_FRAMES_EACH = [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]
TWICE_THE_SAME = [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param(ONE_FRAME_EACH, (0, 1, 1, 1, 0.4), id="one frame each"),
        pytest.param(UNIFORM, (1, 0, 0, 5, 0.4), id="all frames alike"),
        pytest.param(MIRRORED, (0, 0, 1, 1, 0.4), id="from right to left"),
        pytest.param(TWO_FRAMES_EACH, (math.log(2) / math.log(5), 1, 0.75, 2, 0.2), id="two frames each"),
        pytest.param(TWICE_THE_SAME, (0, 0.5, 0.25, 1, 0.6), id="one frame twice"),
    ],
)
def test_measures_of_an_alignment_are_those_by_hand(weights: list[list[float]], expected: tuple[float, ...]) -> None:
    assert list(measure(weights).values()) == pytest.approx(expected, abs=1e-6)


def test_measures_read_nothing_past_the_end_of_a_text() -> None:
    assert measure([*ONE_FRAME_EACH, [math.nan] * 5], length=3) == measure(ONE_FRAME_EACH)


@pytest.mark.parametrize(
    ("weights", "length", "left_to_right", "undefined"),
    [
        pytest.param([[1.0, 0, 0]], 0, True, set(MEASURES) - {"unused_frames"}, id="empty text"),
        pytest.param([[1.0, 0, 0]], 1, True, {"alignment_monotonicity", "alignment_coverage"}, id="one character"),
        pytest.param(
            [[1.0], [1.0]],
            2,
            True,
            {"alignment_entropy", "alignment_monotonicity", "alignment_coverage"},
            id="one frame",
        ),
        pytest.param(
            ONE_FRAME_EACH, 3, False, {"alignment_monotonicity", "alignment_coverage"}, id="frames in no order"
        ),
    ],
)
def test_measures_without_a_meaning_are_not_a_number(
    weights: list[list[float]], length: int, left_to_right: bool, undefined: set[str]
) -> None:
    found = measure(weights, length=length, left_to_right=left_to_right)
    assert {name for name, value in found.items() if math.isnan(value)} == undefined


def test_all_frames_of_an_empty_text_are_unused() -> None:
    assert measure([[1.0, 0, 0]], length=0)["unused_frames"] == 1.0


def test_file_of_alignments_holds_each_in_its_own_size() -> None:
    given = [
        Alignment("a.png", "xy", np.array([[0.5, 0.5, 0], [0, 0, 1]], dtype=np.float32)),
        Alignment("é.png", "", np.zeros((0, 2), dtype=np.float32)),
        Alignment("c.png", "z", np.array([[0.25, 0.75]], dtype=np.float32)),
    ]
    found = decode_alignments(encode_alignments(given))
    assert [(one.sample, one.text, one.weights.tolist()) for one in found] == [
        (one.sample, one.text, one.weights.tolist()) for one in given
    ]
    assert [one.weights.shape for one in found] == [one.weights.shape for one in given]


def test_damaged_file_of_alignments_is_refused() -> None:
    content = encode_alignments([Alignment("a", "x", np.ones((1, 2), dtype=np.float32))])
    with pytest.raises(ValueError, match="no file of alignments"):
        decode_alignments(content[: len(content) // 2])
