"""Hostile text at every place of the page that data, people and plugins fill: shown as text, never an element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.pages import Page, page_of, publish_images, publish_readings
from helpers.recording import make_cell

from decoderbench.config.cell import ResolvedComponent

PAYLOADS = [
    '"><img src=x onerror=alert(1)></script><script>alert(1)</script>',
    "a\x00b\x1b[31m\u202egnp\u2066",
]
MORE = [
    "<script>alert(1)</script>",
    "</script></style></title></svg></body><b>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "<svg onload=alert(1)><title>",
    "</title></head><body>",
    "</style><style>*{display:none}",
    "<!-- --> <!",
    "--!><a>",
    "]]><![CDATA[<x/>",
    "<?xml version='1.0'?>",
    "&lt;b&gt; &#60;i&#62; &amp &nbsp;",
    "{{7*7}} {% raw %} {# #} ${7*7}",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "x" * 10_000,
    "\\u003cscript\\u003e",
    "<iframe srcdoc='<script>1</script>'>",
    "<base href=//example.org>",
    "<meta http-equiv=refresh content=0>",
    "<form action=//example.org><input autofocus onfocus=alert(1)>",
    "\ufeff<b>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "href=# style=x",
    "\r\n\t<p>\n",
]


def build(folder: Path, text: str) -> Page:
    """Return the page of a results folder with a text at every place that is not decoderbench's own."""

    def component(label: str) -> ResolvedComponent:
        return ResolvedComponent(label=label, use=text, options={"x": text}, decisive={"x": text}, source=text)

    places: dict[str, Any] = {
        "experiment": text,
        "dataset": text,
        "encoder": component(text),
        "bridge": component(f"1{text}"),
        "trainers": {text: text},
    }
    labels = [text, f"1{text}", f"2{text}"]
    keys = [f"a{text}", f"b{text}", f"c{text}"]
    publish_readings(
        folder,
        {
            f"A{text}": [[f"x{text}", *labels[1:]], [*labels[:2], f"2{text}y"]],
            f"B{text}": [[f"x{text}", f"1{text}y", labels[2]], [f"x{text}", *labels[1:]]],
        },
        labels,
        keys=keys,
        cell=places,
        record={"environment": {"date": "2026-01-01", "machine": text, "torch": text, "key": text}, "device": text},
        unread=[make_cell(f"C{text}").model_copy(update=places | {"infeasible": text})],
        plan={"experiment": text, "command": text, "data_notes": (text,), "data_summary": (text, text)},
    )
    publish_images(folder, [("0", "train", "train", text), *(("0", key, "test", text) for key in keys)])
    return page_of(folder)


def disarm(text: str) -> str:
    """Return letters in place of the characters, the same for equal ones: numbers depend on lengths and repeats."""
    letters = {character: chr(0x4E00 + number) for number, character in enumerate(dict.fromkeys(text))}
    return "".join(letters[character] for character in text)


@pytest.mark.parametrize(
    "payload",
    [*PAYLOADS, *(pytest.param(payload, marks=pytest.mark.slow) for payload in MORE)],
    ids=lambda payload: repr(payload)[:30],
)
def test_page_with_hostile_text_has_the_elements_and_attributes_of_a_harmless_one(payload: str, tmp_path: Path) -> None:
    plain = disarm(payload)
    page, harmless = build(tmp_path / "hostile", payload), build(tmp_path / "harmless", plain)
    changed = page.counts
    changed.subtract(harmless.counts)
    assert not {element: count for element, count in changed.items() if count}
    assert all(one.isprintable() or one == "\n" for one in page.source)
    assert len(page.source) < 3_000_000
    if len(payload) < 100:
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in payload)
        assert page.text.count(shown) >= harmless.text.count(plain)
