"""A small builder of inline SVG: axes, lines, points with intervals, and alignments over images.

Colors are classes of `assets/page.css`, so a drawing follows the light or dark page around it. Text from data is
escaped, is never part of an attribute, and does not move anything else. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from decoderbench.report.figures_scale import AccuracyScale

COLORS, DASHES = 7, 4
"""How many colors and dashes of lines the style sheet knows."""

_CORNERS: tuple[tuple[tuple[float, float], ...], ...] = (
    (),  # a circle
    ((-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)),
    ((0, -4.5), (4.5, 3.5), (-4.5, 3.5)),
    ((0, -5), (5, 0), (0, 5), (-5, 0)),
    ((0, 4.5), (4.5, -3.5), (-4.5, -3.5)),
)
"""The shapes of points."""

MAX_TEXT = 34
"""The most characters of a text beside an axis; the rest is an ellipsis."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; of attribute names, `_` at the end is dropped and others become `-`. None is no attribute."""
    given = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _plain(value))
        for name, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(child if isinstance(child, Markup) else escape(visible(str(child))) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), given, inner)


def visible(text: str) -> str:
    r"""Return text with each character that cannot be seen as its escape, such as \x00; blanks stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _plain(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


@dataclass(frozen=True)
class Axis:
    """One axis of a plot: what it shows, its range, and where its values lie.

    Attributes:
        label: what is measured, with its unit.
        low: the value at its beginning.
        high: the value at its end.
        ticks: values with their texts.
        scale: values are transformed by it before they are placed.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[float], float] = float

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; beyond the ends, the end."""
        low, high = self.scale(self.low), self.scale(self.high)
        return min(1.0, max(0.0, (self.scale(min(self.high, max(self.low, value))) - low) / (high - low)))


def linear_axis(
    label: str, values: Sequence[float], *, bounds: tuple[float, float] = (-math.inf, math.inf), whole: bool = False
) -> Axis:
    """Return an axis that spans the values, from tick to tick but within `bounds`; `whole` numbers have whole ticks."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    low, high = max(low, bounds[0]), min(high, bounds[1])
    step = _step((high - low) / 5)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [(number * step, f"{number * step:,.{decimals}f}") for number in range(first, last + 1)]
    ticks = [tick for tick in ticks if bounds[0] - 1e-9 <= tick[0] <= bounds[1] + 1e-9]
    return Axis(label, max(bounds[0], first * step), min(bounds[1], last * step), ticks)


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """Return a logarithmic axis of positive values, with ticks at 1, 2 and 5 times powers of ten."""
    low, high = min(values) / 1.25, max(values) * 1.25
    return Axis(label, low, high, _log_ticks(low, high), math.log10)


def accuracy_axis(label: str, values: Sequence[float], shown: Sequence[float] = ()) -> Axis:
    """Return the axis of accuracies in percent, linear or by errors as `AccuracyScale` decides from the values of rows.

    Args:
        label: what is measured.
        values: of the rows.
        shown: what else has to lie within the axis, such as ends of intervals. No end of it is beyond 0 or 100.
    """
    scale = AccuracyScale.of(values)
    if scale.floor is None:
        return linear_axis(f"{label} (%)", [*values, *shown], bounds=(0, 100))
    low, high = max(0.0, min(*values, *shown, 100.0)), min(100.0, max(*values, *shown, 0.0))
    low = max(0.0, 100 - 1.3 * (100 - low) - 0.01)
    place = scale.place
    chosen: list[float] = []
    span = float(place(high)) - float(place(low))
    for tick in _ACCURACIES:
        if low <= tick <= high and all(abs(float(place(tick)) - float(place(one))) > 0.1 * span for one in chosen):
            chosen.append(tick)
    ticks = [(tick, f"{tick:.10g}") for tick in sorted(chosen)]
    return Axis(f"{label} ({scale.suffix})", low, high, ticks, lambda value: float(place(value)))


_ACCURACIES = (100.0, *(100 - factor * 10.0**-power for factor in (1, 5, 2, 3) for power in range(-2, 5)))
"""Accuracies that may be labeled on an axis of errors, the most wanted first."""


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return the ticks of the coarsest steps that give at least three; if none does, two or more at even steps."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        inside = [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]
        if len(inside) >= 3:
            break
    else:
        step = _step((high - low) / 5)  # at most half of the span, so that two ticks lie inside
        inside = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, f"{value:,.6g}") for value in inside]


