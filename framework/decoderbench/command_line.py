"""A command line as text for people. No torch here."""

import os
import shlex
from pathlib import Path


def shell_command(*arguments: str) -> str:
    """Return a command line as somebody would type it, in printable characters.

    Arguments that are not printable, such as names that are not UTF-8, are quoted as in bash.
    """
    return " ".join(map(_quote, arguments))


def with_results(command: str, results: Path, default: Path) -> str:
    """Return the command line of a run with the folder in which its results are now, which may have been moved.

    Args:
        command: the command line, as `shell_command` returns it.
        results: where the results are.
        default: where they would be without `--results`.
    """
    if not command.startswith("decoderbench ") or "$'" in command:
        return command  # a call from Python, or words that shlex cannot divide
    words = shlex.split(command)
    place, kept = default, list[str]()
    for word in (rest := iter(words)):
        if word == "--results":
            place = Path(next(rest, ""))
        elif word.startswith("--results="):
            place = Path(word.removeprefix("--results="))
        else:
            kept.append(word)
    return command if place.resolve() == results.resolve() else shell_command(*kept, "--results", str(results))


def _quote(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    characters = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(argument)
    )
    return f"$'{''.join(characters)}'"
