"""The decoder families against brute force: all CTC paths, all texts of a table of conditional probabilities."""

import math
from collections import defaultdict
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    Charset,
    CTCDecoder,
    Hypotheses,
    InfeasibleError,
    Labels,
    LabelSpec,
    SequenceSpec,
)
from decoderbench.model.ctc import best_path, prefix_beam_search

CHARSET = Charset("ab")
NEVER = float("-inf")
no_deadline = settings(deadline=None, max_examples=60)


def texts_of(hypotheses: Hypotheses) -> list[str]:
    rows = zip(hypotheses.ids.tolist(), hypotheses.lengths.tolist(), strict=True)
    return [CHARSET.decode(ids[:length]) for ids, length in rows]


def texts_up_to(longest: int) -> list[str]:
    return ["".join(text) for length in range(longest + 1) for text in product("ab", repeat=length)]


# CTC: class 0 is the blank, class 1 "a", class 2 "b".


class MemoryIsLogits(CTCDecoder):
    def __init__(self, frames: int, *, frames_needed: int = 1, left_to_right: bool = True) -> None:
        memory = SequenceSpec(length=frames, dim=3, left_to_right=left_to_right)
        super().__init__(None, memory, LabelSpec(charset=CHARSET, max_length=frames, frames_needed=frames_needed))

    def forward(self, memory: Tensor) -> Tensor:
        return memory


def collapse(path: tuple[int, ...]) -> str:
    kept = [symbol for place, symbol in enumerate(path) if symbol and (place == 0 or path[place - 1] != symbol)]
    return "".join("-ab"[symbol] for symbol in kept)


def sum_all_paths(log_probs: list[list[float]]) -> tuple[dict[str, float], tuple[str, float]]:
    """Return the probability of every text, and the text and log probability of the best path."""
    texts: defaultdict[str, float] = defaultdict(float)
    paths = {}
    for path in product(range(3), repeat=len(log_probs)):
        paths[path] = sum(frame[symbol] for frame, symbol in zip(log_probs, path, strict=True))
        texts[collapse(path)] += math.exp(paths[path])
    best = max(paths, key=paths.__getitem__)
    return texts, (collapse(best), paths[best])


logit = st.floats(-4, 4, width=32) | st.just(NEVER)
frame = st.tuples(logit, logit, logit).filter(lambda values: max(values) > NEVER)
logits = st.lists(frame, min_size=1, max_size=5)
batches = st.integers(1, 5).flatmap(
    lambda frames: st.lists(st.lists(frame, min_size=frames, max_size=frames), min_size=2, max_size=4)
)


def close(actual: float, expected: float) -> bool:
    return actual == pytest.approx(expected, rel=1e-4, abs=1e-4)


@no_deadline
@given(logits)
def test_ctc_nll_sums_all_paths(drawn: list[tuple[float, ...]]) -> None:
    memory = torch.tensor([drawn])
    expected, _ = sum_all_paths(memory.log_softmax(dim=-1)[0].tolist())
    for text in texts_up_to(len(drawn)):
        nll = MemoryIsLogits(len(drawn)).nll(memory, Labels.from_texts([text], CHARSET)).item()
        probability = expected.get(text, 0.0)
        assert math.exp(-nll) == pytest.approx(probability, rel=1e-4, abs=1e-6)
        assert (nll == math.inf) == (probability == 0)


@no_deadline
@given(logits)
def test_best_path_finds_most_probable_path(drawn: list[tuple[float, ...]]) -> None:
    log_probs = torch.tensor([drawn]).log_softmax(dim=-1)
    hypotheses = best_path(log_probs)
    _, (_, score) = sum_all_paths(log_probs[0].tolist())
    assert close(hypotheses.log_prob.item(), score)
    assert texts_of(hypotheses) == [collapse(tuple(log_probs[0].argmax(dim=-1).tolist()))]


