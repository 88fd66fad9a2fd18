"""What all figures share: colors, markers, labels, the legend, and the bytes of their files.

matplotlib imports slowly, so only drawing imports it.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.report.tables import to_single_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito 2008: distinguishable with every kind of color vision. Yellow is omitted, as it is too pale on white.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_DASHES = ["-", "--", ":", "-."]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h"]
_LABEL_WIDTH = 36
"""The most characters in a line of a label."""

_LINE_HEIGHT = 0.16
"""Inches per line of a legend."""


@dataclass(frozen=True)
class Style:
    """How a row is drawn; 77 styles are distinct, also without color by marker and dash for the first 44."""

    color: str
    dash: str
    marker: str


def style_of(position: int) -> Style:
    """Return the style of a row by its position, or by that of its kind."""
    return Style(
        COLORS[position % len(COLORS)],
        _DASHES[position // len(COLORS) % len(_DASHES)],
        _MARKERS[position % len(_MARKERS)],
    )


def label_of(parts: Sequence[str], name: str = "") -> str:
    """Return the label of a row in figures: its name if it has one, else its labels, wrapped to short lines."""
    return wrap(name or " / ".join(filter(None, parts)))


def wrap(text: str) -> str:
    """Return a text of printable characters, in lines."""
    return textwrap.fill(to_single_line(text), _LABEL_WIDTH)


@dataclass(frozen=True)
class Drawing:
    """A figure as the bytes of its two files; the same numbers give the same bytes."""

    caption: str
    svg: bytes
    pdf: bytes


def draw(caption: str, paint: Callable[[Figure], None]) -> Drawing:
    """Return what `paint` draws on an empty figure."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # SVG keeps text as text, so a glyph missing here may exist in the font of the reader.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "decoderbench",
                "svg.fonttype": "none",
                "pdf.fonttype": 42,  # publishers refuse fonts of type 3
                "font.size": 9,
                "lines.markersize": 5,
                "axes.titlesize": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": "0.9",
                "grid.linewidth": 0.6,
            }
        )
        figure = Figure(figsize=(9, 4.8), dpi=72, layout="constrained")  # at 72 dpi, a pixel is a point
        paint(figure)
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)  # once for both files
            figure.set_layout_engine(None)
        svg, pdf = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return Drawing(caption, svg.getvalue(), pdf.getvalue())


def without_glyph(texts: Iterable[str]) -> str:
    """Return the characters of texts that the font of figures lacks: a PDF shows boxes for them."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(
        sorted({sign for text in texts for sign in text if sign != "\n" and not font.get_char_index(ord(sign))})
    )


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Add a legend to the right of a figure, and make the figure high enough for it."""
    height = _LINE_HEIGHT * sum(label.count("\n") + 1.3 for label in labels)
    figure.set_figheight(max(figure.get_figheight(), height))
    # Labels are set afterwards, because `legend` ignores labels that start with an underscore.
    legend = figure.legend(handles, [""] * len(handles), loc="outside right upper", frameon=False, fontsize=8)
    write_literally(legend.get_texts(), labels)


def write_literally(texts: Sequence[Text], labels: Sequence[str]) -> None:
    """Write labels that may hold any character; none of them begins a formula."""
    for text, label in zip(texts, labels, strict=True):
        text.set(text=label, parse_math=False)


def shown_rows(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a report with the columns `label` and `style`; `axes` are the stages that tell them apart."""
    labels = [label_of([row[axis] for axis in axes], row["name"]) for row in rows[[*axes, "name"]].to_dict("records")]
    styles = [style_of(position) for position in range(len(rows))]
    return rows.assign(label=labels, style=pd.Series(styles, index=rows.index, dtype=object))
