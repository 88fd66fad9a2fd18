"""Docstrings are plain text with Markdown's code and Google's sections; Sphinx's autodoc reads reStructuredText."""

import re
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

# Code between backticks, or a character that reStructuredText would take for markup.
_SPECIAL = re.compile(r"`(?P<code>[^`]+)`|[*|\\]|_(?!\w)")
_SECTION = re.compile(r"\s*(Args|Attributes|Example|Raises|Returns|Yields):$")


def process_docstring(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Change the lines of a docstring in place to reStructuredText."""
    to_rst(lines)
    if what not in ("attribute", "data", "property"):  # of these, napoleon takes what precedes a colon for the type
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what, name, value, options).lines()


def process_signature(
    app: Sphinx, what: str, name: str, value: Any, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Return a signature that Sphinx can parse; none for a protocol or a model, whose fields are documented one by one.

    Sphinx prints a signature that it cannot parse as it is, with full names of types.
    """
    if isinstance(value, type) and (issubclass(value, BaseModel) or getattr(value, "_is_protocol", False)):
        return "", ""
    return signature and signature.replace("<factory>", "..."), returned


def to_rst(lines: list[str]) -> None:
    """Change the lines of a docstring in place: mark code, and escape what is no markup.

    An indented block after a paragraph that ends with a colon is code.
    """
    code_indent: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if code_indent is not None and line.strip() and indent <= code_indent:
            code_indent = None
        if code_indent is not None:
            continue
        lines[number] = _SPECIAL.sub(_escaped, line)
        if line.endswith(":") and not _SECTION.match(line) and _is_indented_block(lines[number + 1 :], indent):
            lines[number] += ":"
            code_indent = indent


def _escaped(match: re.Match[str]) -> str:
    return f"``{match['code']}``" if match["code"] else f"\\{match[0]}"


def _is_indented_block(lines: list[str], indent: int) -> bool:
    """Return whether the lines are a blank one, then one that is indented more."""
    return len(lines) > 1 and not lines[0].strip() and len(lines[1]) - len(lines[1].lstrip()) > indent
