"""Line numbers of keys in a TOML file, for error messages; tomllib keeps no positions."""

import tomllib


def line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """Return the 1-based line of the key at `location`, else of the innermost table that contains it, else None.

    A key with dots, such as "training.steps", may also be written as nested ones, without quotes.
    """
    keys = tuple(map(str, location))
    nested = tuple(".".join(keys).split("."))
    matched, line = _find(text, keys)
    nested_matched, nested_line = _find(text, nested)
    return nested_line if matched < len(keys) and nested_matched == len(nested) else line


def _find(text: str, wanted: tuple[str, ...]) -> tuple[int, int | None]:
    """Return how many of the wanted keys a line has, at most, and the first such line."""
    best: tuple[int, int | None] = 0, None
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            path = table = _keys_of(line) or table
        elif assignment := split_assignment(line):
            path = table + assignment[0]
        else:
            continue
        if len(path) > best[0] and wanted[: len(path)] == path:
            best = len(path), number
    return best


def split_assignment(line: str) -> tuple[tuple[str, ...], str] | None:
    """Return the key that a line assigns to, as nested keys, and the text behind it; None if it is no assignment.

    The first `=` that is not part of a quoted key separates them.
    """
    for position, character in enumerate(line):
        if character == "=" and (keys := _keys_of(line[:position] + "= 0")):
            return keys, line[position + 1 :]
    return None


def _keys_of(line: str) -> tuple[str, ...]:
    """Return the nested keys of one line of TOML, outermost first; it has one key on each level."""
    keys: list[str] = []
    try:
        inner: object = tomllib.loads(line)
    except (ValueError, RecursionError):  # also raised for numbers of thousands of digits
        return ()
    while inner and isinstance(inner, dict | list):
        if isinstance(inner, dict):
            keys.append(next(iter(inner)))
            inner = inner[keys[-1]]
        else:
            inner = inner[0]
    return tuple(keys)
