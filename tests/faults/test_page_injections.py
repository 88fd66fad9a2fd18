"""Hostile text at every place of the page that data, people and plugins fill: shown as text, never an element."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import Page, page_of, publish_images, publish_readings
from helpers.recording import make_cell, make_record

from decoderbench.config.cell import ResolvedComponent
from decoderbench.config.experiment import parse_experiment
from decoderbench.errors import ConfigError

PAYLOADS = [
    '"><img src=x onerror=alert(1)></script><script>alert(1)</script>',
    "a\x00b\x1b[31m\u202egnp\u2066",
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
    "x" * 1_000,
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
PLACES = (
    *(
        "title",
        "question",
        "command",
        "dataset path",
        "data summary",
        "data note",
        "name of a row",
        "decoder",
        "bridge",
    ),
    *("setting", "what a setting says", "tuned value", "plugin", "label", "prediction", "image", "caption of an image"),
    *("exception text", "device", "environment", "kind of environment"),
)
LENGTH = 80
END = "あ"
POLICY = re.compile(
    r"default-src 'none'; script-src 'sha256-[^']{44}'; style-src 'sha256-[^']{44}'; img-src data:; base-uri 'none'; "
    r"form-action 'none'"
)


class Text:
    """A text for each place: payloads side by side, each between marks that no other place or payload has."""

    def __init__(self, payloads: Sequence[str]) -> None:
        self.payloads = [payload.ljust(LENGTH, "-") for payload in payloads]

    def mark(self, place: str, number: int) -> str:
        return chr(0xAC00 + 32 * PLACES.index(place) + number)

    def __call__(self, place: str) -> str:
        return "".join(f"{self.mark(place, number)}{payload}{END}" for number, payload in enumerate(self.payloads))

    def counts(self, page: Page) -> dict[tuple[str, int], int]:
        """Return how often a page shows each payload at each place, with escapes of what cannot be seen."""
        return {
            (place, number): page.text.count(f"{self.mark(place, number)}{visible(payload)}{END}")
            for place in PLACES
            for number, payload in enumerate(self.payloads)
        }


def visible(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def build(folder: Path, text: Text) -> Page:
    """Return the page of a results folder with a text at each of `PLACES`."""

    def component(label: str) -> ResolvedComponent:
        options = {"x": text("plugin")}
        return ResolvedComponent(label=label, use=text("plugin"), options=options, decisive=options, source=label)

    fields: dict[str, Any] = {
        "experiment": text("title"),
        "dataset": text("dataset path"),
        "bridge": component(text("bridge")),
        "trainers": {text("plugin"): "digest"},
        "name": text("name of a row"),
        "setting": text("setting"),
        "tuned": {"training.learning_rate": text("tuned value")},
        "frames": None,  # for what CTC needs depends on which characters repeat
    }
    labels, keys = [text("label"), "1", "2"], [text("image"), "image 1", "image 2"]
    failed = make_cell("failed").model_copy(update=fields)
    trial = make_cell("other", 1000, purpose="tuning").model_copy(update=fields)
    directory = publish_readings(
        folder,
        {text("decoder"): [[text("prediction"), "1", "2x"]], "other": [[text("label"), "1", "2x"]]},
        labels,
        keys=keys,
        cell=fields,
        record={
            "environment": {"date": "2026-01-01", "torch": text("environment"), text("kind of environment"): "x"},
            "device": text("device"),
        },
        unread=[failed],
        plan={
            "experiment": text("title"),
            "question": text("question"),
            "command": text("command"),
            "settings": {text("setting"): text("what a setting says")},
            "data_notes": (text("data note"),),
            "data_summary": (text("data summary"),),
            "tuning": (trial,),
        },
    )
    directory.publish(make_record(failed, status="failed", reason=text("exception text"), metrics={}))
    directory.publish(make_record(trial))
    caption = text("caption of an image")
    publish_images(folder, [("0", "train", "train", caption), *(("0", key, "test", "1") for key in keys)])
    return page_of(folder)


@pytest.fixture(scope="module")
def build_harmless(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], tuple[Page, Text]]:
    """Return a function that returns the page with letters in place of payloads, as many of them."""
    built: dict[tuple[int, ...], tuple[Page, Text]] = {}

    def build_once(payloads: Sequence[str]) -> tuple[Page, Text]:
        text = Text(["a" * max(LENGTH, len(payload)) for payload in payloads])
        lengths = tuple(map(len, text.payloads))
        if lengths not in built:
            built[lengths] = build(tmp_path_factory.mktemp("harmless"), text), text
        return built[lengths]

    return build_once


GROUPS = [PAYLOADS[start : start + 4] for start in range(0, len(PAYLOADS), 4)]
ALONE = [pytest.param([payload], marks=pytest.mark.slow) for payload in (*PAYLOADS, "x" * 10_000)]


@pytest.mark.parametrize("payloads", [*GROUPS, *ALONE], ids=lambda payloads: repr(payloads)[:30])
def test_page_shows_hostile_text_at_each_place_and_has_the_elements_and_attributes_of_a_harmless_one(
    payloads: list[str], tmp_path: Path, build_harmless: Callable[[Sequence[str]], tuple[Page, Text]]
) -> None:
    text = Text(payloads)
    page, (harmless, letters) = build(tmp_path, text), build_harmless(payloads)
    shown, expected = text.counts(page), letters.counts(harmless)
    may_be_cut = {number for number, padded in enumerate(text.payloads) if len(padded) > LENGTH}
    assert not [place for (place, number), count in expected.items() if not count and number not in may_be_cut]
    wrong = {(place, payloads[number]) for (place, number), count in expected.items() if shown[place, number] != count}
    assert not wrong
    changed = page.counts
    changed.subtract(harmless.counts)
    assert not {element: count for element, count in changed.items() if count}
    assert all(one.isprintable() or one == "\n" for one in page.source)
    assert len(page.source) < 3_000_000


def test_harmless_page_has_one_script_and_the_policy(
    build_harmless: Callable[[Sequence[str]], tuple[Page, Text]],
) -> None:
    page, _ = build_harmless(GROUPS[0])
    assert [tag for tag, _ in page.elements].count("script") == 1
    (policy,) = (
        dict(attrs)["content"] for _, attrs in page.elements if ("http-equiv", "Content-Security-Policy") in attrs
    )
    assert POLICY.fullmatch(policy or "")


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: repr(payload)[:30])
def test_text_that_is_no_name_is_refused_as_one(payload: str, tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^name: string should match pattern"):
        parse_experiment(tiny | {"name": payload}, source="")
    first = next(iter(tiny["grid"]["decoder"]))
    for change in (
        {"decoder": {payload: "x"}},
        {"settings": {payload: {}}},
        {"names": [{"name": payload, "decoder": first}]},
    ):
        changed = tiny | {"grid": tiny["grid"] | change}
        if payload.isprintable() and payload == payload.strip() and len(payload) <= 64:
            assert parse_experiment(changed, source="")
        else:
            with pytest.raises(ConfigError, match=r"^grid.*: (label|name) .* must be 1 to 64 printable characters"):
                parse_experiment(changed, source="")
    component = ResolvedComponent(label="x", use=payload, options={}, decisive={}, source="s")
    assert re.fullmatch(r"[a-z0-9-]{1,140}", make_cell(encoder="x").model_copy(update={"encoder": component}).cell_id)
