"""Per position: equal to the product over frames for all texts, in foreign orders of classes too; what it refuses."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import Charset, Hypotheses, Labels, LabelSpec, SequenceSpec
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
    config = PerPosition.Config(**options)
    assert PerPosition.infeasible(config, spec, labels) is None
    return PerPosition(config, spec, labels).eval()


def refusal(length: int, dim: int, characters: str = "012", max_length: int = 3, **options: Any) -> str:
    labels = labels_of(characters, max_length)
    return str(PerPosition.infeasible(PerPosition.Config(**options), sequence(length, dim), labels))


def texts_of(read: Hypotheses, characters: str) -> list[str]:
    rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
    return [Charset(characters).decode(ids[:length]) for ids, length in rows]


def log_p(frames: list[list[float]], classes: list[int]) -> float:
    """Return log p of classes, one a frame, by the definition and in double precision."""
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
def test_it_is_the_product_over_frames_and_finds_the_best_of_all_texts(
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
        assert read.log_prob.item() == pytest.approx(max(expected.values()), abs=1e-4)
        assert read.log_prob.item() == pytest.approx(expected[text], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "before", "end", "behind"), [(CLOVA, 2, 1, 0), (PARSEQ, 1, 0, 0), (DOCTR, 0, 10, 1)]
)
def test_the_same_recognizer_in_three_orders_of_classes(
    options: dict[str, Any], before: int, end: int, behind: int
) -> None:
    """Two characters and the end, computed by hand: 0.5 * 0.25 * 0.8."""
    memory = torch.full((1, 4, before + 10 + behind), -30.0)
    for frame, (digit, p) in enumerate([(7, 0.5), (0, 0.25)]):
        memory[0, frame, before + digit] = math.log(p)
        memory[0, frame, before + 3] = math.log(1 - p)  # 3 is no character of these labels
    memory[0, 2, end], memory[0, 2, before + 3] = math.log(0.8), math.log(0.2)
    labels = labels_of("0127", 3)
    decoder = build(memory, labels, **options)
    assert list(decoder.parameters()) == []
    nll = decoder.nll(memory, Labels.from_texts(["70"], labels.charset))
    assert nll.exp().item() == pytest.approx(1 / (0.5 * 0.25 * 0.8), rel=1e-4)
    read = decoder.transcribe(memory)
    assert texts_of(read, "0127") == ["70"]
    assert read.log_prob.exp().item() == pytest.approx(0.1, rel=1e-4)


def test_the_first_frame_of_vitstr_says_go() -> None:
    memory = torch.full((1, 4, 12), -30.0)
    for frame, index in enumerate([0, 2 + 4, 2 + 2, 1]):  # [GO] 4 2 [s]
        memory[0, frame, index] = 0.0
    decoder = build(memory, labels_of(DIGITS, 2), **CLOVA, skip=1)
    assert texts_of(decoder.transcribe(memory), DIGITS) == ["42"]


def test_the_best_text_is_not_always_what_the_best_classes_spell() -> None:
    """Greedily "ab" with p = 0.5 * 0.4 * 0.9; the empty text has p = 0.45."""
    probabilities = [[0.5, 0.05, 0.45], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9]]
    memory = torch.tensor([probabilities]).log()
    decoder = build(memory, labels_of("ab", 2), vocabulary="ab")
    read = decoder.transcribe(memory)
    assert read.lengths.tolist() == [0]
    assert read.log_prob.exp().item() == pytest.approx(0.45)


def test_its_own_layers_are_the_same_for_each_position() -> None:
    memory, labels = torch.randn(2, 5, 8), labels_of("abc", 3)
    decoder = build(memory, labels, hidden_dim=0)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == (8 + 1) * (3 + 1)
    again = memory.clone()
    again[:, [0, 1]] = memory[:, [1, 0]]
    swapped = decoder.nll(again, Labels.from_texts(["ba", "cb"], labels.charset))
    torch.testing.assert_close(decoder.nll(memory, Labels.from_texts(["ab", "bc"], labels.charset)), swapped)


@pytest.mark.parametrize("options", [{"hidden_dim": 32}, {"skip": 1}], ids=str)
def test_it_conforms_with_other_options(options: dict[str, Any]) -> None:
    check_decoder(PerPosition, **options)


def test_it_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        decoder = PerPosition(PerPosition.Config(**CLOVA), sequence(9, 12), labels_of(DIGITS, 4))
        read = decoder.transcribe(torch.empty(3, 9, 12))
    assert read.ids.shape == (3, 4)
    assert read.ids.is_meta


def test_what_it_refuses() -> None:
    assert "needs T >= 4 (the longest label, its end and 0 skipped), this memory has T = 3" in refusal(3, 99)
    assert "needs T >= 6" in refusal(5, 99, skip=2)
    assert "vocabulary holds '1', '2' more than once" in refusal(4, 99, vocabulary="01212")
    assert "class 2 cannot be both the end and '1'; the characters are classes 1 to 3" in refusal(
        4, 99, vocabulary="012", first=1, end=2
    )
    assert "vocabulary lacks 'AB' of the labels" in refusal(4, 99, characters="B0A", vocabulary=DIGITS)
    assert "take 12 classes, this memory has D = 11" in refusal(4, 11, **CLOVA)
    assert "take 14 classes, this memory has D = 13" in refusal(4, 13, vocabulary="012", end=13)
    assert refusal(4, 12, **CLOVA) == refusal(4, 11, **PARSEQ) == refusal(4, 11, **DOCTR) == refusal(4, 1) == "None"


def test_what_it_refuses_can_still_be_built_on_meta_as_the_plan_does() -> None:
    with torch.device("meta"):
        PerPosition(PerPosition.Config(vocabulary="01"), sequence(1, 1), labels_of("abc", 4))
