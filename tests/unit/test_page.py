"""The page of a report: what it claims, what it shows, and that it is one file whose script is its own."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from helpers.pages import Page, page_of, publish_images, publish_readings
from helpers.recording import make_cell, make_record, publish

from decoderbench.analysis import load_report
from decoderbench.report.main_table import main_table
from decoderbench.report.page import markdown_report

LABELS = [f"{number:03}" for number in range(40)]
POLICY = "Content-Security-Policy"


def misread(count: int, *, start: int = 0) -> list[str]:
    """Return the labels with `count` of them misread from `start` on."""
    return [f"{text}x" if start <= place < start + count else text for place, text in enumerate(LABELS)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Three rows of three seeds: two are alike, one is much worse; one cell waits, and one image is kept."""
    folder = tmp_path_factory.mktemp("results")
    waiting = make_cell("LSTM", 3)
    publish_readings(
        folder,
        {
            "CTC": [misread(2), misread(1, start=1), misread(2, start=1)],
            "attention": [misread(1), misread(2), misread(1, start=4)],
            "LSTM": [misread(20), misread(21, start=3), misread(19, start=6)],
        },
        LABELS,
        unread=[waiting],
    )
    publish_images(folder, [("0", "test/0", "test", LABELS[0]), ("0", "train/7", "train", "777")])
    return page_of(folder)


def test_page_claims_no_winner_between_rows_that_are_alike_and_counts_the_worse_ones(page: Page) -> None:
    answer = page.texts["answer"]
    assert "attention and CTC cannot be told apart here: +0.8 points, 95 % interval -" in answer
    assert re.search(r"; \d+ seeds would (not )?resolve [\d.]+ points?", answer)
    assert "1 of the other 2 rows is shown to be worse." in answer


def test_page_names_the_better_row_only_if_the_difference_is_shown(tmp_path: Path) -> None:
    publish_readings(tmp_path, {"CTC": [misread(1)] * 3, "LSTM": [misread(30)] * 3}, LABELS)
    assert (
        "CTC reads better than the next best, LSTM: +72.5 points, 95 % interval +" in page_of(tmp_path).texts["answer"]
    )


def test_page_and_report_ask_the_question_before_the_answer(tmp_path: Path) -> None:
    question = "* Which <b>one</b> | reads\nbest?"
    publish_readings(tmp_path, {"CTC": [misread(4)] * 2}, LABELS, plan={"question": question})
    analysis = load_report(tmp_path)
    answer = page_of(tmp_path).texts["answer"]
    assert answer.index("* Which <b>one</b> | reads\\nbest?") < answer.index("CTC reads 90.0 %")
    report = markdown_report(analysis.results, main_table(analysis), command="", sections=[], figures={})
    lines = report.splitlines()
    assert lines[:5] == ["# demo", "", r"\* Which &lt;b>one&lt;/b> \| reads best?", "", "Dataset: captcha."]


def test_page_of_one_seed_speaks_of_trained_models(tmp_path: Path) -> None:
    publish_readings(tmp_path, {"CTC": [misread(1)], "LSTM": [misread(30)]}, LABELS)
    page = page_of(tmp_path)
    assert "about these trained models, not about the architectures" in page.texts["answer"]
    assert "hold for these trained models, since each row has the result of one seed" in page.texts["methods"]


def test_page_without_any_result_says_so_and_shows_the_reasons(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell(seed=1)]
    publish(tmp_path, cells, [make_record(cells[0], status="failed", reason="it broke", metrics={})])
    page = page_of(tmp_path)
    assert "No row has a result yet." in page.texts["answer"]
    assert "it broke" in page.texts["ledger"]
    assert "pending" in page.texts["ledger"]


def test_page_of_one_row_gives_its_interval(tmp_path: Path) -> None:
    publish_readings(tmp_path, {"CTC": [misread(4)] * 2}, LABELS)
    assert "CTC reads 90.0 % (95 % interval " in page_of(tmp_path).texts["answer"]


