"""The decoder `attention_lstm`: its options, its mechanisms of attention, and what only its loss uses."""

from decoderbench import hookimpl

from .decoder import AttentionLSTM as AttentionLSTM


@hookimpl
def register_decoders() -> list[type[AttentionLSTM]]:
    """Register `attention_lstm`."""
    return [AttentionLSTM]
