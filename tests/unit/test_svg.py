"""The builder of drawings: values stay within their axes, and text is escaped."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decoderbench.report.svg import Plot, accuracy_axis, element, linear_axis, log_axis, swatch, visible

accuracies = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@given(accuracies, accuracies)
def test_accuracy_axis_places_all_values_and_no_tick_beyond_0_and_100(values: list[float], shown: list[float]) -> None:
    axis = accuracy_axis("Exact match", values, shown)
    assert 0 <= axis.low < axis.high <= 100
    assert axis.low <= min(*values, *shown)
    assert max(*values, *shown) <= axis.high
    places = [axis.place(value) for value in sorted([*values, *shown])]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert all(axis.low <= tick <= axis.high and float(text) == pytest.approx(tick) for tick, text in axis.ticks)


def test_accuracy_axis_is_of_errors_where_rows_lie_above_95() -> None:
    axis = accuracy_axis("Exact match", [90.0, 99.0, 99.9], [85.0])
    assert "error scale" in axis.label
    steps = [axis.place(value) for value in (90.0, 99.0, 99.9)]
    assert steps[1] - steps[0] == pytest.approx(steps[2] - steps[1], rel=0.2)
    assert "error scale" not in accuracy_axis("Exact match", [50.0, 60.0]).label


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6))
@example([1.9375])
def test_log_axis_spans_its_values_and_has_ticks_that_can_be_read(values: list[float]) -> None:
    axis = log_axis("Time (ms)", values)
    assert axis.low < min(values)
    assert max(values) < axis.high
    assert len(axis.ticks) >= 2
    assert all(axis.low <= tick <= axis.high for tick, _ in axis.ticks)
    middle = math.sqrt(axis.low * axis.high)
    assert axis.place(middle) == pytest.approx(0.5)


def test_linear_axis_of_whole_numbers_has_whole_ticks() -> None:
    assert [text for _, text in linear_axis("Position", [1, 2, 3, 4], whole=True).ticks] == ["1", "2", "3", "4"]
    assert linear_axis("Steps", [0, 1500]).ticks[-1][1] == "1,500"


def test_interval_beyond_the_axis_ends_at_the_axis() -> None:
    plot = Plot(linear_axis("x", [0, 1]), linear_axis("y", [0, 100], bounds=(0, 100)))
    plot.point(0.5, 99.0, 0, y_interval=(90.0, 104.0))
    drawing = ElementTree.fromstring(plot.render("p", "A plot"))
    (bar,) = (path for path in drawing.iter("path") if "bar" in path.get("class", ""))
    top = float(re.findall(r"V([\d.]+)", bar.get("d", ""))[0])
    assert top == 10.0


def test_drawing_has_a_title_and_a_description_that_it_is_labeled_by() -> None:
    drawing = ElementTree.fromstring(Plot(linear_axis("x", [0, 1]), linear_axis("y", [0, 1])).render("p", "A < plot"))
    assert drawing.get("aria-labelledby") == "p-title p-desc"
    assert [(child.tag, child.text) for child in drawing][:2] == [("title", "A < plot"), ("desc", "A < plot")]


def test_element_escapes_text_and_attributes_and_shows_what_cannot_be_seen() -> None:
    made = element("text", "<b>\x00&", class_='"><i>', x=1.0, data_row=3, href=None)
    assert made == '<text class="&#34;&gt;&lt;i&gt;" x="1" data-row="3">&lt;b&gt;\\x00&amp;</text>'
    assert visible("a\u202eb c") == "a\\u202eb c"


def test_28_rows_have_styles_of_their_own() -> None:
    assert len({swatch(row) for row in range(28)}) == 28
