"""Hugging Face datasets: a folder or Parquet file on disk, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, final

from PIL.Image import Image
from pydantic import Field, model_validator

from decoderbench import ARCHIVE_SUFFIXES, ComponentConfig, ConfigError, DataError, Dataset, Sample, Split

from .named_splits import choose_splits, describe_splits

if TYPE_CHECKING:
    import datasets

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
HUB_TIMEOUT_SECONDS = 5


@final
class HuggingFace(Dataset):
    """A dataset of the `datasets` library with a column of images and one of texts.

    `path` is a folder written by `save_to_disk`, a folder that `load_dataset` can read, a Parquet file, or, if nothing
    of that name is on disk, a dataset on the hub. Code that comes with a dataset is never run: the library stopped
    running it in version 4. Keys of samples are a split and a row, counted from 0: `train/000000012`.
    """

    name = "hf"

    class Config(ComponentConfig):
        """Options of `hf`."""

        path: str = ""
        """Folder or Parquet file, relative to the experiment file; or a name on the hub, such as owner/name."""
        config_name: str | None = None
        """Configuration (subset) of the dataset, if it has several."""
        revision: str | None = None
        """Branch, tag or commit, for a name on the hub; default: the current main branch."""
        train_split: str | None = None
        """Split to train on; if not set, the one that is named so in a common spelling, such as train or training."""
        val_split: str | None = None
        """Split to validate on; if not set, the one named validation, valid, val or dev. If there is none, part of
        train is used."""
        test_split: str | None = None
        """Split to test on; if not set, the one named test or testing, or eval if there is no test. If there is none
        and test_fraction is above 0, that share of train is used."""
        val_fraction: float = Field(default=0.1, gt=0, lt=1)
        """Share of the training split to validate on if there is no split for it."""
        test_fraction: float = Field(default=0.0, ge=0, lt=1)
        """Share of the training split to test on if there is no split for it."""
        split_seed: int = 0
        """Another seed takes other samples of the training split."""
        image_column: str = "image"
        """Column of images: an Image, or the bytes of image files."""
        label_column: str = "label"
        """Column of texts; a class label is replaced by its name."""

        @model_validator(mode="after")
        def _check_options(self) -> Self:
            given = list(filter(None, (self.train_split, self.val_split, self.test_split)))
            if len(set(given)) < len(given):
                raise ValueError("train_split, val_split and test_split must differ")
            if self.image_column == self.label_column:
                raise ValueError("image_column and label_column must differ")
            if self.val_fraction + self.test_fraction >= 1:
                raise ValueError("val_fraction and test_fraction leave nothing to train on; lower them")
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def notes(self) -> Sequence[str]:
        notes = [f"labels are the class names of column {self.config.label_column!r}"] * self._has_classes
        if self._revision is not None:
            notes.append(f"hub: {self.config.path} at revision {self._revision}")
        if others := [
            f"{name} ({len(table):,} samples)" for name, table in self._loaded.items() if name not in self._splits
        ]:
            notes.append(f"unused splits (see val_split and test_split): {', '.join(others)}")
        return notes

    def label_source(self) -> str:
        classes = ", the names of its classes" if self._has_classes else ""
        return f"column {self.config.label_column!r} of {self.config.path}{classes}"

    def split_source(self) -> str:
        return describe_splits(self._roles, self._dealt, self.config.split_seed)

    def load_image(self, index: int) -> Image:
        split, _, row = self._samples[index].key.rpartition("/")
        return self.decode(BytesIO(self._content(self._splits[split][int(row)][self.config.image_column])))

    def fingerprint(self) -> str:
        # The library's own fingerprint depends on how a table was made, not on the content of its files.
        digest = hashlib.sha256(self._rows_digest.encode())
        done = 0
        for table in self._splits.values():
            for row in self._images(table):
                self.report_progress(done, len(self._samples))
                done += 1
                try:
                    content = self._content(row)
                except (DataError, OSError) as error:  # reported when the image is decoded
                    content = f"unreadable: {type(error).__name__}".encode()
                digest.update(len(content).to_bytes(8))
                digest.update(content)
        return digest.hexdigest()

    def stamp(self) -> str | None:
        files = {str(file["filename"]) for table in self._splits.values() for file in table.cache_files}
        if not files:
            return None  # the tables are in memory
        states = [Path(file).stat() for file in sorted(files | self._image_files)]
        if max(max(state.st_mtime, state.st_ctime) for state in states) > time.time() - 2:
            return None  # another change could get the same time
        rows = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
        return _digest([self._rows_digest, self.config.image_column, sorted(files | self._image_files), rows])

    @cached_property
    def _local(self) -> Path | None:
        """The folder or file on disk, or None if the dataset is on the hub."""
        given = self.config.path
        path = self.base_dir / Path(given).expanduser()
        if given and path.exists():
            return path.resolve()
        if not HUB_NAME.fullmatch(given):
            raise DataError(
                f"path {given!r} of dataset hf is neither on disk ({path}) nor a name on the hub; check the option path"
            )
        return None

    @cached_property
    def _loaded(self) -> dict[str, datasets.Dataset]:
        """Every split of the dataset, as loaded by the library."""
        library = _library()
        config, path, revision = self.config, self._local, self._revision
        if path is not None:
            _refuse_archives(path)
        try:
            with _no_progress_bars(library):
                if path is None:
                    found = library.load_dataset(config.path, config.config_name, revision=revision)
                elif path.is_file():
                    found = library.load_dataset("parquet", data_files={config.train_split or "train": str(path)})
                elif (path / "dataset_dict.json").exists() or (path / "state.json").exists():
                    found = library.load_from_disk(str(path), keep_in_memory=False)
                else:
                    found = library.load_dataset(str(path), config.config_name)
        except Exception as error:  # the library, pyarrow and fsspec raise many types
            lines = str(error).strip().splitlines() or [""]
            raise DataError(
                f"dataset {config.path!r} cannot be loaded: {type(error).__name__}: {lines[0]}; check the options "
                "path, config_name and revision"
            ) from error
        return dict(found) if isinstance(found, dict) else {config.train_split or "train": found}

    @cached_property
    def _revision(self) -> str | None:
        """The commit on the hub, requested once with a short timeout; None for a dataset on disk or in offline mode."""
        if self._local is not None:
            return None
        library, config = _library(), self.config
        if library.config.HF_HUB_OFFLINE:
            if config.revision is not None:
                raise DataError(
                    "revision cannot be checked in offline mode; unset HF_HUB_OFFLINE or the option revision"
                )
            return None
        from huggingface_hub import HfApi

        try:
            # The library itself would retry for half a minute, and its error has less detail.
            info = HfApi().dataset_info(config.path, revision=config.revision, timeout=HUB_TIMEOUT_SECONDS)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise DataError(
                f"{config.path!r} is not on disk in {self.base_dir.resolve()}, and the hub cannot provide it: "
                f"{type(error).__name__}: {lines[0]}; correct path or revision, set HF_HUB_OFFLINE=1 to use an earlier "
                "download, or call save_to_disk on a machine with network access and set path to that folder"
            ) from error
        return info.sha

    @cached_property
    def _roles(self) -> dict[Split, str]:
        """The name of the split that train, val and test each are, without those that are dealt from train."""
        config, names = self.config, list(self._loaded)
        given = {"train": config.train_split, "val": config.val_split, "test": config.test_split}
        roles = choose_splits(names, cast("dict[Split, str | None]", given), what=f"dataset {config.path!r}")
        needed: tuple[Split, ...] = ("train",) if config.test_fraction else ("train", "test")
        if missing := [role for role in needed if role not in roles]:
            raise DataError(
                f"dataset {config.path!r} has no split for {missing[0]}; it has: {', '.join(names)}; check the options "
                "train_split, val_split, test_split and test_fraction"
            )
        return roles

    @property
    def _dealt(self) -> dict[Split, float]:
        """The share of train that val and test each get where the dataset has no split for them."""
        shares: dict[Split, float] = {"val": self.config.val_fraction, "test": self.config.test_fraction}
        return {role: share for role, share in shares.items() if role not in self._roles}

    @cached_property
    def _splits(self) -> dict[str, datasets.Dataset]:
        """The splits in use, reduced to two columns, with images not decoded."""
        library, config = _library(), self.config
        found, tables = self._loaded, {}
        for split in self._roles.values():
            table = found[split].with_format(None)
            for column in (config.image_column, config.label_column):
                if column not in table.column_names:
                    raise DataError(
                        f"split {split!r} of dataset {config.path!r} has no column {column!r}; it has: "
                        f"{', '.join(table.column_names)}; check the options image_column and label_column"
                    )
            kind = table.features[config.image_column]
            if not isinstance(kind, library.Image) and getattr(kind, "dtype", "") not in ("binary", "large_binary"):
                raise DataError(f"image_column {config.image_column!r} is of type {kind}; it must be Image or binary")
            table = table.select_columns([config.image_column, config.label_column])
            tables[split] = table.cast_column(config.image_column, library.Image(decode=False))
            try:
                tables[split].data.validate(full=True)  # a corrupt offset would cause a read beyond the file
            except Exception as error:
                raise DataError(
                    f"split {split!r} of dataset {config.path!r} is corrupt: {error}; copy it again"
                ) from error
        return tables

    @cached_property
    def _has_classes(self) -> bool:
        kinds = [table.features[self.config.label_column] for table in self._splits.values()]
        return any(isinstance(kind, _library().ClassLabel) for kind in kinds)

    def _labels(self, split: str) -> list[str]:
        column = self.config.label_column
        table = self._splits[split].select_columns([column])
        kind, values = table.features[column], table[:][column]
        if isinstance(kind, _library().ClassLabel):
            values = [kind.names[value] if value is not None and value >= 0 else None for value in values]
        if others := [row for row, value in enumerate(values) if not isinstance(value, str)]:
            first = others[0]
            self.report_problem(
                f"{split}/{first:09d}: label_column {column!r} has {values[first]!r} of type {kind}; it must be text"
                + f"; {len(others):,} such labels in all" * (len(others) > 1)
            )
        return list(map(str, values))

    @cached_property
    def _samples(self) -> list[Sample]:
        config, samples = self.config, list[Sample]()
        val, test = self._dealt.get("val", 0.0), self._dealt.get("test", 0.0)
        for role, split in self._roles.items():
            labels = self._labels(split)
            keys = [f"{split}/{row:09d}" for row in range(len(labels))]
            dealt: list[Split] = [role] * len(keys)
            if role == "train" and val + test:
                dealt = self.deal_splits(keys, (1 - val - test, val, test), seed=config.split_seed)
            samples += map(Sample, keys, labels, dealt)
        return samples

    @cached_property
    def _rows_digest(self) -> str:
        return _digest([(sample.key, sample.label, sample.split) for sample in self._samples])

    @cached_property
    def _image_files(self) -> set[str]:
        paths = set[str]()
        for table in self._splits.values():
            for images in table.data.column(self.config.image_column).chunks:  # no bytes are read for this
                absent = images.field("bytes").is_null()
                paths.update(filter(self._belongs_to_dataset, images.field("path").filter(absent).to_pylist()))
        return paths

    def _images(self, table: datasets.Dataset) -> Iterator[dict[str, Any] | None]:
        for batch in table.select_columns([self.config.image_column]).iter(batch_size=256):
            yield from batch[self.config.image_column]

    def _content(self, row: dict[str, Any] | None) -> bytes:
        if row and row["bytes"] is not None:
            return bytes(row["bytes"])
        if row is None or row["path"] is None:
            raise DataError("the image is missing")
        if not self._belongs_to_dataset(row["path"]):
            raise DataError(f"the image is a file outside the dataset: {row['path']!r}")
        return Path(row["path"]).read_bytes()

    def _belongs_to_dataset(self, path: str | None) -> bool:
        """Return whether a file belongs to the dataset; a downloaded table may name any file on this machine."""
        if path is None:
            return False
        from huggingface_hub.constants import HF_HUB_CACHE

        folders = [HF_HUB_CACHE, _library().config.DOWNLOADED_DATASETS_PATH, *filter(None, [self._local])]
        file = Path(path).resolve()
        return any(file.is_relative_to(Path(folder).resolve()) for folder in folders) and file.is_file()


def _refuse_archives(path: Path) -> None:
    """Raise if a path is, or a folder holds, an archive, which the library would unpack into its cache."""
    archives = [file for file in (path, *path.rglob("*")) if file.suffix.lower() in ARCHIVE_SUFFIXES and file.is_file()]
    if archives:
        raise DataError(f"{archives[0]} is an archive, which is not read; unpack it yourself, and move it away")


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError([f"dataset hf needs a library: pip install 'decoderbench[hf]' ({error})"]) from error
    return datasets


@contextmanager
def _no_progress_bars(library: Any) -> Iterator[None]:
    off = "HF_DATASETS_DISABLE_PROGRESS_BARS" in os.environ or library.are_progress_bars_disabled()
    if not off:
        library.disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            library.enable_progress_bars()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
