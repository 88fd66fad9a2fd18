"""A command line as text for people. No torch here."""

import os
import shlex


def shell_command(*arguments: str) -> str:
    """Return a command line as somebody would type it, in printable characters.

    Arguments that are not printable, such as names that are not UTF-8, are quoted as in bash.
    """
    return " ".join(map(_quote, arguments))


def _quote(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    characters = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(argument)
    )
    return f"$'{''.join(characters)}'"
