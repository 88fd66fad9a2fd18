"""`report.html`: everything that the records say about an experiment, in one file without any request.

Text of templates is escaped by Jinja2, a variable that is missing is an error, and a content security policy allows
one script and one style sheet, by their hashes, and images in the file itself. So text from data can neither run nor
add an element (`framework/decisions/0017`). No torch here.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from decoderbench.analysis import Analysis
from decoderbench.report.html_sections import build_sections
from decoderbench.report.svg import swatch, visible


def html_report(analysis: Analysis, *, command: str) -> str:
    """Return the page of a report.

    Args:
        analysis: all that is known.
        command: the command that recreates the report.
    """
    script, style = asset("page.js"), asset("page.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; style-src 'sha256-{digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment().get_template("report.html.j2")
    return page.render(
        policy=policy,
        script=Markup(script),
        style=Markup(style),
        **build_sections(analysis, command=command),
    )


def asset(name: str) -> str:
    """Return a file that is part of the page."""
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style sheet."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def environment() -> Environment:
    """Return the environment of all templates: everything is escaped, and nothing may be missing."""
    templates = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    templates.globals["swatch"] = swatch
    return templates


def _finalize(value: Any) -> Any:
    """Return a value as it may stand on the page: text has only characters that can be seen."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
