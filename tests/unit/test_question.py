"""The question that the project answers, at the sizes of its demo: features (2, 16), captions (2, 10), hidden 32.

The module of the answer is the core of a decoder, not a complete decoder. Each test shows one missing part and its
counterpart in `lstm_cell`. The last tests show, with copied weights, that the core is the same function.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoderbench import Charset, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.registry.registry import Registry

CNN_DIM, HIDDEN_DIM, CHARACTERS, BATCH, STEPS = 16, 32, 10, 2, 10
CHARSET = Charset("0123456789")
END = CHARACTERS


class AnsweredModule(nn.Module):
    """The module of the answer as described there: an LSTMCell that loops over positions and reads its own logits."""

    def __init__(self, cnn_dim: int, hidden_dim: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden_dim)
        self.fc_in = nn.Linear(cnn_dim, vocabulary)
        self.cell = nn.LSTMCell(vocabulary, hidden_dim)
        self.fc_out = nn.Linear(hidden_dim, vocabulary)

    def forward(self, features: Tensor, captions: Tensor) -> Tensor:
        hidden, cell = (features.new_zeros(len(features), self.cell.hidden_size) for _ in range(2))
        read, outputs = self.fc_in(features), []
        for _ in range(captions.shape[1]):
            hidden, cell = self.cell(read, (hidden, cell))
            read = self.fc_out(hidden)
            outputs.append(hidden)
        return torch.cat(outputs)


@pytest.fixture
def features() -> Tensor:
    return 3 * torch.randn(BATCH, CNN_DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def captions() -> Tensor:
    return torch.randint(CHARACTERS, (BATCH, STEPS), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def answered() -> AnsweredModule:
    torch.manual_seed(2)
    return AnsweredModule(CNN_DIM, HIDDEN_DIM, CHARACTERS)


@pytest.fixture
def ours(registry: Registry) -> Any:
    registered = registry["decoder"]["lstm_cell"]
    config = registered.config_class.model_validate({"hidden_dim": HIDDEN_DIM})
    memory = SequenceSpec(length=1, dim=CNN_DIM, left_to_right=True)
    torch.manual_seed(3)
    return registered.component(config, memory, LabelSpec(charset=CHARSET, max_length=STEPS))


def labels_of(captions: Tensor) -> Labels:
    return Labels.from_texts([CHARSET.decode(row) for row in captions.tolist()], CHARSET)


def test_answer_returns_hidden_states_and_ours_logits(
    answered: AnsweredModule, ours: Any, features: Tensor, captions: Tensor
) -> None:
    output = answered(features, captions)
    assert output.shape == (STEPS * BATCH, HIDDEN_DIM)
    assert output.shape[1] != CHARACTERS
    assert output.abs().max() < 1  # a tanh times a sigmoid, whereas scores are unbounded

    tokens = torch.cat([torch.full((BATCH, 1), ours.start), captions], dim=1)
    logits = ours.teacher_forced_logits(Memory.of(features[:, None]), tokens)
    assert logits.shape == (BATCH, STEPS + 1, CHARACTERS + 1)


def test_rows_of_the_answer_are_step_major(answered: AnsweredModule, features: Tensor, captions: Tensor) -> None:
    """The rows of one image are B apart, so a loss against captions.flatten() would mix images and positions."""
    output = answered(features, captions)
    for image in range(BATCH):
        alone = answered(features[image, None], captions[image, None])  # (S, N)
        torch.testing.assert_close(output.view(STEPS, BATCH, HIDDEN_DIM)[:, image], alone)
        torch.testing.assert_close(output[image::BATCH], alone)
        assert not torch.allclose(output.view(BATCH, STEPS, HIDDEN_DIM)[image], alone)


def test_answer_uses_captions_only_for_the_number_of_steps(
    answered: AnsweredModule, features: Tensor, captions: Tensor
) -> None:
    output = answered(features, captions)
    assert torch.equal(answered(features, (captions + 1) % CHARACTERS), output)
    assert len(answered(features, captions[:, :4])) == 4 * BATCH
    answered.fc_out(output).square().sum().backward()
    without = {name for name, parameter in answered.named_parameters() if parameter.grad is None}
    assert without == {"embedding.weight"}


def test_every_weight_of_ours_learns_from_captions(ours: Any, features: Tensor, captions: Tensor) -> None:
    nll = ours.nll(features[:, None], labels_of(captions))
    assert nll.shape == (BATCH,)
    assert not torch.allclose(nll, ours.nll(features[:, None], labels_of((captions + 1) % CHARACTERS)))
    nll.sum().backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []


def test_only_ours_can_end_a_text(answered: AnsweredModule, ours: Any, features: Tensor) -> None:
    """Ten logits score ten characters. An eleventh scores the end, so texts of all lengths form one distribution."""
    assert answered.fc_out.out_features == CHARACTERS
    assert ours.fc_out.out_features == CHARACTERS + 1
    with torch.no_grad():
        ours.fc_out.bias[END] += 1.0
    short = [
        "",
        *CHARSET.characters,
        *(first + second for first in CHARSET.characters for second in CHARSET.characters),
    ]
    for image in features:
        memory = image.expand(len(short), 1, -1)
        tokens = torch.full((1, 3), ours.start)
        end = ours.teacher_forced_logits(Memory.of(memory[:1]), tokens).softmax(dim=2)[0, :, END]
        longer = (1 - end).prod()  # no end after zero, one or two characters
        total = (-ours.nll(memory, Labels.from_texts(short, CHARSET))).exp().sum()
        assert (total + longer).item() == pytest.approx(1.0, abs=1e-5)
        assert longer.item() < 0.9

    with torch.no_grad():
        ours.fc_out.bias[END] += 100.0
    assert ours.transcribe(features[:, None]).lengths.tolist() == [0, 0]


def test_ours_transcribes_without_captions(ours: Any, features: Tensor) -> None:
    for beam_size in (1, 4):
        read = ours.transcribe(features[:, None], beam_size=beam_size)
        texts = [CHARSET.decode(ids[:length]) for ids, length in zip(read.ids.tolist(), read.lengths, strict=True)]
        assert all(len(text) <= STEPS for text in texts)
        nll = ours.nll(features[:, None], Labels.from_texts(texts, CHARSET))
        torch.testing.assert_close(-nll, read.log_prob)


def with_weights_of(answered: AnsweredModule, ours: Any) -> Any:
    """Copy the weights of the answer into ours; all weights that belong to the end stay zero."""
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
        cell = ours.cells[0].cell
        ours.fc_in.weight[:END], ours.fc_in.bias[:END] = answered.fc_in.weight, answered.fc_in.bias
        ours.fc_out.weight[:END], ours.fc_out.bias[:END] = answered.fc_out.weight, answered.fc_out.bias
        cell.weight_ih[:, :END] = answered.cell.weight_ih
        for name in ("weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(getattr(answered.cell, name))
    return ours


def test_hidden_states_are_equal_with_weights_of_the_answer(
    answered: AnsweredModule, ours: Any, features: Tensor, captions: Tensor
) -> None:
    decoder, hidden = with_weights_of(answered, ours), list[Tensor]()
    decoder.fc_out.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    decoder.nll(features[:, None], labels_of(captions))
    assert len(hidden) == STEPS + 1
    expected = answered(features, captions)
    torch.testing.assert_close(torch.cat(hidden[:STEPS]), expected)
    assert expected.std() > 0.01


def test_logits_of_characters_are_equal_with_weights_of_the_answer(
    answered: AnsweredModule, ours: Any, features: Tensor, captions: Tensor
) -> None:
    tokens = torch.cat([torch.full((BATCH, 1), ours.start), captions[:, :-1]], dim=1)
    logits = with_weights_of(answered, ours).teacher_forced_logits(Memory.of(features[:, None]), tokens)
    expected = answered.fc_out(answered(features, captions)).view(STEPS, BATCH, CHARACTERS).transpose(0, 1)
    torch.testing.assert_close(logits[:, :, :END], expected)
