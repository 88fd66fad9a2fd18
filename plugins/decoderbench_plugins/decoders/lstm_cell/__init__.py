"""The decoders `lstm_cell` and `lstm_unrolled`: how both read the image, the loop, and all steps in one call."""

from decoderbench import hookimpl

from .loop import LSTMCellLoop as LSTMCellLoop
from .reader import RecurrentReader as RecurrentReader
from .spans import average_spans as average_spans
from .unrolled import LSTMUnrolled as LSTMUnrolled


@hookimpl
def register_decoders() -> list[type[RecurrentReader]]:
    """Register both decoders."""
    return [LSTMCellLoop, LSTMUnrolled]
