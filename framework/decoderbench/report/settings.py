"""How the cells of a plan are trained and evaluated, as text: the settings of every report. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from decoderbench.config.cell import Cell
from decoderbench.config.learning_notes import learning_notes, name_settings
from decoderbench.data.folds import folds_text
from decoderbench.data.train_limit import merge_sizes
from decoderbench.options import LearningRateFactors, Stage
from decoderbench.records.schema import Plan

KEPT = {"best": "the best on the validation split", "last": "the last"}
RESIZED = {
    "stretch": "stretched to this size",
    "pad": "resized to this height, squeezed or padded to this width",
    "keep": "resized to this height, squeezed to at most this width",
}


def settings_of(plan: Plan) -> list[str]:
    """Return one line per setting, with the rows that each value belongs to where they differ.

    Rows that have not chosen their values by tuning are left out.
    """
    cells = [cell for cell in plan.cells if cell.purpose != "undecided"]
    if not cells:
        return ["no row has chosen its values yet"]
    trained: dict[tuple[str, ...], list[int]] = {}
    for cell in cells:
        trained.setdefault(cell.variant, []).append(plan.split_sizes_of(cell).get("train", 0))
    settings: list[tuple[str, Callable[[Cell], str]]] = [
        ("optimizer", lambda cell: "AdamW"),
        ("learning rate", lambda cell: f"{cell.training.learning_rate:g} at its peak"),
        ("warm-up", lambda cell: f"linear, {cell.training.warmup_steps:,} steps"),
        ("decay of the learning rate", _decay),
        ("weight decay", lambda cell: f"{cell.training.weight_decay:g}, decoupled, not of biases and norms"),
        ("clip norm", lambda cell: f"{cell.training.clip_norm:g}"),
        ("steps", lambda cell: f"{cell.training.steps:,}"),
        ("batch size", lambda cell: f"{cell.training.batch_size:,} images"),
        ("epochs", lambda cell: _epochs(cell, trained[cell.variant])),
        *(
            (name, read)
            for name, read in (
                ("starts from", lambda cell: cell.start_title or "weights of its own"),
                ("frozen", lambda cell: ", ".join(cell.training.freeze) or "none"),
                ("learning rate factors", _factors),
            )
            if any(read(cell) != read(_plain(cell)) for cell in cells)
        ),
        ("precision", lambda cell: cell.training.precision),
        ("weights tested", _weights_tested),
        ("augmentation", _augmentation),
        ("images", _images),
        (
            "evaluation",
            lambda cell: f"batches of {cell.evaluation.batch_size:,}, beam size {cell.evaluation.beam_size}",
        ),
    ]
    trainers = dict.fromkeys(name for cell in cells for name in cell.trainers)
    return [
        *(f"{name}: {_by_value(cells, read)}" for name, read in settings),
        *(f"setting {label}: {changes}" for label, changes in plan.settings.items()),
        *(f"chosen from the data: {choice}" for choice in plan.recipe),
        *([f"plugins that may train otherwise: {', '.join(trainers)}"] if trainers else []),
    ]


def notes_on_learning(plan: Plan) -> list[str]:
    """Return footnotes on settings with which cells cannot learn, or cannot show it."""
    decided = (cell for cell in plan.cells if not cell.trainers and cell.purpose != "undecided")
    own: dict[tuple[object, ...], dict[int | None, Cell]] = {}
    for cell in decided:
        own.setdefault((cell.setting, cell.data_key, cell.train_limit, cell.training), {})[cell.fold] = cell
    notes = [
        (cell.setting, learning_notes(cell.training, merge_sizes(sizes) if all(sizes) else {}))
        for cell, sizes in (
            (next(iter(of.values())), list(map(plan.split_sizes_of, of.values()))) for of in own.values()
        )
    ]
    return name_settings(notes, {cell.setting for cell in plan.cells})


def _by_value(cells: Sequence[Cell], read: Callable[[Cell], str]) -> str:
    """Return the value of all cells, or each value with the settings or else the rows that have it."""
    rows: dict[str, dict[str, None]] = {}
    settings: dict[str, dict[str, None]] = {}
    values: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for cell in cells:
        values.setdefault(cell.variant, {}).setdefault(read(cell), []).extend([] if cell.fold is None else [cell.fold])
    for cell in cells:
        value = read(cell)
        of_row = values[cell.variant]
        folds = f", {folds_text(of_row[value])}" if len(of_row) > 1 and of_row[value] else ""  # chosen within each
        rows.setdefault(value, {})[f"{cell.variant_title}{folds}"] = None
        settings.setdefault(value, {})[cell.setting] = None
    if len(rows) == 1:
        return next(iter(rows))
    if sum(map(len, settings.values())) == len({cell.setting for cell in cells}):  # no setting has two values
        rows = {value: {f"setting {', '.join(labels)}": None} for value, labels in settings.items()}
    return "; ".join(f"{value} ({', '.join(titles)})" for value, titles in rows.items())


def _weights_tested(cell: Cell) -> str:
    decay = cell.training.ema_decay
    return KEPT[cell.training.keep] + (f", of an exponential moving average with decay {decay:g}" if decay else "")


def _plain(cell: Cell) -> Cell:
    """Return a cell as it would be without trained weights to start from."""
    training = cell.training.model_copy(update={"freeze": (), "learning_rate_factors": LearningRateFactors()})
    return cell.model_copy(update={"start": None, "training": training})


def _factors(cell: Cell) -> str:
    given = cell.training.learning_rate_factors
    return ", ".join(f"{stage} {given.of(stage):g}" for stage in get_args(Stage) if given.of(stage) != 1) or "none"


def _decay(cell: Cell) -> str:
    left = cell.training.steps - cell.training.warmup_steps
    return f"to zero along a cosine, {left:,} steps" if left > 0 else "none, because the warm-up does not end"


def _epochs(cell: Cell, num_train: Sequence[int]) -> str:
    """Return the epochs of a row, as far as the training images of all its cells are known; folds may differ."""
    low, high = min(num_train), max(num_train)
    if not low:
        return "not known"
    count = cell.training.steps * cell.training.batch_size / low
    return f"{count:.3g} of {low:,}{f' to {high:,}' * (low < high)} training images"


def _augmentation(cell: Cell) -> str:
    active = {name: value for name, value in cell.augmentation.model_dump().items() if value}
    return ", ".join(f"{name} up to {value:g}" for name, value in active.items()) or "none"


def _images(cell: Cell) -> str:
    image = cell.image
    color = "gray" if image.channels == 1 else "RGB"
    return f"{image.height} x {image.width} pixels (height x width), {color}, {RESIZED[image.resize]}"
