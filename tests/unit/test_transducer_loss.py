"""The loss of a transducer: equal to a sum over all alignments, with the gradient of that sum, in little memory."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peak_memory import peak_mb
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from decoderbench import Charset, Labels, transducer_alignment, transducer_nll
from decoderbench.model import transducer

CHARSET = Charset("abc")
Inputs = tuple[Tensor, Tensor, Labels, Tensor, nn.Linear]


def draw(texts: list[str], length: int, joint: int = 5, dtype: torch.dtype = torch.float64) -> Inputs:
    """Draw what the loss reads, with all frames valid."""
    torch.manual_seed(0)
    labels = Labels.from_texts(texts, CHARSET)
    frames = torch.randn(len(texts), length, joint, dtype=dtype, requires_grad=True)
    text = torch.randn(len(texts), labels.longest + 1, joint, dtype=dtype, requires_grad=True)
    valid = torch.ones(len(texts), length, dtype=torch.bool)
    return frames, text, labels, valid, nn.Linear(joint, 1 + len(CHARSET), dtype=dtype)


def log_probs_of(frames: Tensor, text: Tensor, head: nn.Linear) -> Tensor:
    """Return all (B, T, U + 1, V) log probabilities at once."""
    log_probs: Tensor = head((frames[:, :, None] + text[:, None]).tanh()).log_softmax(dim=3)
    return log_probs


def paths_of(frames: int, characters: int) -> list[tuple[int, ...]]:
    """Return all alignments: the number of characters that are emitted in each frame, before its blank."""
    return [path for path in itertools.product(range(characters + 1), repeat=frames) if sum(path) == characters]


def sum_over_paths(log_probs: Tensor, ids: list[int], frames: list[int]) -> tuple[Tensor, Tensor]:
    """Return log p of a text and the share (U, T) of its probability that emits each character at each of `frames`."""
    scores, where = [], []
    for path in paths_of(len(frames), len(ids)):
        score, done = log_probs.new_zeros(()), 0
        emitted = torch.zeros(len(ids), log_probs.shape[0], dtype=log_probs.dtype)
        for frame, count in zip(frames, path, strict=True):
            for _ in range(count):
                score = score + log_probs[frame, done, 1 + ids[done]]
                emitted[done, frame] = 1.0
                done += 1
            score = score + log_probs[frame, done, 0]
        scores.append(score)
        where.append(emitted)
    total = torch.stack(scores).logsumexp(dim=0)
    shares = (torch.stack(scores) - total).exp()
    return total, torch.einsum("p,put->ut", shares, torch.stack(where))


def naive_nll(frames: Tensor, text: Tensor, labels: Labels, valid: Tensor, head: nn.Linear) -> Tensor:
    log_probs = log_probs_of(frames, text, head)
    rows = zip(log_probs, labels.ids.tolist(), labels.host_lengths, valid, strict=True)
    return -torch.stack(
        [sum_over_paths(row, ids[:count], seen.nonzero().flatten().tolist())[0] for row, ids, count, seen in rows]
    )


def test_paths_are_counted_as_lattice_has_them() -> None:
    assert len(paths_of(4, 3)) == 20  # of 3 characters and 4 blanks, of which the last comes last: 6 choose 3


@pytest.mark.parametrize("length", [1, 2, 4])
def test_nll_equals_sum_over_all_alignments(length: int) -> None:
    inputs = draw(["", "a", "cab", "bb"], length)
    torch.testing.assert_close(transducer_nll(*inputs), naive_nll(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seen", [[0, 1, 2], [0, 2, 3], [3]])
def test_frames_that_are_not_valid_are_skipped(seen: list[int]) -> None:
    frames, text, labels, valid, head = draw(["cab", "b"], 4)
    valid[0] = False
    valid[0, seen] = True
    nll = transducer_nll(frames, text, labels, valid, head)
    torch.testing.assert_close(nll, naive_nll(frames, text, labels, valid, head), rtol=1e-12, atol=1e-12)
    noisy = torch.where(valid[:, :, None], frames, torch.full_like(frames, 7.0))
    torch.testing.assert_close(transducer_nll(noisy, text, labels, valid, head), nll, rtol=0, atol=0)
    gradient = torch.autograd.grad(nll.sum(), frames)[0]
    assert not gradient[~valid].any()
    assert gradient[valid].all()


def test_gradient_equals_that_of_sum_over_all_alignments(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, text, labels, valid, head = draw(["ab", "", "ccc"], 3)
    valid[2, 1] = False
    monkeypatch.setattr(transducer, "VALUES_PER_BLOCK", 1)  # so each block is one frame
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    wanted = [frames, text, *head.parameters()]
    found, expected = (
        torch.autograd.grad((weights * loss(frames, text, labels, valid, head)).sum(), wanted)
        for loss in (transducer_nll, naive_nll)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradient_equals_finite_differences() -> None:
    frames, text, labels, valid, head = draw(["ab", "c"], 3, joint=2)
    assert torch.autograd.gradcheck(lambda one, other: transducer_nll(one, other, labels, valid, head), (frames, text))


@pytest.mark.parametrize("length", [2, 4])
def test_alignment_is_share_of_paths_that_emit_character_at_frame(length: int) -> None:
    frames, text, labels, valid, head = draw(["cab", "b"], length)
    valid[1, 0] = False
    weights = transducer_alignment(frames, text, labels, valid, head)
    log_probs = log_probs_of(frames, text, head)
    for row, (ids, count) in enumerate(zip(labels.ids.tolist(), labels.host_lengths, strict=True)):
        _, expected = sum_over_paths(log_probs[row], ids[:count], valid[row].nonzero().flatten().tolist())
        torch.testing.assert_close(weights[row, :count], expected, rtol=1e-10, atol=1e-12)
    assert not weights[1, 1:].any()


def test_alignment_of_empty_texts_is_empty() -> None:
    assert transducer_alignment(*draw(["", ""], 3)).shape == (2, 0, 3)


def test_padding_of_labels_is_not_read() -> None:
    frames, text, labels, valid, head = draw(["ab", "c"], 3)
    padded = Labels(torch.where(labels.mask(), labels.ids, 2), labels.lengths, labels.host_lengths)
    for measure in (transducer_nll, transducer_alignment):
        found, expected = (measure(frames, text, each, valid, head) for each in (padded, labels))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


class LargestTensor(TorchDispatchMode):
    """Notes how many values the largest tensor has that an operation returns."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.values = max(self.values, each.numel())
        return result


