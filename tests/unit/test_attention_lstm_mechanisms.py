"""The mechanisms of attention against naive references that loop over frames, and the losses on their weights."""

from itertools import pairwise, product
from math import erf, exp, prod, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench import Charset, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM
from decoderbench_plugins.decoders.attention_lstm.coverage import CoverageAttention, coverage_penalty
from decoderbench_plugins.decoders.attention_lstm.gmm import GMMAttention, inverse_softplus
from decoderbench_plugins.decoders.attention_lstm.guided import guided_penalty
from decoderbench_plugins.decoders.attention_lstm.location import LocationAttention, kernel_for
from decoderbench_plugins.decoders.attention_lstm.mechanism import Attention
from decoderbench_plugins.decoders.attention_lstm.monotonic import MonotonicAttention

DIM, HIDDEN, STEPS = 4, 5, 3
CHARSET = Charset("ab")


def weights_of(attention: Attention, memory: Memory, hidden: Tensor) -> Tensor:
    """Return the weights (B, S, T) of steps with hidden states (B, S, N)."""
    fixed, before = attention.prepare(memory.frames, memory)
    weights = []
    for step in hidden.unbind(dim=1):
        step_weights, before = attention(step, memory, fixed, before)
        weights.append(step_weights)
    return torch.stack(weights, dim=1)