@no_deadline
@given(logits)
def test_wide_prefix_beam_search_finds_best_text_with_its_whole_probability(drawn: list[tuple[float, ...]]) -> None:
    log_probs = torch.tensor([drawn]).log_softmax(dim=-1)
    expected, _ = sum_all_paths(log_probs[0].tolist())
    hypotheses = prefix_beam_search(log_probs, beam_size=2 ** (len(drawn) + 1))
    assert close(hypotheses.log_prob.item(), math.log(max(expected.values())))
    assert expected[texts_of(hypotheses)[0]] == pytest.approx(max(expected.values()), rel=1e-4)


def search_with_dictionary(log_probs: list[list[float]], beam_size: int) -> tuple[str, float]:
    """Prefix beam search as in the papers: prefix -> (probability of ending in blank, of ending in a symbol)."""
    beam = {"": (1.0, 0.0)}
    for scores in log_probs:
        blank, *symbols = (math.exp(score) for score in scores)
        grown: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (in_blank, in_symbol) in beam.items():
            grown[prefix][0] += (in_blank + in_symbol) * blank
            for character, probability in zip("ab", symbols, strict=True):
                if prefix.endswith(character):
                    grown[prefix][1] += in_symbol * probability
                    grown[prefix + character][1] += in_blank * probability
                else:
                    grown[prefix + character][1] += (in_blank + in_symbol) * probability
        best = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beam_size]
        beam = {prefix: (in_blank, in_symbol) for prefix, (in_blank, in_symbol) in best}
    text = max(beam, key=lambda prefix: sum(beam[prefix]))
    return text, math.log(sum(beam[text]))


@pytest.mark.parametrize("beam_size", [2, 3, 5, 20])
def test_prefix_beam_search_matches_search_with_dictionary(beam_size: int) -> None:
    torch.manual_seed(beam_size)
    log_probs = (2 * torch.randn(40, 7, 3)).log_softmax(dim=-1)
    hypotheses = prefix_beam_search(log_probs, beam_size)
    expected = [search_with_dictionary(image.tolist(), beam_size) for image in log_probs]
    assert texts_of(hypotheses) == [text for text, _ in expected]
    assert hypotheses.log_prob.tolist() == pytest.approx([score for _, score in expected], rel=1e-4)


@no_deadline
@given(batches, st.sampled_from([1, 2, 4]))
def test_ctc_transcribes_batch_like_single_images(drawn: list[list[tuple[float, ...]]], beam_size: int) -> None:
    memory = torch.tensor(drawn)
    decoder = MemoryIsLogits(memory.shape[1])
    together = decoder.transcribe(memory, beam_size=beam_size)
    singles = [decoder.transcribe(image[None], beam_size=beam_size) for image in memory]
    assert together.log_prob.tolist() == pytest.approx([single.log_prob.item() for single in singles], rel=1e-5)
    assert texts_of(together) == [texts_of(single)[0] for single in singles]


def certain_path(path: str) -> Tensor:
    """Return log probabilities (1, T, V) under which `path` has probability 1; a dash is the blank."""
    one_hot = torch.eye(3)[["-ab".index(symbol) for symbol in path]]
    return one_hot.log()[None]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("-", ""),
        ("a", "a"),
        ("aaaa", "a"),
        ("aa-a", "aa"),
        ("a-a-a", "aaa"),
        ("abab", "abab"),
        ("--ab--", "ab"),
        ("bb--bb", "bb"),
        ("ab-ba", "abba"),
    ],
)
@pytest.mark.parametrize("beam_size", [1, 2, 7])
def test_ctc_collapses_path(path: str, text: str, beam_size: int) -> None:
    hypotheses = MemoryIsLogits(len(path)).transcribe(certain_path(path), beam_size=beam_size)
    assert texts_of(hypotheses) == [text]
    assert hypotheses.log_prob.item() == 0
    assert not hypotheses.ids[0, len(text) :].any()