def step_of(batch: int, length: int, characters: int, classes: int, joint: int) -> Callable[[], None]:
    torch.manual_seed(0)
    ids = torch.randint(classes - 1, (batch, characters))
    labels = Labels(ids, torch.full((batch,), characters), (characters,) * batch)
    frames = torch.randn(batch, length, joint, requires_grad=True)
    text = torch.randn(batch, characters + 1, joint, requires_grad=True)
    valid, head = torch.ones(batch, length, dtype=torch.bool), nn.Linear(joint, classes)

    def step() -> None:
        torch.autograd.backward(transducer_nll(frames, text, labels, valid, head).sum())

    return step


@pytest.mark.parametrize(("values", "frames"), [(4 * 2 * 13 * (16 + 50), 4), (9 * 2 * 13 * (16 + 50) - 1, 8)])
def test_logits_exist_for_a_block_of_frames_at_a_time(
    values: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transducer, "VALUES_PER_BLOCK", values)
    with LargestTensor() as largest:
        step_of(2, 80, 12, 50, 16)()
    assert largest.values == 2 * frames * 13 * 50


@pytest.mark.slow
def test_step_on_long_lines_needs_less_than_600_mb() -> None:
    assert peak_mb(torch.device("cpu"), step_of(16, 250, 60, 108, 256)) < 600
