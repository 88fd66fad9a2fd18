"""Per position: the product over frames for all texts, any order of classes, and infeasible options."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import Charset, Hypotheses, InfeasibleError, Labels, LabelSpec, SequenceSpec, text_to_first_end
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.per_position import PerPosition

DIGITS = "0123456789"
CLOVA = {"vocabulary": DIGITS, "first": 2, "end": 1}  # [GO], [s], characters
PARSEQ = {"vocabulary": DIGITS, "first": 1, "end": 0}  # [E], characters; [B] and [P] are not scored
DOCTR = {"vocabulary": DIGITS}  # characters, end


def sequence(length: int, dim: int) -> SequenceSpec:
    return SequenceSpec(length=length, dim=dim, left_to_right=False)


def labels_of(characters: str, max_length: int) -> LabelSpec:
    return LabelSpec(charset=Charset(characters), max_length=max_length)


def build(memory: Tensor, labels: LabelSpec, **options: Any) -> PerPosition:
    spec = sequence(memory.shape[1], memory.shape[2])
    return PerPosition(PerPosition.Config(**options), spec, labels).eval()


def texts_of(read: Hypotheses, characters: str) -> list[str]:
    rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
    return [Charset(characters).decode(ids[:length]) for ids, length in rows]


def log_p(frames: list[list[float]], classes: list[int]) -> float:
    """Return log p of classes, one per frame, by definition and in double precision."""
    return sum(
        frame[index] - math.log(sum(math.exp(logit) for logit in frame))
        for frame, index in zip(frames, classes, strict=False)
    )


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.data(),
)
def test_nll_is_product_over_frames_and_a_beam_finds_best_text(
    max_length: int, first: int, skip: int, more: int, data: st.DataObject
) -> None:
    vocabulary, characters = "abc", data.draw(st.sampled_from(["a", "cb", "bac"]))
    end = data.draw(st.sampled_from([*range(first), first + 3]))
    dim = max(first + 3, end + 1) + more
    logit = st.floats(-6, 6, width=32)
    frames = [data.draw(st.lists(logit, min_size=dim, max_size=dim)) for _ in range(skip + max_length + 1 + more)]
    memory, labels = torch.tensor([frames]), labels_of(characters, max_length)
    decoder = build(memory, labels, vocabulary=vocabulary, first=first, end=end, skip=skip)

    texts = ["".join(text) for n in range(max_length + 1) for text in itertools.product(characters, repeat=n)]
    expected = {t: log_p(frames[skip:], [*(first + vocabulary.index(c) for c in t), end]) for t in texts}
    nll = decoder.nll(memory.expand(len(texts), -1, -1), Labels.from_texts(texts, labels.charset))
    torch.testing.assert_close(-nll, torch.tensor([expected[text] for text in texts]), atol=1e-4, rtol=1e-5)
    assert (-nll).exp().sum() <= 1 + 1e-5

    for beam_size in (1, 5):
        read = decoder.transcribe(memory, beam_size=beam_size)
        (text,) = texts_of(read, characters)
        assert read.log_prob.item() == pytest.approx(expected[text], abs=1e-4)
        if beam_size > 1:
            assert read.log_prob.item() == pytest.approx(max(expected.values()), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "before", "end", "behind"), [(CLOVA, 2, 1, 0), (PARSEQ, 1, 0, 0), (DOCTR, 0, 10, 1)]
)
def test_three_orders_of_classes_give_the_same_text(
    options: dict[str, Any], before: int, end: int, behind: int
) -> None:
    """Two characters and the end, computed by hand: 0.5 * 0.25 * 0.8."""
    memory = torch.full((1, 4, before + 10 + behind), -30.0)
    for frame, (digit, p) in enumerate([(7, 0.5), (0, 0.25)]):
        memory[0, frame, before + digit] = math.log(p)
        memory[0, frame, before + 3] = math.log(1 - p)  # 3 is outside the charset
    memory[0, 2, end], memory[0, 2, before + 3] = math.log(0.8), math.log(0.2)
    labels = labels_of("0127", 3)
    decoder = build(memory, labels, **options)
    assert list(decoder.parameters()) == []
    nll = decoder.nll(memory, Labels.from_texts(["70"], labels.charset))
    assert nll.exp().item() == pytest.approx(1 / (0.5 * 0.25 * 0.8), rel=1e-4)
    read = decoder.transcribe(memory)
    assert texts_of(read, "0127") == ["70"]
    assert read.log_prob.exp().item() == pytest.approx(0.1, rel=1e-4)


def test_skip_ignores_first_frame_of_vitstr() -> None:
    memory = torch.full((1, 4, 12), -30.0)
    for frame, index in enumerate([0, 2 + 4, 2 + 2, 1]):  # [GO] 4 2 [s]
        memory[0, frame, index] = 0.0
    decoder = build(memory, labels_of(DIGITS, 2), **CLOVA, skip=1)
    assert texts_of(decoder.transcribe(memory), DIGITS) == ["42"]


def test_a_beam_finds_a_text_that_reading_up_to_the_first_end_misses() -> None:
    """Up to the first end it is "ab" with p = 0.5 * 0.4 * 0.9; the empty text has p = 0.45."""
    probabilities = [[0.5, 0.05, 0.45], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9]]
    memory = torch.tensor([probabilities]).log()
    decoder = build(memory, labels_of("ab", 2), vocabulary="ab")
    greedy, best = decoder.transcribe(memory), decoder.transcribe(memory, beam_size=2)
    assert texts_of(greedy, "ab") + texts_of(best, "ab") == ["ab", ""]
    assert greedy.log_prob.exp().item() == pytest.approx(0.5 * 0.4 * 0.9)
    assert best.log_prob.exp().item() == pytest.approx(0.45)


def test_own_layers_are_shared_by_all_positions() -> None:
    memory, labels = torch.randn(2, 5, 8), labels_of("abc", 3)
    decoder = build(memory, labels, hidden_dim=0)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == (8 + 1) * (3 + 1)
    again = memory.clone()
    again[:, [0, 1]] = memory[:, [1, 0]]
    swapped = decoder.nll(again, Labels.from_texts(["ba", "cb"], labels.charset))
    torch.testing.assert_close(decoder.nll(memory, Labels.from_texts(["ab", "bc"], labels.charset)), swapped)


@pytest.mark.parametrize("options", [{"hidden_dim": 32}, {"skip": 1}], ids=str)
def test_conforms_with_other_options(options: dict[str, Any]) -> None:
    check_decoder(PerPosition, **options)


def test_transcribe_runs_on_meta_device() -> None:
    with torch.device("meta"):
        decoder = PerPosition(PerPosition.Config(**CLOVA), sequence(9, 12), labels_of(DIGITS, 4))
        read = decoder.transcribe(torch.empty(3, 9, 12))
    assert read.ids.shape == (3, 4)
    assert read.ids.is_meta


@pytest.mark.parametrize(
    ("length", "dim", "characters", "options", "message"),
    [
        (3, 99, "012", {}, r"needs T >= 4 \(the longest label, its end and 0 skipped\), this memory has T = 3"),
        (5, 99, "012", {"skip": 2}, "needs T >= 6"),
        (4, 99, "012", {"vocabulary": "01212"}, "vocabulary holds '1', '2' more than once"),
        (
            4,
            99,
            "012",
            {"vocabulary": "012", "first": 1, "end": 2},
            "class 2 cannot be both the end and '1'; the characters are classes 1 to 3",
        ),
        (4, 99, "B0A", {"vocabulary": DIGITS}, "vocabulary lacks 'AB' of the labels"),
        (4, 11, "012", CLOVA, "need 12 classes, this memory has D = 11"),
        (4, 13, "012", {"vocabulary": "012", "end": 13}, "need 14 classes, this memory has D = 13"),
    ],
)
def test_infeasible_options_raise(
    length: int, dim: int, characters: str, options: dict[str, Any], message: str
) -> None:
    config = PerPosition.Config.model_validate(options)
    with pytest.raises(InfeasibleError, match=message):
        PerPosition(config, sequence(length, dim), labels_of(characters, 3))


@pytest.mark.parametrize(("dim", "options"), [(12, CLOVA), (11, PARSEQ), (11, DOCTR), (1, {})])
def test_smallest_feasible_memory(dim: int, options: dict[str, Any]) -> None:
    PerPosition(PerPosition.Config.model_validate(options), sequence(4, dim), labels_of("012", 3))


def test_text_goes_up_to_the_first_end() -> None:
    probabilities = torch.tensor(
        [  # a, b, end; at most two characters
            [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]],
            [[0.2, 0.7, 0.1], [0.6, 0.1, 0.3], [0.1, 0.3, 0.6]],
            [[0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1]],
            [[0.1, 0.2, 0.7], [0.9, 0.0, 0.1], [0.1, 0.8, 0.1]],
        ]
    )
    read = text_to_first_end(probabilities.log())
    assert read.ids.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]
    assert read.lengths.tolist() == [1, 2, 2, 0]
    assert read.ended is not None
    assert read.ended.tolist() == [True, True, False, True]
    torch.testing.assert_close(read.log_prob.exp(), torch.tensor([0.5 * 0.7, 0.7 * 0.6 * 0.6, 0.7 * 0.6 * 0.1, 0.7]))