def test_prefix_beam_search_finds_better_text_than_best_path() -> None:
    """Hannun 2017, "Sequence Modeling with CTC": the best path is all blank, but all other paths spell "a"."""
    log_probs = torch.tensor([[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]]).log()
    assert texts_of(best_path(log_probs)) == [""]
    assert texts_of(prefix_beam_search(log_probs, 2)) == ["a"]
    assert prefix_beam_search(log_probs, 2).log_prob.exp().item() == pytest.approx(0.64)


def test_ctc_is_infeasible_with_too_few_frames() -> None:
    MemoryIsLogits(5, frames_needed=5)
    message = "needs T >= 6 for .*plus one blank between repeated characters.*, this memory has T = 5; use an earlier"
    with pytest.raises(InfeasibleError, match=message):
        MemoryIsLogits(5, frames_needed=6)


def test_ctc_is_infeasible_without_reading_order() -> None:
    with pytest.raises(InfeasibleError, match=r"CTC needs frames in reading order, .*; use a bridge with"):
        MemoryIsLogits(5, left_to_right=False)


@pytest.mark.parametrize(("text", "frames"), [("ab", 1), ("aa", 2), ("aab", 3)])
def test_ctc_nll_is_infinite_with_too_few_frames(text: str, frames: int) -> None:
    def nll(frames: int) -> float:
        return MemoryIsLogits(frames).nll(torch.zeros(1, frames, 3), Labels.from_texts([text], CHARSET)).item()

    assert nll(frames) == math.inf
    assert nll(frames + 1) < math.inf


def test_ctc_nll_and_its_gradient_equal_those_of_torch_bit_for_bit() -> None:
    texts, frames = ["", "a", "abab", "aab", "bbbb"], 5
    labels = Labels.from_texts(texts, CHARSET)
    memory = torch.randn(len(texts), frames, 3, requires_grad=True)
    nll = MemoryIsLogits(frames).nll(memory, labels)
    log_probs = memory.log_softmax(dim=-1).transpose(0, 1)
    lengths = torch.full((len(texts),), frames), labels.lengths
    expected = nn.functional.ctc_loss(log_probs, labels.ids + 1, *lengths, reduction="none")
    assert torch.equal(nll, expected)
    assert nll.isinf().tolist() == [False, False, False, False, True]
    gradients = [torch.autograd.grad(value[:4].sum(), memory)[0][:4] for value in (nll, expected)]
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_ctc_nll_of_different_lengths_in_one_batch() -> None:
    torch.manual_seed(0)
    texts = ["", "aab", "b", "ab"]
    memory, decoder = torch.randn(4, 6, 3), MemoryIsLogits(6)
    together = decoder.nll(memory, Labels.from_texts(texts, CHARSET, max_length=5))
    singles = [decoder.nll(memory[row, None], Labels.from_texts([text], CHARSET)) for row, text in enumerate(texts)]
    assert together.tolist() == pytest.approx([single.item() for single in singles], rel=1e-5)


# Autoregressive: token 0 is "a", 1 "b", 2 the end, 3 the start.


