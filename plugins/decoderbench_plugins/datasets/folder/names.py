"""Which images the names in a label table denote."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from posixpath import basename, dirname, join, normpath, splitext
from typing import TypeVar

from .files import looks_like_image

Value = TypeVar("Value")
Key = Callable[[str], str | None]  # of a name in a table: the name relative to the folder of images, or None


class ImageNames:
    """The images of a folder, found by the names that tables give them.

    Tools write names relative to the root, to its parent, to the folder of the table or to that of the images, some
    without suffix, some with backslashes. A name denotes the image at one of those places, else the one image whose
    path ends in that name.

    Args:
        root: the folder of the dataset, an absolute path.
        folder: the folder of images, an absolute path.
        files: all files in the folder of images, by name relative to it.
    """

    def __init__(self, root: str, folder: str, files: Mapping[str, bool]) -> None:
        self.root, self.folder, self.files = normpath(root), normpath(folder), files
        self.images = [name for name in files if looks_like_image(name)]
        self._keys: dict[str, list[Key]] = {}

    def find(self, name: str, table: str) -> list[str]:
        """Return the images that a name in a table may denote: one, none, or several if it is ambiguous."""
        names = [name] if "\\" not in name else [name, name.replace("\\", "/")]
        for one in (normpath(each) if _needs_norm(each) else each for each in names):
            if self.folder != self.root and one in self.files:
                return [one]  # a folder for images alone comes first
            keys = [found for key in self._keys_of(table) if (found := key(one)) is not None]
            hits = (
                [key for key in keys if key in self.files]
                or _ending(self._by_name, one)
                or [file for _, file in self._by_name.get(_last(one), ()) if _is_elsewhere(one, file)]
                or [file for key in keys for file in self._by_stem.get(key, ())]
                or _ending(self._by_name_stem, one)
            )
            if hits:
                return list(dict.fromkeys(hits))
        return []

    def similar(self, name: str) -> str | None:
        """Return which file differs from a missing one by its way of writing only, and in what; None if none does."""
        given = normpath(name.replace("\\", "/"))
        found = {*(self._by_folded.get(_fold(given)) or self._by_folded.get(_fold(basename(given)), []))}
        if len(found) != 1:
            return None
        (file,) = found
        tail = "/".join(file.split("/")[-1 - given.count("/") :])
        kind = next((kind for kind, fold in FOLDS.items() if fold(given) == fold(tail)), "its way of writing")
        return f"did you mean {file!r}, which differs by {kind}?"

    def _keys_of(self, table: str) -> list[Key]:
        if table not in self._keys:
            home = normpath(join(self.root, dirname(table)))
            inside = f"{home}/".startswith(f"{self.root}/") and home != self.root
            above = [dirname(home)] if inside else []
            bases = [self.folder, home, f"{home}/images", join(self.root, splitext(table)[0]), *above]
            bases += [self.root, dirname(self.root)]
            self._keys[table] = [self._key(normpath(base)) for base in dict.fromkeys(bases)]
        return self._keys[table]

    def _key(self, base: str) -> Key:
        folder = f"{self.folder}/"
        if f"{base}/".startswith(folder):
            added = f"{base}/"[len(folder) :]
            removed = ""
        elif folder.startswith(f"{base}/"):
            added, removed = "", folder[len(base) + 1 :]
        else:
            added, removed = "", "\0"

        def key(name: str) -> str | None:
            if name.startswith("../"):
                path = normpath(f"{base}/{name}")
                return path[len(folder) :] if path.startswith(folder) else None
            return added + name.removeprefix(removed) if name.startswith(removed) else None

        return key

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, str]]]:
        return _grouped((_last(file), (file, file)) for file in self.images)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((splitext(file)[0], file) for file in self.images)

    @cached_property
    def _by_name_stem(self) -> dict[str, list[tuple[str, str]]]:
        return _grouped((_last(stem), (stem, file)) for file in self.images for stem in [splitext(file)[0]])

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        return _grouped((_fold(one), file) for file in self.images for one in {file, basename(file)})


def _needs_norm(name: str) -> bool:
    return not name or "//" in name or "./" in name or name[-1] in "./"


def _is_elsewhere(name: str, file: str) -> bool:
    """Return whether a name is the path of a file in a copy of the folder, such as on another machine."""
    return name.endswith(f"/{file}") and (name.startswith("/") or name[1:3] == ":/" or "/" in file)


def _without_blanks(name: str) -> str:
    return "".join(name.split())


def _without_suffix(name: str) -> str:
    return splitext(name)[0] if looks_like_image(name) else name


def _fold(name: str) -> str:
    return _without_suffix(_without_blanks(unicodedata.normalize("NFKC", name).casefold()))


FOLDS: dict[str, Callable[[str], str]] = {
    "its Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "upper and lower case": str.casefold,
    "blanks": _without_blanks,
    "its suffix": _without_suffix,
}


def _last(path: str) -> str:
    return path[path.rfind("/") + 1 :]  # as basename, which is slower


def _ending(by_name: Mapping[str, Sequence[tuple[str, str]]], name: str) -> list[str]:
    """Return the files whose path ends in a name; `by_name` has pairs of a path, maybe without suffix, and a file."""
    return [file for path, file in by_name.get(_last(name), ()) if f"/{path}".endswith(f"/{name}")]


def _grouped(pairs: Iterable[tuple[str, Value]]) -> dict[str, list[Value]]:
    groups: dict[str, list[Value]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
