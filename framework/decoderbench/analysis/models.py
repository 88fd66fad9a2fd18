"""Names of models: the seeds of a row, and with folds those of each seed. No torch here."""

from __future__ import annotations

from collections.abc import Iterable

from decoderbench.config.cell import Cell
from decoderbench.data.folds import folds_text


def models_text(models: Iterable[tuple[int, int | None]]) -> str:
    """Return seeds and folds as in "seed 0", "seeds 0, 1" or "seed 0, fold 2 and seed 1, folds 0 to 4"."""
    folds: dict[int, list[int]] = {}
    for seed, fold in models:
        folds.setdefault(seed, []).extend([] if fold is None else [fold])
    seeds: dict[tuple[int, ...], list[int]] = {}
    for seed, own in folds.items():
        seeds.setdefault(tuple(own), []).append(seed)
    return " and ".join(
        f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}{f', {folds_text(own)}' if own else ''}"
        for own, of in seeds.items()
    )


def cells_text(cells: Iterable[Cell]) -> str:
    """Return the rows and models of cells, as in "ResNet / columns / CTC, seeds 0, 1"."""
    models: dict[str, list[tuple[int, int | None]]] = {}
    for cell in cells:
        models.setdefault(cell.variant_title, []).append((cell.seed, cell.fold))
    return "; ".join(f"{title}, {models_text(of)}" for title, of in models.items())