class Table(AutoregressiveDecoder):
    """Any conditional distribution: the memory (B, prefixes, V) holds the logits of all prefixes, breadth-first."""

    def __init__(self, max_length: int) -> None:
        self.prefixes = texts_up_to(max_length)
        memory = SequenceSpec(length=len(self.prefixes), dim=3, left_to_right=True)
        super().__init__(None, memory, LabelSpec(charset=CHARSET, max_length=max_length))

    def initial_state(self, memory: Tensor) -> Any:
        return torch.zeros(len(memory), dtype=torch.int64)

    def step(self, token: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        node = torch.where(token == self.start, 0, 2 * state + 1 + token).clamp(max=len(self.prefixes) - 1)
        return memory[torch.arange(len(memory)), node], node

    def log_prob(self, logits: Tensor, text: str) -> float:
        """Return log p(text), including the end, for the logits (prefixes, V) of one image."""
        log_probs = logits.double().log_softmax(dim=-1)
        chosen = [*CHARSET.encode(text), self.end]
        return sum(log_probs[self.prefixes.index(text[:at]), token].item() for at, token in enumerate(chosen))


def random_table(max_length: int, *, batch: int, seed: int = 0) -> tuple[Table, Tensor]:
    decoder = Table(max_length)
    return decoder, 2 * torch.randn(batch, len(decoder.prefixes), 3, generator=torch.Generator().manual_seed(seed))


@no_deadline
@given(max_length=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_nll_matches_table(max_length: int, seed: int) -> None:
    decoder, memory = random_table(max_length, batch=1, seed=seed)
    for text in decoder.prefixes:
        for width in (len(text), max_length):
            labels = Labels.from_texts([text], CHARSET, max_length=width)
            assert close(-decoder.nll(memory, labels).item(), decoder.log_prob(memory[0], text))


@no_deadline
@given(max_length=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_wide_beam_search_finds_best_text(max_length: int, seed: int) -> None:
    decoder, memory = random_table(max_length, batch=3, seed=seed)
    hypotheses = decoder.transcribe(memory, beam_size=len(decoder.prefixes) + 1)
    for row, logits in enumerate(memory):
        best = max(decoder.prefixes, key=lambda text: decoder.log_prob(logits, text))
        assert texts_of(hypotheses)[row] == best
        assert close(hypotheses.log_prob[row].item(), decoder.log_prob(logits, best))


def search_with_list(decoder: Table, logits: Tensor, beam_size: int) -> tuple[str, float]:
    """Beam search with a list of (text, ended, score); the score of a text of max_length includes its end."""
    log_probs = logits.double().log_softmax(dim=-1)
    beam = [("", False, 0.0)]
    for _ in range(decoder.max_length):
        grown = [item for item in beam if item[1]]
        for text, ended, score in beam:
            if not ended:
                row = log_probs[decoder.prefixes.index(text)].tolist()
                grown += [(text + character, False, score + row[i]) for i, character in enumerate("ab")]
                grown.append((text, True, score + row[decoder.end]))
        beam = sorted(grown, key=lambda item: -item[2])[:beam_size]
    closed = {
        text: score if ended else score + log_probs[decoder.prefixes.index(text), decoder.end].item()
        for text, ended, score in beam
    }
    best = max(closed, key=closed.__getitem__)
    return best, closed[best]


@pytest.mark.parametrize("beam_size", [1, 2, 3, 4])
def test_beam_search_matches_search_with_list(beam_size: int) -> None:
    decoder, memory = random_table(4, batch=40)
    hypotheses = decoder.transcribe(memory, beam_size=beam_size)
    expected = [search_with_list(decoder, logits, beam_size) for logits in memory]
    assert texts_of(hypotheses) == [text for text, _ in expected]
    assert hypotheses.log_prob.tolist() == pytest.approx([score for _, score in expected], rel=1e-4)


@pytest.mark.parametrize("max_length", [1, 2, 4])
def test_greedy_matches_beam_of_one(max_length: int) -> None:
    decoder, memory = random_table(max_length, batch=40)
    greedy, beam = decoder.transcribe(memory), decoder.beam_search(memory, 1)
    assert texts_of(greedy) == texts_of(beam)
    assert torch.allclose(greedy.log_prob, beam.log_prob, atol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("max_length", [1, 3])
def test_end_is_forced_at_max_length_and_scored(max_length: int, beam_size: int) -> None:
    decoder, memory = random_table(max_length, batch=1)
    memory[:] = torch.tensor([0.0, -9.0, NEVER])
    memory[:, -(2**max_length) :, decoder.end] = -9  # so only a text of max_length can end
    hypotheses = decoder.transcribe(memory, beam_size=beam_size)
    assert texts_of(hypotheses) == ["a" * max_length]
    assert close(hypotheses.log_prob.item(), decoder.log_prob(memory[0], "a" * max_length))
    assert hypotheses.log_prob.item() < -8


@pytest.mark.parametrize("beam_size", [1, 3])
def test_text_has_ended_if_its_end_was_chosen_or_is_most_probable_where_it_is_forced(beam_size: int) -> None:
    decoder, memory = random_table(2, batch=3)
    memory[:] = torch.tensor([0.0, NEVER, NEVER])  # "a" after "a", without end
    memory[0, -4:] = torch.tensor([0.0, NEVER, -9.0])  # the end is forced after two characters
    memory[1, -4:] = torch.tensor([0.0, NEVER, 9.0])  # the end is most probable there
    memory[2] = torch.tensor([0.0, NEVER, 9.0])  # the end at once
    hypotheses = decoder.transcribe(memory, beam_size=beam_size)
    assert texts_of(hypotheses) == ["aa", "aa", ""]
    assert hypotheses.ended is not None
    assert hypotheses.ended.tolist() == [False, True, True]


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_immediate_end_is_empty_text(beam_size: int) -> None:
    decoder, memory = random_table(2, batch=2)
    memory[:] = torch.tensor([NEVER, NEVER, 0.0])
    hypotheses = decoder.transcribe(memory, beam_size=beam_size)
    assert texts_of(hypotheses) == ["", ""]
    assert hypotheses.log_prob.tolist() == [0, 0]


@pytest.mark.parametrize("beam_size", [1, 2, 6])
def test_autoregressive_decoder_transcribes_batch_like_single_images(beam_size: int) -> None:
    decoder, memory = random_table(3, batch=20)
    together = decoder.transcribe(memory, beam_size=beam_size)
    singles = [decoder.transcribe(image[None], beam_size=beam_size) for image in memory]
    assert texts_of(together) == [texts_of(single)[0] for single in singles]
    assert torch.allclose(together.log_prob, torch.cat([single.log_prob for single in singles]), atol=1e-5)
    assert len(set(map(len, texts_of(together)))) > 1


def test_impossible_characters_are_never_transcribed_and_have_infinite_nll() -> None:
    decoder, memory = random_table(3, batch=10)
    memory[:, :, 0] = NEVER
    for beam_size in (1, 4):
        hypotheses = decoder.transcribe(memory, beam_size=beam_size)
        assert not any("a" in text for text in texts_of(hypotheses))
        assert hypotheses.log_prob.isfinite().all()
    assert decoder.nll(memory, Labels.from_texts(["ba"] * 10, CHARSET)).eq(math.inf).all()


def test_nll_of_different_lengths_ignores_padding() -> None:
    decoder, memory = random_table(3, batch=4)
    texts = ["", "bab", "a", "ba"]
    expected = [-decoder.log_prob(logits, text) for logits, text in zip(memory, texts, strict=True)]
    labels = Labels.from_texts(texts, CHARSET, max_length=3)
    other_padding = Labels(torch.where(labels.mask(), labels.ids, 1), labels.lengths, labels.host_lengths)
    for given_labels in (labels, other_padding):
        assert decoder.nll(memory, given_labels).tolist() == pytest.approx(expected, rel=1e-4)


def test_nll_of_empty_labels_is_that_of_their_end() -> None:
    decoder, memory = random_table(1, batch=2)
    nll = decoder.nll(memory, Labels.from_texts(["", ""], CHARSET, max_length=1))
    assert nll.tolist() == pytest.approx([-decoder.log_prob(logits, "") for logits in memory], rel=1e-4)


def test_no_gradient_flows_from_beyond_the_end() -> None:
    decoder, memory = random_table(2, batch=2)
    memory[:, 1:, :2] = NEVER  # only the end can follow a character
    memory.requires_grad_()
    torch.autograd.backward(decoder.nll(memory, Labels.from_texts(["", "a"], CHARSET, max_length=2)).sum())
    assert memory.grad is not None
    assert memory.grad.isfinite().all()
    assert memory.grad[0, 0].any()
    assert not memory.grad[0, 1:].any()
