"""The images of the page: what every row read on them, and where it looked. No torch here."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from rapidfuzz.distance import Levenshtein

from decoderbench.alignments import Alignment
from decoderbench.analysis.gallery import KINDS, Picture, data_hash_of
from decoderbench.analysis.kept_images import KeptImage
from decoderbench.analysis.samples import Samples
from decoderbench.report.svg import element, shorten, visible

MAX_READINGS = 8
"""The most different readings of an image that are shown, the most frequent first."""

_LONGEST_PART = 60
_MAX_PARTS = 40


@dataclass(frozen=True)
class Part:
    """A part of a reading: `same` as in the label, `wrong` in place of it or added, or `missing` from the reading."""

    kind: str
    text: str


@dataclass(frozen=True)
class Reading:
    """A text that some cells have read: its parts, whether it is right, how many cells read it, and which rows."""

    parts: Sequence[Part]
    right: bool
    num_cells: int
    rows: str


@dataclass(frozen=True)
class Shown:
    """A test image of the gallery with all its readings; `wrong_rows` are the numbers of rows that misread it."""

    picture: Picture
    image: KeptImage | None
    number: int
    readings: Sequence[Reading]
    num_more: int
    num_right: int
    num_cells: int
    wrong_rows: str

    @property
    def reason(self) -> str:
        """Why it is shown."""
        return KINDS[self.picture.kind]


@dataclass(frozen=True)
class Look:
    """Where a row looked while it read an image: the drawing, and label and position of the row."""

    drawing: Markup
    label: str
    row: int


def gallery_of(
    samples: Samples, pictures: Sequence[Picture], images: Mapping[tuple[str, str], KeptImage]
) -> list[Shown]:
    """Return the images of the gallery, each with the readings of all rows and seeds."""
    frames = {
        row: [frame for seed in samples.seeds if (frame := samples.frame(row, seed)) is not None]
        for row in range(len(samples.titles))
    }
    texts = {row: [frame["hypothesis"].tolist() for frame in of_row] for row, of_row in frames.items()}
    return [
        _show(number, picture, images.get((data_hash_of(samples, picture.image_set), picture.sample)), {
            row: [own[picture.position] for own in texts[row]] for row in samples.rows_of(picture.image_set)
        })
        for number, picture in enumerate(pictures, start=1)
    ]  # fmt: skip


def _show(number: int, picture: Picture, image: KeptImage | None, read: Mapping[int, Sequence[str]]) -> Shown:
    cells: dict[str, dict[int, int]] = {}
    for row, texts in read.items():
        for text in texts:
            of_text = cells.setdefault(text, {})
            of_text[row] = of_text.get(row, 0) + 1
    order = sorted(cells, key=lambda text: (-sum(cells[text].values()), text))
    readings = [
        Reading(
            differences(picture.reference, text),
            text == picture.reference,
            sum(cells[text].values()),
            _name_rows({row: (times, len(read[row])) for row, times in cells[text].items()}, len(read)),
        )
        for text in order
    ]
    wrong = [row for row, texts in read.items() if any(text != picture.reference for text in texts)]
    return Shown(
        picture,
        image,
        number,
        readings[:MAX_READINGS],
        max(0, len(readings) - MAX_READINGS),
        sum(cells.get(picture.reference, {}).values()),
        sum(map(len, read.values())),
        " ".join(str(row + 1) for row in wrong),
    )


def _name_rows(found: Mapping[int, tuple[int, int]], num_rows: int) -> str:
    """Return rows as in "rows 1 to 4, 7 (2 of 3 seeds)"."""
    whole = [row for row, (times, of) in found.items() if times == of]
    parts = [] if not whole else [_ranges(whole)]
    parts += [f"{row + 1} ({times} of {of} seeds)" for row, (times, of) in found.items() if times < of]
    if len(whole) == num_rows and num_rows > 1:
        return "all rows"
    return f"row{'s' if len(found) > 1 else ''} {', '.join(parts)}"


def _ranges(rows: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for row in sorted(rows):
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return ", ".join(
        f"{run[0] + 1} to {run[-1] + 1}" if len(run) > 2 else ", ".join(str(row + 1) for row in run) for run in runs
    )


def differences(reference: str, hypothesis: str) -> list[Part]:
    """Return a reading in parts that show how it differs from its label; long equal parts are cut in the middle."""
    parts = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        before = reference[edit.src_start : edit.src_end]
        after = hypothesis[edit.dest_start : edit.dest_end]
        if edit.tag == "equal":
            parts.append(Part("same", _shown(after)))
        else:
            parts += [Part("wrong", _shown(after))] if after else []
            parts += [Part("missing", _shown(before))] if before and not after else []
    return [*parts[:_MAX_PARTS], Part("same", "…")] if len(parts) > _MAX_PARTS else parts


def _shown(text: str) -> str:
    """Return a part of a text as it is shown: blanks stay, other characters that cannot be seen are escapes."""
    if len(text) > 2 * _LONGEST_PART:
        text = f"{text[:_LONGEST_PART]}…{text[-_LONGEST_PART:]}"
    return visible(text)


def alignments_of(
    samples: Samples,
    images: Mapping[tuple[str, str], KeptImage],
    drawn: Sequence[Sequence[Alignment]],
    labels: Sequence[str],
) -> dict[str, list[Look]]:
    """Return for each test image whose alignments are known where every row looked.

    Args:
        samples: the predictions of all rows.
        images: the kept images.
        drawn: the alignments of each row.
        labels: of the rows.
    """
    found: dict[str, list[Look]] = {}
    for row, (label, of_row) in enumerate(zip(labels, drawn, strict=True)):
        hashes = dict.fromkeys(cell.data_hash for cell in samples.cells(row))
        for number, one in enumerate(of_row, start=1):
            image = next((images[name, one.sample] for name in hashes if (name, one.sample) in images), None)
            drawing = alignment_drawing(f"look-{row + 1}-{number}", one, image)
            found.setdefault(one.sample, []).append(Look(drawing, label, row))
    return found


def alignment_drawing(identity: str, alignment: Alignment, image: KeptImage | None) -> Markup:
    """Draw an alignment (S, T) over its image: one band per character, from top to bottom, dark where it was read from.

    Args:
        identity: of the element.
        alignment: of one reading.
        image: as the row saw it; None: it is not there.
    """
    weights, text = alignment.weights, alignment.text
    count = len(weights)
    height = 15 * count
    parts = []
    box = {"x": 18, "y": 0, "width": 180, "height": height, "preserveAspectRatio": "none"}
    if image:
        parts.append(element("image", href=image.uri, class_="under", **box))
    parts.append(element("image", href=heat_uri(weights), class_="heat", **box))
    for place in range(count):
        character = _shown(text[place]) if place < len(text) else "∎"
        parts.append(element("text", character, x=8, y=15 * place + 11.5, class_="tick middle"))
    return element(
        "svg",
        element("title", f"Alignment of the reading {shorten(text, 80)}", id=f"{identity}-title"),
        *parts,
        class_="look",
        viewBox=f"0 0 200 {height}",
        role="img",
        aria_labelledby=f"{identity}-title",
    )


def heat_uri(weights: NDArray[np.float32]) -> str:
    """Return an image of (S, T) pixels whose opacity is the weight, relative to the largest of its line."""
    clean = np.nan_to_num(np.clip(weights, 0, 1))
    relative = clean / np.maximum(clean.max(axis=1, keepdims=True), 1e-9)
    levels = np.round(15 * relative).astype(np.uint8)
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette([channel for _ in range(16) for channel in (213, 94, 0)])
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True, bits=4, transparency=bytes(level * 13 for level in range(16)))
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
