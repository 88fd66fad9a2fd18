"""Seeds per purpose: one seed of a grid becomes a stream for each use of randomness. No torch here."""

import hashlib
import json


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Cells of one seed share the streams whose purpose they share: all see the same batches with the same
    augmentation, and one encoder starts from the same weights under every decoder.
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
