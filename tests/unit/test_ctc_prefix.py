"""CTC prefix scores against sums over all paths, and the nll of complete texts."""

import itertools
import math
from itertools import groupby

import pytest
import torch
from torch import Tensor

from decoderbench.labels import Charset, Labels
from decoderbench.model.autoregressive import select_rows
from decoderbench.model.ctc_prefix import CTCPrefixScorer

CHARACTERS = 2
FRAMES = 5
PREFIXES = [ids for length in range(4) for ids in itertools.product(range(CHARACTERS), repeat=length)]


def draw(images: int = 2, frames: int = FRAMES) -> Tensor:
    torch.manual_seed(0)
    return (2 * torch.randn(images, frames, CHARACTERS + 1)).log_softmax(dim=-1)


def sums_over_paths(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Return the probability of each text of one image: paths are merged, then blanks removed."""
    texts: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        text = tuple(label - 1 for label, _ in groupby(path) if label)
        of_path = sum(float(log_probs[frame, label]) for frame, label in enumerate(path))
        texts[text] = texts.get(text, 0.0) + math.exp(of_path)
    return texts


def scores_after(scorer: CTCPrefixScorer, prefix: tuple[int, ...], beam_size: int = 1) -> Tensor:
    state = scorer.initial_state(beam_size)
    for token in prefix:
        state = scorer.advance(state, torch.full((len(state[0]),), token))
    return scorer.scores(state)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_scores_are_the_sums_over_all_paths(prefix: tuple[int, ...]) -> None:
    log_probs = draw()
    scores = scores_after(CTCPrefixScorer(log_probs), prefix)
    for image in range(len(log_probs)):
        texts = sums_over_paths(log_probs[image])
        for token in range(CHARACTERS):
            grown = (*prefix, token)
            expected = sum(value for text, value in texts.items() if text[: len(grown)] == grown)
            assert math.exp(scores[image, token]) == pytest.approx(expected, rel=1e-5)
        assert math.exp(scores[image, CHARACTERS]) == pytest.approx(texts.get(prefix, 0.0), rel=1e-5)


def test_score_of_end_is_minus_the_nll_of_ctc() -> None:
    log_probs, texts = draw(3, 40), ["abbab", "", "aaaa"]
    labels = Labels.from_texts(texts, Charset("ab"))
    nll = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), labels.ids + 1, [40] * 3, labels.host_lengths, reduction="none"
    )
    for row, text in enumerate(texts):
        scores = scores_after(CTCPrefixScorer(log_probs[row : row + 1]), tuple(Charset("ab").encode(text)))
        torch.testing.assert_close(scores[0, -1], -nll[row])


def test_text_that_needs_more_frames_is_impossible() -> None:
    scores = scores_after(CTCPrefixScorer(draw(1, 3)), (0, 0))  # a, blank, a
    assert scores.isfinite().tolist() == [[False, False, True]]
    assert scores_after(CTCPrefixScorer(draw(1, 3)), (0, 0, 1)).tolist() == [[-math.inf] * 3]


def test_scores_are_right_for_a_thousand_sure_frames() -> None:
    """The mass of a prefix that a thousand frames contradict is exp(-10,000), which only logarithms can hold."""
    log_probs = torch.full((1, 1000, 3), -10.0)
    log_probs[:, :, 0] = math.log1p(-2 * math.exp(-10))
    log_probs[0, 500] = torch.tensor([-20.0, -1e-9, -20.0])
    scorer = CTCPrefixScorer(log_probs)
    read = scores_after(scorer, (0,))
    labels = Labels.from_texts(["a"], Charset("ab"))
    expected = -torch.nn.functional.ctc_loss(
        log_probs.double().transpose(0, 1), labels.ids + 1, [1000], labels.host_lengths, reduction="none"
    )
    torch.testing.assert_close(read[0, 2], expected[0].float())
    assert scores_after(scorer, (1,) * 5).isfinite().all()


def test_class_of_probability_zero_is_never_preferred() -> None:
    log_probs = draw(1)
    log_probs[:, :, 2] = -math.inf
    scores = scores_after(CTCPrefixScorer(log_probs.log_softmax(dim=-1)), (0,))
    assert not scores.isnan().any()
    assert scores[0, 1] < -500


def test_beams_of_an_image_follow_their_own_prefixes() -> None:
    scorer, alone = CTCPrefixScorer(draw()), CTCPrefixScorer(draw())
    state = scorer.advance(scorer.initial_state(2), torch.tensor([0, 1, 1, 0]))
    state = select_rows(state, torch.tensor([1, 0, 3, 3]))  # beams change places within their image
    state = scorer.advance(state, torch.tensor([1, 1, 0, 1]))
    followed = [(1, 1), (0, 1), (0, 0), (0, 1)]
    expected = [scores_after(alone, prefix)[row // 2] for row, prefix in enumerate(followed)]
    torch.testing.assert_close(scorer.scores(state), torch.stack(expected))
