"""Registered components with the options to check, and small correct decoders for tests to break in one place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, CTCDecoder, LabelSpec, SequenceSpec
from decoderbench.options import ComponentConfig
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Components, Registry

REGISTRY = Registry(build_plugin_manager())

Options = dict[str, Any]
Case = tuple[str, Options]

# Each component is checked with its defaults, or with the options listed here.
RECTIFIER_OPTIONS: dict[str, list[Options]] = {
    "tps": [{"output_channels": 32}, {"output_channels": 64, "num_fiducials": 6}],
}
ENCODER_OPTIONS: dict[str, list[Options]] = {
    **{name: [{"output_channels": 32}] for name in ("crnn_vgg", "grcnn", "resnet_fan")},
    "timm_cnn": [
        {"model": "test_resnet"},
        {"model": "test_efficientnet", "stage": 3, "keep_width": 4},
        {"model": "test_convnext", "stage": 1, "keep_width": 8},
    ],
}
BRIDGE_OPTIONS: dict[str, list[Options]] = {
    "bilstm": [{}, {"num_layers": 3, "hidden_dim": 5, "output_dim": 7, "last_projection": False}],
    **{
        name: [{}, {"projection_dim": 5, "lstm_layers": 2, "lstm_dim": 3}]
        for name in ("flatten_grid", "global_pool", "mean_height", "stack_height")
    },
}
DECODER_OPTIONS: dict[str, list[Options]] = {
    "attention_lstm": [{}, {"wiring": "baek2019", "hidden_dim": 64}],
    "lstm_cell": [
        {},
        {"hidden_dim": 96, "pool": "flatten"},
        {"cell": "gru", "num_layers": 2, "feedback": "embedding", "input_projection": "none"},
        {"pool": "flatten", "feedback": "one_hot", "teacher_forcing": "never"},
        {"pool": "frames", "feedback": "embedding", "teacher_forcing": "scheduled", "teacher_forcing_steps": 50},
        {"pool": "frames", "feedback": "logits", "input_projection": "none"},
        {"pool": "frames", "feedback": "nothing", "input_projection": "none"},
    ],
    "lstm_unrolled": [
        {},
        {"pool": "flatten", "feedback": "nothing", "cell": "gru"},
        {"pool": "frames", "feedback": "one_hot", "num_layers": 2, "input_projection": "none"},
    ],
    "lstm_ctc": [{}, {"hidden_dim": 32, "num_layers": 2, "bidirectional": False}],
}


def cases(components: Components[Any], options: Mapping[str, list[Options]]) -> list[Case]:
    """Return each registered name with each set of options to check it with."""
    return [(name, chosen) for name in components for chosen in options.get(name, [{}])]


RECTIFIERS = cases(REGISTRY["rectifier"], RECTIFIER_OPTIONS)
ENCODERS = cases(REGISTRY["encoder"], ENCODER_OPTIONS)
BRIDGES = cases(REGISTRY["bridge"], BRIDGE_OPTIONS)
DECODERS = cases(REGISTRY["decoder"], DECODER_OPTIONS)


class SmallCTC(CTCDecoder):
    """A hidden layer and a head on each frame."""

    name = "small_ctc"
    Config = ComponentConfig
    exports = True

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.hidden = nn.Linear(memory.dim, 32)
        self.head = nn.Linear(32, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(memory).tanh())
        return logits


class SmallLSTM(AutoregressiveDecoder):
    """An LSTMCell that reads the previous character and the mean of the memory."""

    name = "small_lstm"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.embed = nn.Embedding(self.num_tokens, 16)
        self.cell = nn.LSTMCell(16 + memory.dim, 32)
        self.head = nn.Linear(32, self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        zeros = memory.new_zeros(memory.shape[0], 32)
        return zeros, zeros

    def step(self, token: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = self.cell(torch.cat([self.embed(token), memory.mean(dim=1)], dim=-1), state)
        return self.head(hidden), (hidden, cell)
