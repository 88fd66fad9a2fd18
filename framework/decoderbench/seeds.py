"""Seeds per purpose: a seed of the grid gives each use of randomness its own stream. No torch here."""

import hashlib
import json


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Cells with the same seed share the stream of a purpose that they have in common: all train on the same batches
    with the same augmentation, and an encoder starts from the same weights with every decoder.
    """
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
