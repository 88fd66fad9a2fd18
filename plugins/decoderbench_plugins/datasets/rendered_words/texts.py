"""The texts of samples: random strings, or words of a list."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from decoderbench import Charset, DataError

SHOWN = 10  # names listed in a message


def random_numbers(seed: str) -> Callable[[], float]:
    """Return a function that yields one number after another, from 0 to below 1, the same for each `seed`."""
    return Random(int.from_bytes(hash_bytes(seed, 32))).random  # Python promises to keep this sequence


def random_string(
    draw: Callable[[], float], *, characters: str, min_length: int, max_length: int, repeat: float | None
) -> str:
    """Return a random string; `repeat` is the probability that a character equals the previous one, if given."""
    text = characters[int(draw() * len(characters))]
    length = min_length + int(draw() * (max_length - min_length + 1))
    while len(text) < length:
        others = characters
        if repeat is not None:
            others = text[-1] if draw() < repeat else characters.replace(text[-1], "")
        text += others[int(draw() * len(others))]
    return text


def read_words(file: Path, *, charset: str, min_length: int, max_length: int) -> tuple[list[str], list[str]]:
    """Return the usable words of a list, sorted and without duplicates, and notes about the others.

    Raises:
        DataError: the file cannot be read, is empty, or holds no usable word.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"word list {file} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"word list {file} cannot be read: {error.strerror}; check the option words") from error
    counts = Counter(line for line in lines if line)
    if not counts:
        raise DataError(f"word list {file} is empty; write one word per line")
    allowed, lengths = Charset(charset), f"of {min_length} to {max_length} characters"
    in_charset = {word for word in counts if not allowed.missing(word)}
    usable = sorted(word for word in in_charset if min_length <= len(word) <= max_length)
    if not usable:
        raise DataError(
            f"word list {file} has no word {lengths} in charset {charset!r} among its {len(counts):,} words; "
            "change charset, min_length or max_length"
        )
    others = {
        "words with characters outside charset are excluded": counts.keys() - in_charset,
        f"words not {lengths} are excluded": in_charset.difference(usable),
        "words listed several times count once": {word for word in usable if counts[word] > 1},
    }
    return usable, [
        f"{fact}: {len(words):,} ({_first_names(sorted(words))})" for fact, words in others.items() if words
    ]


def hash_bytes(text: str, size: int) -> bytes:
    """Return `size` bytes of a hash of `text`."""
    return hashlib.shake_256(text.encode()).digest(size)


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
