"""Files that are damaged in the ways that disks, copies and people damage them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[bytes, bytes, random.Random], bytes]
"""Makes the damaged content from that of a file, that of the same file of another cell, and a generator."""


def truncate(content: bytes, other: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(1, len(content))]


def flip_bit(content: bytes, other: bytes, generator: random.Random) -> bytes:
    place, bit = generator.randrange(len(content)), 1 << generator.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def zero_block(content: bytes, other: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(content))
    block = content[start : start + 512]
    return content[:start] + bytes(len(block)) + content[start + 512 :]


def empty(content: bytes, other: bytes, generator: random.Random) -> bytes:
    return b""


def swap(content: bytes, other: bytes, generator: random.Random) -> bytes:
    return other


DAMAGES: tuple[Damage, ...] = (truncate, flip_bit, zero_block, empty, swap)


def damage_file(path: Path, other: Path, damage: Damage, generator: random.Random) -> None:
    """Damage a file in place; `other` is the same file of another cell."""
    content, others = path.read_bytes(), other.read_bytes()
    damaged = content
    while damaged == content:  # zeros may have been there
        damaged = damage(content, others, generator)
    path.write_bytes(damaged)
