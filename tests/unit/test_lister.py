"""LISTER: maps by definition, the published size and losses, and maps that do not depend on the length of a text."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.lister import Lister

CHARSET = Charset("abc")
DIM = 6


def build(max_length: int = 4, **options: Any) -> Lister:
    """Build a small decoder whose maps are not all alike."""
    torch.manual_seed(1)
    memory = SequenceSpec(length=5, dim=DIM, left_to_right=False)
    decoder = Lister(Lister.Config(**options), memory, LabelSpec(charset=CHARSET, max_length=max_length)).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if name.startswith("norm") else 1.5))
    return decoder


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def maps_of(decoder: Lister, frames: Tensor, steps: int, *, sharpen: bool) -> list[list[float]]:
    """Return the maps of one image (T, D) by definition, with plain loops over the places."""
    frames = decoder.norm(frames)
    places = [*frames.unbind(), decoder.end_place]
    keys = [decoder.key(place) for place in places]
    scale = math.sqrt(DIM)

    first = softmax([float(decoder.query(frames.mean(dim=0)) @ key) / scale for key in keys])
    neighbors = [
        softmax([float(decoder.neighbor(decoder.query(frame)[None], key[None])) / scale for key in keys])
        for frame in frames
    ]
    neighbors.append([0.0] * len(frames) + [1.0])
    maps = [first]
    for step in range(steps - 1):
        masses = maps[-1]
        if sharpen:
            grown = [math.exp(min(1 + 2 * step, 16) * mass) - 1 for mass in masses]
            masses = [mass / sum(grown) for mass in grown]
        maps.append(
            [sum(mass * row[to] for mass, row in zip(masses, neighbors, strict=True)) for to in range(len(keys))]
        )
    return maps


def log_probs_of(decoder: Lister, frames: Tensor, maps: list[list[float]]) -> Tensor:
    places = torch.cat([decoder.norm(frames), decoder.end_place[None]])
    log_probs: Tensor = decoder.head(torch.tensor(maps) @ places).log_softmax(dim=1)
    return log_probs


def test_parameters_are_published_for_95_characters_and_the_end() -> None:
    labels = LabelSpec(charset=Charset("".join(map(chr, range(32, 127)))), max_length=25)
    with torch.device("meta"):
        decoder = Lister(Lister.Config(), SequenceSpec(length=64, dim=384, left_to_right=False), labels)
    sizes = {name: parameter.numel() for name, parameter in decoder.named_parameters()}
    of_encoder = sizes.pop("norm.weight") + sizes.pop("norm.bias")  # in the authors' code its last layer
    assert (sum(sizes.values()), of_encoder) == (480_481, 2 * 384)


@torch.no_grad()
def test_nll_does_not_depend_on_the_scale_of_the_frames() -> None:
    decoder, frames = build(), torch.randn(2, 5, DIM)
    labels = Labels.from_texts(["cab", ""], CHARSET)
    torch.testing.assert_close(decoder.nll(30 * frames, labels), decoder.nll(frames, labels), rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("sharpen", [False, True])
def test_nll_is_that_of_maps_by_definition(sharpen: bool) -> None:
    decoder, frames, text = build(sharpen=sharpen), torch.randn(2, 5, DIM), "cab"
    labels = Labels.from_texts([text, ""], CHARSET)
    maps = maps_of(decoder, frames[0], 4, sharpen=sharpen)
    log_probs = log_probs_of(decoder, frames[0], maps)
    expected = -log_probs[range(4), [*CHARSET.encode(text), 3]].sum()
    torch.testing.assert_close(decoder.nll(frames, labels)[0], expected, rtol=1e-4, atol=1e-4)
    weights = torch.tensor(maps)[:3, :-1]
    expected = weights / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(decoder.alignment(frames, labels)[0], expected, rtol=1e-4, atol=1e-5)
    assert (weights.argmax(dim=1) != weights.argmax(dim=1)[0]).any()


@torch.no_grad()
def test_loss_is_that_of_maps_that_are_not_sharpened_and_two_more_losses() -> None:
    frames, texts = torch.randn(2, 5, DIM), ["cab", "b"]
    labels = Labels.from_texts(texts, CHARSET)
    found = build(end_weight=0.5, entropy_weight=0.25).loss(frames, labels)
    for text, image, loss in zip(texts, frames, found, strict=True):
        decoder, tokens = build(), len(text) + 1
        maps = maps_of(decoder, image, tokens, sharpen=False)
        log_probs = log_probs_of(decoder, image, maps)
        expected = -float(log_probs[range(tokens), [*CHARSET.encode(text), 3]].sum())
        expected -= 0.5 * tokens * math.log(maps[-1][-1])
        expected -= 0.25 * sum(mass * math.log(mass) for row in maps for mass in row) / math.log(5 + 2)
        assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_loss_without_further_losses_and_sharpening_is_nll() -> None:
    decoder, frames = build(sharpen=False, end_weight=0.0, entropy_weight=0.0), torch.randn(2, 5, DIM)
    labels = Labels.from_texts(["cab", "b"], CHARSET)
    torch.testing.assert_close(decoder.loss(frames, labels), decoder.nll(frames, labels))


def test_padding_is_no_place_and_counts_in_no_loss() -> None:
    decoder, frames, labels = build(), torch.randn(1, 5, DIM), Labels.from_texts(["cab"], CHARSET)
    padded = torch.cat([frames, torch.full((1, 3, DIM), 50.0)], dim=1)
    memory = Memory(padded, torch.arange(8)[None] < 5)
    for measure in (decoder.nll, decoder.loss):
        torch.testing.assert_close(measure(memory, labels), measure(frames, labels))
    assert not decoder.alignment(memory, labels)[:, :, 5:].any()


@pytest.mark.parametrize("max_length", [3, 30])
def test_nll_does_not_depend_on_the_longest_length(max_length: int) -> None:
    frames, labels = torch.randn(2, 5, DIM), Labels.from_texts(["cab", ""], CHARSET)
    torch.testing.assert_close(build(max_length).nll(frames, labels), build().nll(frames, labels))


def test_frames_may_stand_in_any_order() -> None:
    decoder, frames, order = build(), torch.randn(2, 5, DIM), [3, 0, 4, 1, 2]
    labels = Labels.from_texts(["cab", "b"], CHARSET)
    torch.testing.assert_close(decoder.nll(frames[:, order], labels), decoder.nll(frames, labels))


@pytest.mark.slow
def test_conforms_without_sharpening() -> None:
    check_decoder(Lister, sharpen=False, entropy_weight=0.0)


def test_frames_of_a_single_number_are_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="this memory has D = 1; use a wider"):
        Lister(
            Lister.Config(),
            SequenceSpec(length=5, dim=1, left_to_right=False),
            LabelSpec(charset=CHARSET, max_length=4),
        )
