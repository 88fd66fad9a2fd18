"""The conformance kit: what a component must do to take part, asked of the class itself.

    def test_my_decoder():
        check_decoder(MyDecoder, hidden_dim=32)

A check builds the component at several sizes on the CPU with random weights, and raises `ConformanceError` at the
first rule that it breaks. Give it the options of a small variant, without trained weights.
"""

from decoderbench.testing.decoders import check_decoder
from decoderbench.testing.rules import ConformanceError
from decoderbench.testing.stages import check_bridge, check_encoder, check_rectifier

__all__ = ["ConformanceError", "check_bridge", "check_decoder", "check_encoder", "check_rectifier"]
