"""On which line of a TOML file a key stands. tomllib keeps no positions, and a message should name one."""

import re
import tomllib

_HEADER = re.compile(r"^\s*\[\[?(?P<key>[^\[\]]+)\]\]?\s*(#.*)?$")
_ASSIGNMENT = re.compile(
    r"""^\s*(?P<key>(?:"[^"]*"|'[^']*'|[^=#"'\s.]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[^=#"'\s.]+))*)\s*="""
)


def line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """Return the 1-based line of the key at `location`, or of the nearest table that holds it, or None."""
    wanted = tuple(map(str, location))
    best: tuple[int, int] | None = None  # (keys matched, line)
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            path = table = _keys(header["key"])
        elif assignment := _ASSIGNMENT.match(line):
            path = table + _keys(assignment["key"])
        else:
            continue
        if wanted[: len(path)] == path and (best is None or len(path) > best[0]):
            best = (len(path), number)
    return best[1] if best else None


def _keys(dotted: str) -> tuple[str, ...]:
    """Split a dotted TOML key, quoted parts included."""
    keys: list[str] = []
    try:
        inner: object = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return (dotted,)
    while isinstance(inner, dict):
        (key, inner), *_ = inner.items()
        keys.append(key)
    return tuple(keys)
