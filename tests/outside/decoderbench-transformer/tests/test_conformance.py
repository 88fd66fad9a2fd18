"""The components of the package conform: one test per rule."""

from collections.abc import Callable

from decoderbench_transformer.adapter import ViTSTREncoder
from decoderbench_transformer.transformer import TransformerDecoder

from decoderbench.testing import parametrize_with_checks


@parametrize_with_checks(
    [
        TransformerDecoder,
        (TransformerDecoder, {"hidden_dim": 48, "heads": 3, "layers": 1, "dropout": 0}),
        (ViTSTREncoder, {"characters": "0123456789", "max_length": 4, "width": 32}),
    ]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()