def draw(length: int, batch: int = 2, steps: int = STEPS) -> tuple[Memory, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = 3 * torch.randn(batch, length, DIM, generator=generator)
    return Memory.of(frames), torch.randn(batch, steps, HIDDEN, generator=generator)


def content(attention: Attention, frame: Tensor, hidden: Tensor) -> Tensor:
    """Return what is inside tanh, (N,), for a frame and a hidden state."""
    key, query = attention.get_submodule("key"), attention.get_submodule("query")
    return key(frame) + query(hidden)


@pytest.mark.parametrize("kernel", [1, 5])
def test_location_reads_previous_and_cumulative_weights_around_each_frame(kernel: int) -> None:
    torch.manual_seed(0)
    attention = LocationAttention(DIM, HIDDEN, bias_of="key", kernel=kernel)
    memory, hidden = draw(length=6)
    weights = weights_of(attention, memory, hidden)
    filters, reach = attention.filters.weight, kernel // 2  # (32, 2, kernel)
    for row in range(2):
        channels = [[0.0] * 6, [0.0] * 6]
        for step in range(STEPS):
            energies = []
            for frame in range(6):
                features = torch.zeros(32)
                for channel, offset in product(range(2), range(-reach, reach + 1)):
                    if 0 <= frame + offset < 6:
                        features += filters[:, channel, offset + reach] * channels[channel][frame + offset]
                inside = content(attention, memory.frames[row, frame], hidden[row, step])
                inside = inside + attention.location.weight @ features
                energies.append(attention.score.weight[0] @ inside.tanh())
            expected = torch.stack(energies).softmax(dim=0)
            torch.testing.assert_close(weights[row, step], expected)
            channels = [expected.tolist(), (torch.tensor(channels[1]) + expected).tolist()]


@pytest.mark.parametrize(("frames_per_character", "kernel"), [(1.0, 5), (1.2, 7), (2.4, 11), (3.3, 15), (6.4, 27)])
def test_kernel_is_odd_and_sees_two_characters_to_either_side(frames_per_character: float, kernel: int) -> None:
    assert kernel_for(frames_per_character) == kernel
    assert kernel >= 4 * frames_per_character + 1 > kernel - 2


def test_coverage_reads_sum_of_weights_before() -> None:
    torch.manual_seed(0)
    attention = CoverageAttention(DIM, HIDDEN, bias_of="key")
    memory, hidden = draw(length=6)
    weights = weights_of(attention, memory, hidden)
    for row in range(2):
        covered = torch.zeros(6)
        for step in range(STEPS):
            energies = [
                attention.score.weight[0]
                @ (content(attention, frame, hidden[row, step]) + attention.coverage.weight[:, 0] * amount).tanh()
                for frame, amount in zip(memory.frames[row], covered, strict=True)
            ]
            expected = torch.stack(energies).softmax(dim=0)
            torch.testing.assert_close(weights[row, step], expected)
            covered = covered + expected


def phi(value: float) -> float:
    return (1 + erf(value / sqrt(2))) / 2


def test_gmm_weights_are_masses_between_the_edges_of_frames() -> None:
    torch.manual_seed(0)
    attention = GMMAttention(HIDDEN, components=2, frames_per_step=1.5)
    memory, hidden = draw(length=6)
    weights = weights_of(attention, memory, 3 * hidden)
    for row in range(2):
        means = [-0.75, -0.75]
        for step in range(STEPS):
            raw = attention.mixture(torch.tanh(attention.hidden(3 * hidden[row, step])))
            share, steps, widths = raw[:2].softmax(0).tolist(), F.softplus(raw[2:4]).tolist(), F.softplus(raw[4:])
            means = [mean + forward for mean, forward in zip(means, steps, strict=True)]
            for frame in range(6):
                edges = [-1e9 if frame == 0 else frame, 1e9 if frame == 5 else frame + 1]
                left, right = (
                    sum(
                        part * phi((edge - mean) / (width + 0.05))
                        for part, mean, width in zip(share, means, widths.tolist(), strict=True)
                    )
                    for edge in edges
                )
                assert weights[row, step, frame].item() == pytest.approx(right - left, abs=1e-5)


def test_gmm_means_move_right_by_frames_per_step_at_first() -> None:
    attention = GMMAttention(HIDDEN, components=3, frames_per_step=2.4)
    memory, hidden = draw(length=20, steps=5)
    fixed, (means,) = attention.prepare(memory.frames, memory)
    with torch.no_grad():
        attention.mixture.weight.zero_()
    path = [means]
    for step in hidden.unbind(dim=1):
        _, (means,) = attention(step, memory, fixed, (means,))
        path.append(means)
    for number, of_step in enumerate(path):
        torch.testing.assert_close(of_step, torch.full((2, 3), (number - 0.5) * 2.4))
    middle = weights_of(attention, memory, hidden)[0] @ torch.arange(0.5, 20)
    torch.testing.assert_close(middle[1:], torch.tensor([3.6, 6.0, 8.4, 10.8]), atol=0.05, rtol=0)


def test_gmm_means_never_move_left() -> None:
    torch.manual_seed(0)
    attention = GMMAttention(HIDDEN, components=3, frames_per_step=1.0)
    memory, hidden = draw(length=6, steps=8)
    fixed, (means,) = attention.prepare(memory.frames, memory)
    path = [means]
    for step in (30 * hidden).unbind(dim=1):
        _, (means,) = attention(step, memory, fixed, (means,))
        path.append(means)
    assert all((after >= before).all() for before, after in pairwise(path))


@pytest.mark.parametrize("value", [0.01, 1.0, 2.4, 50.0])
def test_inverse_softplus_is_undone_by_softplus(value: float) -> None:
    assert F.softplus(torch.tensor(inverse_softplus(value), dtype=torch.float64)).item() == pytest.approx(value)


def stop_probabilities(attention: MonotonicAttention, frames: Tensor, hidden: Tensor) -> list[list[float]]:
    """Return the probability of each step (S, N) to stop at each frame (T, D), 1 at the last frame."""
    direction = attention.gain * attention.score.weight[0] / attention.score.weight.norm()
    rows = []
    for step in hidden:
        energies = [direction @ content(attention, frame, step).tanh() + attention.offset for frame in frames]
        rows.append([*torch.stack(energies).sigmoid().tolist()[:-1], 1.0])
    return rows


def build_monotonic(**options: object) -> MonotonicAttention:
    torch.manual_seed(0)
    attention = MonotonicAttention(
        DIM,
        HIDDEN,
        bias_of="key",
        **{"frames_per_step": 1.5, "hard": False, **options},  # type: ignore[arg-type]
    )
    with torch.no_grad():
        attention.gain.fill_(3.0)
    return attention.eval()


def test_monotonic_weights_are_the_expectation_over_all_alignments() -> None:
    length = 4
    attention = build_monotonic()
    memory, hidden = draw(length)
    weights = weights_of(attention, memory, hidden)
    for row in range(2):
        stop = stop_probabilities(attention, memory.frames[row], hidden[row])
        expected, total = torch.zeros(STEPS, length), 0.0
        for path in product(range(length), repeat=STEPS):
            begins = (0, *path)
            if any(after < before for before, after in pairwise(begins)):
                continue
            probability = prod(
                stop[step][after] * prod(1 - stop[step][frame] for frame in range(before, after))
                for step, (before, after) in enumerate(pairwise(begins))
            )
            total += probability
            for step, frame in enumerate(path):
                expected[step, frame] += probability
        assert total == pytest.approx(1)
        torch.testing.assert_close(weights[row], expected)


def test_monotonic_step_moves_frames_per_step_on_average_where_energies_are_equal() -> None:
    attention = build_monotonic(frames_per_step=3.0)
    with torch.no_grad():
        attention.gain.zero_()
    memory, hidden = draw(length=300, steps=4)
    middle = weights_of(attention, memory, hidden)[0] @ torch.arange(300.0)
    torch.testing.assert_close(middle, torch.tensor([3.0, 6.0, 9.0, 12.0]), atol=1e-3, rtol=0)


def test_monotonic_weights_do_not_vanish_on_a_line_where_the_product_of_the_rest_underflows() -> None:
    """40 sharp stops: the cumulative product of 1 - p is below 1e-38 long before the end."""
    attention = build_monotonic(frames_per_step=1e-4)
    with torch.no_grad():
        attention.gain.zero_()
    attention.offset.data.fill_(-2.0)
    memory, hidden = draw(length=600, steps=60)
    weights = weights_of(attention, memory, hidden)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 60))
    assert (weights[0, -1] @ torch.arange(600.0)).item() == pytest.approx(60 * exp(2.0), rel=0.01)