def test_page_allows_its_one_script_and_style_by_hash_and_nothing_from_elsewhere(page: Page) -> None:
    (policy,) = (
        dict(attrs)["content"] or ""
        for tag, attrs in page.elements
        if ("http-equiv", "Content-Security-Policy") in attrs
    )
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.source, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    addresses = [
        value
        for tag in ("img", "image", "link", "a", "use")
        for name in ("src", "href")
        for value in page.values(tag, name)
    ]
    assert addresses
    assert all((address or "").startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_page_has_no_attribute_that_runs_or_styles(page: Page) -> None:
    names = {name for _, attrs in page.elements for name, _ in attrs}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert [tag for tag, _ in page.elements].count("script") == 1


def test_page_shows_images_that_are_kept_and_says_where_there_are_none(page: Page) -> None:
    alternatives = page.values("img", "alt")
    assert any("test image" in (text or "") for text in alternatives)
    assert any("training image" in (text or "") for text in alternatives)
    assert "777" in page.texts["data"]
    assert (
        page.texts["gallery"].count("image not kept here")
        == sum(tag == "li" and ("class", "card") in attrs for tag, attrs in page.elements) - 1
    )


def test_page_marks_how_a_reading_differs_from_the_label(page: Page) -> None:
    assert "<mark>x</mark>" in page.source
    assert "<del>" not in page.source.split('class="gallery"')[1]


def test_page_draws_alignments_over_the_image_of_each_row(page: Page) -> None:
    drawings = [attrs for tag, attrs in page.elements if tag == "svg" and ("class", "look") in attrs]
    assert len(drawings) == 3
    images = [dict(attrs) for tag, attrs in page.elements if tag == "image"]
    assert [image["class"] for image in images] == ["under", "heat"] * 3
    assert all((image["href"] or "").startswith("data:image/png;base64,") for image in images)


def test_page_lists_every_cell_with_its_folder_and_cells_without_a_result(page: Page) -> None:
    for decoder, seed in (("CTC", 0), ("LSTM", 2)):
        assert make_cell(decoder, seed).cell_id in page.texts["provenance"]
    assert "pending" in page.texts["ledger"]
    assert make_cell("LSTM", 3).cell_id in page.texts["ledger"]


def test_page_has_landmarks_captions_and_text_alternatives(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert all(tags.count(tag) == 1 for tag in ("main", "header", "footer", "h1"))
    assert tags.count("caption") == tags.count("table") > 5
    assert all(scope == "col" for scope in page.values("th", "scope"))
    assert len(page.values("th", "scope")) == tags.count("th")
    ids = {dict(attrs)["id"] for _, attrs in page.elements if "id" in dict(attrs)}
    named = [
        dict(attrs).get("aria-labelledby") for tag, attrs in page.elements if tag == "svg" and ("role", "img") in attrs
    ]
    assert named
    assert all(set((name or "missing").split()) <= ids for name in named)
    assert len(ids) == sum("id" in dict(attrs) for _, attrs in page.elements), "an id is there twice"


def test_long_tables_say_how_many_rows_are_left_out(tmp_path: Path) -> None:
    readings = {f"decoder {number}": [misread(number), misread(number + 1)] for number in range(12)}
    publish_readings(tmp_path, readings, LABELS)
    assert "first 50 of 66; all are in tables/contrasts.csv" in page_of(tmp_path).texts["contrasts"]


def test_page_draws_accuracy_against_labels_of_rows_that_differ_in_their_number_only(tmp_path: Path) -> None:
    cells = [
        make_cell("CTC"),
        make_cell("CTC", setting="100 labels", train_limit=100),
        make_cell("LSTM", setting="100 labels", train_limit=100),  # alone
    ]
    records = [make_record(cell, 0.5 + place / 10) for place, cell in enumerate(cells)]
    publish(tmp_path, cells, records, split_sizes={"train": 900, "val": 100, "test": 50})
    source = page_of(tmp_path).source
    drawing = source[source.index('id="plot-labels-title"') :].split("</svg>")[0]
    assert re.findall(r"<title>(row \d: [\d.]+ %)", drawing) == ["row 2: 60.0 %", "row 1: 50.0 %"]
    assert re.findall(r'class="tick middle">([\d,]+)<', drawing)


def test_accuracy_by_length_has_a_band_within_its_axes(tmp_path: Path) -> None:
    labels = [f"{number:02}" for number in range(20)] + [f"{number:03}" for number in range(20)]
    read = [text if place % (4 if place < 20 else 2) else "x" for place, text in enumerate(labels)]
    publish_readings(tmp_path, {"CTC": [read, read]}, labels)
    bands = [
        dict(attributes)["d"] for tag, attributes in page_of(tmp_path).elements if ("class", "band c0") in attributes
    ]
    assert len(bands) == 1
    ends = {float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", bands[0] or "")}
    assert len(ends) == 4
    assert 10 <= min(ends) <= max(ends) < 258  # between the ends of the axis
