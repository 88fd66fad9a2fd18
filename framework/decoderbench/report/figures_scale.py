"""The axis of accuracies in percent, linear or by errors where the best rows are nearly perfect, and that of costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEARLY_PERFECT = 95.0
_TICKS = [
    100.0,
    *(100 - 10.0**-power for power in range(-2, 7)),
    *(100 - 5 * 10.0**-power for power in range(-1, 7)),
    *(100 - 2 * 10.0**-power for power in range(-1, 7)),
    *(100 - 3 * 10.0**-power for power in range(-1, 7)),
]
"""Accuracies that may be labeled on an error scale, the most wanted first."""

_APART = 0.07
"""The least distance of two labels, as a share of the axis."""


@dataclass(frozen=True)
class AccuracyScale:
    """Where an accuracy between 0 and 100 percent stands on an axis.

    On the error scale it stands at -log10(100 + `floor` - accuracy): equal ratios of errors are equally far apart, as
    99.1 and 99.55 or 90 and 95 are. `floor` keeps 100 on the axis: it is half of the smallest error above 0 of the
    values that the scale was chosen for.
    """

    floor: float | None
    """None: the scale is linear."""

    @classmethod
    def of(cls, values: Iterable[float]) -> AccuracyScale:
        """Return the scale for the values of rows: by errors if two of them, or the only one, lie above 95 percent."""
        known = np.array([value for value in values if np.isfinite(value)])
        if not len(known) or (known > _NEARLY_PERFECT).sum() < min(2, len(known)):
            return cls(None)
        errors = 100 - known[known < 100 - 1e-9]
        return cls(float(errors.min()) / 2 if len(errors) else 0.5)

    @property
    def suffix(self) -> str:
        """What the label of the axis says of the scale."""
        return "%" if self.floor is None else "%, error scale"

    def place(self, accuracy: ArrayLike) -> NDArray[np.float64]:
        """Return the positions of accuracies."""
        values = np.asarray(accuracy, dtype=np.float64)
        if self.floor is None:
            return values
        return -np.log10(np.maximum(100 + self.floor - values, self.floor / 100))

    def accuracy(self, place: ArrayLike) -> NDArray[np.float64]:
        """Return the accuracies at positions."""
        values = np.asarray(place, dtype=np.float64)
        return values if self.floor is None else 100 + self.floor - 10.0**-values

    def apply(self, axes: Axes, which: Literal["x", "y"], shown: Iterable[float]) -> None:
        """Set scale, limits and ticks of an axis such that all `shown` accuracies lie within it."""
        known = np.array([value for value in shown if np.isfinite(value)])
        low, high = self.place([known.min(), known.max()]).tolist() if len(known) else self.place([0, 100]).tolist()
        margin = max(0.06 * (high - low), 1.0 if self.floor is None else 0.05)
        low, high = low - margin, high + margin
        if self.floor is not None:
            getattr(axes, f"set_{which}scale")("function", functions=(self.place, self.accuracy))
        getattr(axes, f"set_{which}lim")(*self.accuracy([low, high]).tolist())
        ticks = self._ticks(low, high)
        getattr(axes, f"set_{which}ticks")(ticks, [f"{tick:.10g}" for tick in ticks])

    def _ticks(self, low: float, high: float) -> list[float]:
        from matplotlib.ticker import MaxNLocator

        first, last = (min(max(end, 0.0), 100.0) for end in self.accuracy([low, high]).tolist())
        located = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(first, last)
        even = [tick for tick in located if first <= tick <= last]
        if self.floor is None:
            return even
        chosen: list[float] = []
        for tick in _TICKS:
            place = float(self.place(tick))
            if low <= place <= high and all(abs(place - self.place(other)) > _APART * (high - low) for other in chosen):
                chosen.append(tick)
        return sorted(chosen) if len(chosen) > 2 else even


def set_log_scale(axes: Axes, low: float, high: float) -> None:
    """Set a logarithmic x axis whose ticks are plain numbers, also within one decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 8 else MaxNLocator(7, min_n_ticks=2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:.10g}"))
