"""Real numbers, whatever class they have: Python's, NumPy's, a tensor of no dimensions. No torch here."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Annotated, Any

from pydantic import BeforeValidator

from decoderbench.exception_text import text_of


def to_plain(value: Any) -> str | bool | int | float | None:
    """Return text, a truth value, a real number or None as a plain Python object.

    Arrays and tensors of no dimensions count as what they hold. A fraction or a decimal becomes a float.

    Raises:
        ValueError: the value is anything else, such as a list, a complex number or an array with dimensions.
    """
    try:
        item = _unpack(value)
        if isinstance(item, str):
            return str.__str__(item)  # of an enumeration, its text
        if item is None or isinstance(item, bool):
            return item
        if isinstance(item, int):
            return int(item)
        if isinstance(item, Real | Decimal):
            return float(item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - of a class of a plugin, or a tensor without data
        raise ValueError(f"{_shown(value)} is not a number ({text_of(error)})") from None
    raise ValueError(f"{_shown(value)} is not a number")


def to_number(value: Any) -> float:
    """Return a finite real number as a float.

    Raises:
        ValueError: the value is a truth value, text, None, not finite, or not a number at all.
    """
    plain = to_plain(value)
    if plain is None or isinstance(plain, bool | str):
        raise ValueError(f"{_shown(value)} is not a number")
    try:
        number = float(plain)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return number


Number = Annotated[float, BeforeValidator(to_number)]
"""A finite real number of any class, as the field of a model; a truth value or text is an error."""

Count = Annotated[int, BeforeValidator(to_number)]
"""A whole number of any class, as the field of a model."""


def _unpack(value: Any) -> Any:
    """Return what a NumPy scalar, or an array or tensor of no dimensions, holds; any other value as it is."""
    if getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M"):
        raise ValueError("a time")  # NumPy counts durations as integers
    if getattr(value, "ndim", None) != 0 or not callable(getattr(value, "item", None)):
        return value
    if getattr(value, "mask", False):
        raise ValueError("masked")  # NumPy reads a missing value as 0
    return value.item()


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80} of type {type(value).__name__}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the `__repr__` of a plugin's own class may raise
        return f"an object of type {type(value).__name__}"
