"""Registered components with the options to check."""

from collections.abc import Mapping
from typing import Any

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
        for name in ("feature_map", "flatten_grid", "global_pool", "mean_height", "stack_height")
    },
    "rctc": [{}, {"projection_dim": 6, "num_heads": 3, "mlp_ratio": 1.5, "dropout": 0.1}],
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
    "position_attention": [
        {"hidden_dim": 32},
        {"attention": "a3", "projection_dim": 16, "label_smoothing": 0.1},
    ],
    "nrtr": [{"num_layers": 1}],
    "parseq": [{"dim": 64}, {"dim": 32, "read": "nar", "refinements": 0}],
    "sar": [{"hidden_dim": 24}],
    "rnn_transducer": [{"hidden_dim": 32, "joint_dim": 32}],
    "hybrid": [{"guide": {"use": "attention_lstm", "hidden_dim": 32}, "read": "joint"}],
    "guided_ctc": [{"guide": {"use": "attention_lstm", "hidden_dim": 32}}],
    "lstm_ctc": [{}, {"hidden_dim": 32, "num_layers": 2, "bidirectional": False}, {"shortcut_weight": 0.1}],
}


def cases(components: Components[Any], options: Mapping[str, list[Options]]) -> list[Case]:
    """Return each registered name with each set of options to check it with."""
    return [(name, chosen) for name in components for chosen in options.get(name, [{}])]


RECTIFIERS = cases(REGISTRY["rectifier"], RECTIFIER_OPTIONS)
ENCODERS = cases(REGISTRY["encoder"], ENCODER_OPTIONS)
BRIDGES = cases(REGISTRY["bridge"], BRIDGE_OPTIONS)
DECODERS = cases(REGISTRY["decoder"], DECODER_OPTIONS)
