"""Attention LSTM with the wiring of Baek et al. 2019: published size, biases, formula, and the start token."""

import string

import pytest
import torch
from torch import Tensor

from decoderbench import Charset, Labels, LabelSpec, SequenceSpec
from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM

CHARSET = Charset(string.digits + string.ascii_lowercase)


def build(dim: int, **options: object) -> AttentionLSTM:
    config = AttentionLSTM.Config.model_validate(options)
    memory = SequenceSpec(length=26, dim=dim, left_to_right=True)
    return AttentionLSTM(config, memory, LabelSpec(charset=CHARSET, max_length=25))


@pytest.mark.parametrize(("dim", "parameters"), [(256, 706_598), (512, 1_034_278)])
def test_parameter_count_for_36_characters_is_the_published_one(dim: int, parameters: int) -> None:
    decoder = build(dim, wiring="baek2019")
    assert sum(parameter.numel() for parameter in decoder.parameters()) == parameters


def test_biases_are_those_of_the_paper() -> None:
    decoder = build(8, wiring="baek2019")
    biases = {name.removesuffix(".bias") for name, _ in decoder.named_parameters() if name.endswith(".bias")}
    assert biases == {"query", "head"}
    assert decoder.cell.bias


def test_embed_dim_has_no_effect_with_baek2019() -> None:
    narrow, wide = (build(8, wiring="baek2019", embed_dim=width) for width in (1, 500))
    assert {name: p.shape for name, p in narrow.named_parameters()} == {n: p.shape for n, p in wide.named_parameters()}


def test_step_with_baek2019_matches_formula() -> None:
    """e = v tanh(W_i H + W_h h + b); the cell reads the glimpse, then the previous character as one-hot."""
    torch.manual_seed(0)
    decoder, memory = build(8, wiring="baek2019", hidden_dim=16), torch.randn(3, 26, 8)
    hidden, cell = torch.randn(3, 16), torch.randn(3, 16)
    token = torch.tensor([decoder.start, 0, 35])
    _, _, keys = decoder.initial_state(memory)
    logits, _ = decoder.step(token, (hidden, cell, keys), memory)

    for row in range(3):
        query = decoder.query.weight @ hidden[row] + decoder.query.bias
        energies = [decoder.score.weight[0] @ torch.tanh(decoder.key.weight @ frame + query) for frame in memory[row]]
        glimpse = torch.stack(energies).softmax(dim=0) @ memory[row]
        one_hot = torch.zeros(38)
        one_hot[token[row]] = 1.0
        after, _ = decoder.cell(torch.cat([glimpse, one_hot])[None], (hidden[row, None], cell[row, None]))
        expected = decoder.head(after)[0, :37]  # without the start
        torch.testing.assert_close(logits[row], expected)


def test_start_token_is_never_scored() -> None:
    decoder, memory = build(8, wiring="baek2019", hidden_dim=16), torch.randn(2, 26, 8)
    labels = Labels.from_texts(["7a", ""], CHARSET)
    before = decoder.nll(memory, labels)
    with torch.no_grad():
        decoder.head.bias[decoder.start] += 100
    assert torch.equal(decoder.nll(memory, labels), before)


def test_keys_are_computed_once_per_transcription() -> None:
    decoder, calls = build(8, wiring="baek2019", hidden_dim=16), list[Tensor]()
    decoder.key.register_forward_hook(lambda module, inputs, output: calls.append(output))
    decoder.transcribe(torch.randn(2, 26, 8))
    assert len(calls) == 1
