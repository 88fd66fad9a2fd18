"""The images and labels of a run's cells: which data a process has open, and on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from decoderbench.data.audit import Audit
from decoderbench.data.image_store import ImageStore, read_store
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.errors import DataError, PendingCellsError
from decoderbench.training.devices import release_memory


@dataclass(frozen=True)
class DataSource:
    """Images and labels that cells have in common. It can be pickled once it is closed.

    Attributes:
        images: folder of the decoded images.
        audit: labels, splits and charset.
        dataset: name of the dataset component.
        store: the images as opened in this process; None in another one.
    """

    images: Path
    audit: Audit
    dataset: str
    store: ImageStore | None = None

    def closed(self) -> DataSource:
        """Return it without the opened images, which another process maps itself."""
        return replace(self, store=None)

    def open(self) -> ImageStore:
        """Return the images; raise `PendingCellsError` if they are gone."""
        try:
            return self.store or read_store(self.images)
        except DataError as error:
            raise PendingCellsError(f"{error}") from error


class ResidentData:
    """The data of cells, opened when a cell needs them.

    On the CPU, images are mapped files, and all that were opened stay open. On CUDA, those of one cell are on the
    device at a time: others would take the memory that training needs.
    """

    def __init__(self, sources: Mapping[str, DataSource], device: torch.device) -> None:
        self.sources, self.device = sources, device
        self._opened: dict[str, ResidentDataset] = {}

    def of(self, key: str) -> ResidentDataset:
        """Return the data with this `data_key`.

        Raises:
            PendingCellsError: the images are gone, or damaged.
        """
        if key not in self._opened:
            source = self.sources[key]
            store = source.open()
            if self.device.type != "cpu" and self._opened:
                self._opened.clear()
                release_memory(self.device)
            self._opened[key] = ResidentDataset(store, source.audit, self.device)
        return self._opened[key]