@dataclass
class Plot:
    """A drawing with two axes. `x` or `y` of a mark are values of these axes.

    Attributes:
        x: the horizontal axis.
        y: the vertical axis.
        width: of the drawing, in units of which text is 12 high.
        height: likewise.
        left: where the vertical axis is.
        marks: what has been drawn.
    """

    x: Axis
    y: Axis
    width: int = 480
    height: int = 300
    left: int = 52
    marks: list[Markup] = field(default_factory=list)

    def line(self, points: Sequence[tuple[float, float]], row: int, *, thin: bool = False) -> None:
        """Draw a line through points in the style of a row."""
        places = [self._place(*point) for point in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        self._add(row, element("path", d=path, class_=f"line {line_style(row)}{' thin' if thin else ''}"))

    def band(self, places: Sequence[float], low: Sequence[float], high: Sequence[float], row: int) -> None:
        """Fill the space between two lines in the color of a row, below all that is drawn later."""
        there = [self._place(*point) for point in zip(places, low, strict=True)]
        back = [self._place(*point) for point in zip(places, high, strict=True)][::-1]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (*there, *back)) + "Z"
        self._add(row, element("path", d=path, class_=f"band c{row % COLORS}"))

    def point(
        self,
        x: float,
        y: float,
        row: int,
        *,
        y_interval: tuple[float, float] | None = None,
        x_interval: tuple[float, float] | None = None,
        text: str = "",
        number: str = "",
    ) -> None:
        """Draw a point in the style of a row, with its interval, a text to be shown on it and a number beside it."""
        parts = [element("title", text)] if text else []
        across, down = self._place(x, y)
        if y_interval:
            (_, low), (_, high) = self._place(x, y_interval[0]), self._place(x, y_interval[1])
            caps = "".join(f"M{across - 3:.1f} {end:.1f}h6" for end in (low, high))
            parts.append(element("path", d=f"M{across:.1f} {low:.1f}V{high:.1f}{caps}", class_=f"bar c{row % COLORS}"))
        if x_interval:
            (low, _), (high, _) = self._place(x_interval[0], y), self._place(x_interval[1], y)
            caps = "".join(f"M{end:.1f} {down - 3:.1f}v6" for end in (low, high))
            parts.append(element("path", d=f"M{low:.1f} {down:.1f}H{high:.1f}{caps}", class_=f"bar c{row % COLORS}"))
        parts.append(element("path", d=_shape(row, across, down), class_=f"mark c{row % COLORS}"))
        if number:
            parts.append(element("text", number, x=across + 7, y=down - 5, class_="number"))
        self._add(row, *parts)

    def dot(self, x: float, y: float, row: int, *, crossed: bool = False) -> None:
        """Draw a small dot, such as one seed of a row, or a cross."""
        across, down = self._place(x, y)
        if crossed:
            cross = f"M{across - 3:.1f} {down - 3:.1f}l6 6m0 -6l-6 6"
            self._add(row, element("path", d=cross, class_=f"bar c{row % COLORS}"))
        else:
            self._add(row, element("circle", cx=across, cy=down, r=2, class_=f"seed c{row % COLORS}"))

    def front(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw the line of a Pareto front through points, which rises where a point begins."""
        places = [self._place(*point) for point in points]
        path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
        self.marks.insert(0, element("path", d=f"{path}H{self.width - 20}", class_="front"))

    def guide(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw a line to compare with, such as that of perfect calibration."""
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (self._place(*point) for point in points))
        self.marks.insert(0, element("path", d=path, class_="guide"))

    def render(self, identity: str, title: str, description: str = "") -> Markup:
        """Return the drawing; `identity` is that of the element. Title and description are read to the blind."""
        return element(
            "svg",
            element("title", title, id=f"{identity}-title"),
            element("desc", description or title, id=f"{identity}-desc"),
            *self._frame(),
            *self.marks,
            class_="plot",
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_labelledby=f"{identity}-title {identity}-desc",
        )

    def _place(self, x: float, y: float) -> tuple[float, float]:
        inner = self.width - self.left - 20, self.height - 52
        return self.left + inner[0] * self.x.place(x), 10 + inner[1] * (1 - self.y.place(y))

    def _add(self, row: int, *parts: Markup) -> None:
        self.marks.append(element("g", *parts, data_row=row))

    def _frame(self) -> list[Markup]:
        right, bottom = self.width - 20, self.height - 42
        parts = []
        for value, text in self.x.ticks:
            x, _ = self._place(value, self.y.low)
            parts += [
                element("path", d=f"M{x:.1f} 10V{bottom}", class_="grid"),
                element("text", text, x=x, y=bottom + 15, class_="tick middle"),
            ]
        long = self.left > Plot.left
        for value, text in self.y.ticks:
            _, y = self._place(self.x.low, value)
            parts += [
                element("path", d=f"M{self.left} {y:.1f}H{right}", class_="grid"),
                element(
                    "text", text, x=0 if long else self.left - 6, y=y + 4, class_="tick start" if long else "tick end"
                ),
            ]
        middle = (self.left + right) / 2, (10 + bottom) / 2
        parts.append(element("text", self.x.label, x=middle[0], y=self.height - 6, class_="label middle"))
        if self.y.label:
            turn = f"rotate(-90 12 {middle[1]:.1f})"
            parts.append(element("text", self.y.label, x=12, y=middle[1], transform=turn, class_="label middle"))
        return parts


def line_style(row: int) -> str:
    """Return the classes of a row's line; the first 28 rows differ."""
    return f"c{row % COLORS} d{row // COLORS % DASHES}"


def swatch(row: int) -> Markup:
    """Return the line and point of a row, for a legend."""
    return element(
        "svg",
        element("path", d="M1 6H27", class_=f"line {line_style(row)}"),
        element("path", d=_shape(row, 14, 6), class_=f"mark c{row % COLORS}"),
        class_="swatch",
        viewBox="0 0 28 12",
        aria_hidden="true",
    )


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return at most `limit` characters of a text, the last one an ellipsis if any are left out."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _shape(row: int, x: float, y: float) -> str:
    corners = _CORNERS[(row // COLORS + row) % len(_CORNERS)]
    if not corners:
        return f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"
    return "M" + "L".join(f"{x + across:.1f} {y + down:.1f}" for across, down in corners) + "z"
