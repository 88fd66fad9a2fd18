"""Focal, intermediate and self-conditioned CTC losses: formulas, what they leave alone, and what is refused."""

import pytest
import torch
from torch import Tensor

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, SequenceSpec
from decoderbench.model.ctc_losses import focal_loss
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.ctc import LinearCTC
from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

CHARSET = Charset("abc")
LABELS = Labels.from_texts(["ab", "", "ccab"], CHARSET)
SPEC = SequenceSpec(length=9, dim=5, left_to_right=True)


def build(**options: object) -> LSTMCTC:
    torch.manual_seed(0)
    config = LSTMCTC.Config.model_validate({"hidden_dim": 4, **options})
    return LSTMCTC(config, SPEC, LabelSpec(charset=CHARSET, max_length=4))


def ctc(logits: Tensor) -> Tensor:
    """Return the CTC loss of each text by torch's function."""
    log_probs = logits.log_softmax(dim=-1).transpose(0, 1)
    return torch.nn.functional.ctc_loss(
        log_probs, LABELS.ids + 1, [SPEC.length] * 3, LABELS.host_lengths, reduction="none"
    )


def test_focal_loss_is_the_formula() -> None:
    nll = torch.tensor([0.1, 1.0, 30.0])
    expected = torch.tensor([0.1 * (1 - 0.904837418) ** 2, (1 - 0.367879441) ** 2, 30.0])
    torch.testing.assert_close(focal_loss(nll, 2.0), expected)
    assert torch.equal(focal_loss(nll, 0.0), nll)


@pytest.mark.parametrize("focus", [0.5, 2.0])
def test_focal_loss_of_a_sure_text_is_zero_with_a_finite_gradient(focus: float) -> None:
    nll = torch.tensor([0.0, 1e-9, 1e-3], requires_grad=True)
    loss = focal_loss(nll, focus)
    loss.sum().backward()
    assert loss[0] == 0.0
    assert nll.grad is not None
    assert nll.grad.isfinite().all()
    assert (nll.grad >= 0).all()


def test_focal_ctc_weighs_training_and_not_the_nll() -> None:
    config = LinearCTC.Config(focal=2.0)
    decoder = LinearCTC(config, SPEC, LabelSpec(charset=CHARSET, max_length=4))
    memory = torch.randn(3, 9, 5)
    nll = ctc(decoder(memory))
    torch.testing.assert_close(decoder.nll(memory, LABELS), nll)
    torch.testing.assert_close(decoder.loss(memory, LABELS), (1 - (-nll).exp()) ** 2 * nll)


def test_weights_without_the_options_are_those_of_one_stacked_lstm() -> None:
    names = {name.split(".")[0] for name, _ in build(num_layers=3).named_parameters()}
    assert names == {"lstm", "head"}
    decoder, memory = build(num_layers=3), torch.randn(3, 9, 5)
    torch.testing.assert_close(decoder.loss(memory, LABELS), decoder.nll(memory, LABELS))


def test_intermediate_loss_is_the_mean_over_inner_layers() -> None:
    decoder, memory = build(num_layers=3, intermediate_weight=0.3, focal=1.0), torch.randn(3, 9, 5)
    first, _ = decoder.lstm(memory)
    second, _ = decoder.upper[0](first)
    third, _ = decoder.upper[1](second)
    of_layers = [ctc(decoder.head(hidden)) for hidden in (first, second, third)]
    torch.testing.assert_close(decoder.nll(memory, LABELS), of_layers[2])
    weighed = [(1 - (-nll).exp()) * nll for nll in of_layers]
    expected = 0.7 * weighed[2] + 0.3 * (weighed[0] + weighed[1]) / 2
    torch.testing.assert_close(decoder.loss(memory, LABELS), expected)


def test_layers_of_their_own_compute_what_the_stacked_lstm_does() -> None:
    stacked, separate = build(num_layers=2), build(num_layers=2, intermediate_weight=0.5)
    weights = dict(stacked.named_parameters())
    for name, parameter in separate.named_parameters():
        other = name.replace("upper.0", "lstm").replace("l0", "l1") if name.startswith("upper") else name
        parameter.data.copy_(weights[other])
    memory = torch.randn(3, 9, 5)
    torch.testing.assert_close(separate(memory), stacked(memory))


def test_self_conditioning_adds_the_projected_probabilities() -> None:
    decoder = build(num_layers=2, intermediate_weight=0.5, self_conditioned=True)
    memory = torch.randn(3, 9, 5)
    assert decoder.feedback is not None
    first, _ = decoder.lstm(memory)
    read = decoder.feedback(decoder.head(first).softmax(dim=-1))
    second, _ = decoder.upper[0](first + read)
    torch.testing.assert_close(decoder(memory), decoder.head(second))
    assert sum(parameter.numel() for parameter in decoder.feedback.parameters()) == (4 + 1) * 8


def test_shortcut_adds_the_weighed_ctc_loss_of_a_convolution_over_the_frames() -> None:
    decoder, memory = build(shortcut_weight=0.25, focal=1.0), torch.randn(3, 9, 5)
    assert decoder.shortcut is not None
    padded = torch.nn.functional.pad(memory, (0, 0, 1, 1))  # (B, T + 2, D)
    around = torch.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=-1)  # (B, T, D, 3)
    logits = torch.einsum("btdk,vdk->btv", around, decoder.shortcut.weight) + decoder.shortcut.bias
    of_lstm, of_shortcut = decoder.nll(memory, LABELS), ctc(logits)
    torch.testing.assert_close(of_lstm, ctc(decoder(memory)))
    expected = (1 - (-of_lstm).exp()) * of_lstm + 0.25 * (1 - (-of_shortcut).exp()) * of_shortcut
    torch.testing.assert_close(decoder.loss(memory, LABELS), expected)
    assert list(decoder.training_only()) == [decoder.shortcut]


def test_reading_does_not_use_the_shortcut() -> None:
    decoder, memory = build(shortcut_weight=0.1), torch.randn(3, 9, 5)
    before = decoder.transcribe(memory).log_prob, decoder.nll(memory, LABELS)
    assert decoder.shortcut is not None
    decoder.shortcut.weight.data.fill_(7)
    torch.testing.assert_close((decoder.transcribe(memory).log_prob, decoder.nll(memory, LABELS)), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intermediate_weight": 0.5}, "needs layers below the last one, it has num_layers = 1"),
        ({"num_layers": 2, "self_conditioned": True}, "not trained with intermediate_weight = 0"),
    ],
)
def test_losses_of_layers_that_do_not_exist_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        build(**options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        (LinearCTC, {"focal": 2.0}),
        (LSTMCTC, {"hidden_dim": 32, "num_layers": 3, "intermediate_weight": 0.5, "focal": 1.0}),
        (LSTMCTC, {"hidden_dim": 32, "num_layers": 2, "intermediate_weight": 0.5, "self_conditioned": True}),
        (LSTMCTC, {"hidden_dim": 32, "num_layers": 2, "intermediate_weight": 0.5, "shortcut_weight": 0.5}),
    ],
)
def test_variants_conform(decoder: type[LinearCTC | LSTMCTC], options: dict[str, object]) -> None:
    check_decoder(decoder, **options)