def test_hard_monotonic_attention_reads_the_first_frame_above_a_half_from_the_last_one() -> None:
    attention, soft = build_monotonic(hard=True), build_monotonic()
    memory, hidden = draw(length=8, batch=3, steps=5)
    weights = weights_of(attention, memory, hidden)
    for row in range(3):
        stop, frame = stop_probabilities(soft, memory.frames[row], hidden[row]), 0
        for step in range(5):
            frame = next(at for at in range(frame, 8) if stop[step][at] > 0.5)
            assert weights[row, step].tolist() == F.one_hot(torch.tensor(frame), 8).tolist()
    assert (weights.argmax(dim=2)[:, -1] > 0).any()


def test_monotonic_attention_has_noise_in_training_only() -> None:
    attention = build_monotonic(hard=True)
    memory, hidden = draw(length=8)
    assert torch.equal(weights_of(attention, memory, hidden), weights_of(attention, memory, hidden))
    one, other = (weights_of(attention.train(), memory, hidden) for _ in range(2))
    assert not torch.allclose(one, other)
    assert ((one > 1e-6).sum(dim=2) > 1).any()  # the expectation, not one frame
    torch.testing.assert_close(one.sum(dim=2), torch.ones(2, STEPS))


def test_guided_penalty_is_zero_on_the_diagonal_and_ignores_padding_and_the_end() -> None:
    labels = Labels.from_texts(["abab", "ab", ""], CHARSET)
    valid = torch.tensor([[True] * 4 + [False] * 2, [True, True] + [False] * 4, [True] * 6])
    memory = Memory(torch.zeros(3, 6, DIM), valid)
    weights = torch.eye(6)[None, :5].repeat(3, 1, 1)
    weights[:, 4] = torch.tensor([1.0, 0, 0, 0, 0, 0])  # the end reads the first frame
    assert guided_penalty(weights, memory, labels, 0.1).tolist() == [0.0, 0.0, 0.0]
    weights[0, 1] = torch.tensor([0.0, 0, 0.5, 0.5, 0, 0])
    expected = 0.5 * (1 - exp(-(0.25**2) / (2 * 0.3**2))) + 0.5 * (1 - exp(-(0.5**2) / (2 * 0.3**2)))
    assert guided_penalty(weights, memory, labels, 0.3).tolist() == pytest.approx([expected, 0.0, 0.0])


def test_coverage_penalty_is_what_is_read_again() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.2, 0.0, 0.8]]]).repeat(2, 1, 1)
    counted = torch.tensor([[True, True, True], [True, True, False]])
    assert coverage_penalty(weights, counted).tolist() == pytest.approx([0.5 + 0.2 + 0.5, 0.5])


def test_loss_adds_smoothing_and_penalties_and_nll_does_not() -> None:
    memory, labels = torch.randn(3, 7, DIM), Labels.from_texts(["abba", "", "b"], CHARSET)
    spec, label_spec = SequenceSpec(length=7, dim=DIM, left_to_right=True), LabelSpec(charset=CHARSET, max_length=5)

    def build(**options: object) -> AttentionLSTM:
        torch.manual_seed(0)
        return AttentionLSTM(AttentionLSTM.Config.model_validate({"hidden_dim": HIDDEN, **options}), spec, label_spec)

    plain = build()
    nll = plain.nll(memory, labels)
    torch.testing.assert_close(plain.loss(memory, labels), nll)
    given = plain.token_targets(labels)
    logits = plain.teacher_forced_logits(Memory.of(memory), given.tokens)
    smoothed = [
        F.cross_entropy(
            logits[row, : length + 1], given.targets[row, : length + 1], label_smoothing=0.2, reduction="sum"
        )
        for row, length in enumerate(labels.host_lengths)
    ]
    weights = F.pad(plain.alignment(memory, labels), (0, 0, 0, 1))
    guided = guided_penalty(weights, Memory.of(memory), labels, 0.1)
    for options, expected in (
        ({"label_smoothing": 0.2}, torch.stack(smoothed)),
        ({"guided_loss": 0.7}, nll + 0.7 * guided),
        ({"guided_loss": 0.7, "label_smoothing": 0.2}, torch.stack(smoothed) + 0.7 * guided),
    ):
        decoder = build(**options)
        torch.testing.assert_close(decoder.loss(memory, labels), expected)
        torch.testing.assert_close(decoder.nll(memory, labels), nll)
    covered = build(coverage_loss=0.5).loss(memory, labels) - nll
    assert (covered[[0, 2]] > 0).all()
    assert covered[1].abs() < 1e-6  # one step, the end, reads nothing again
