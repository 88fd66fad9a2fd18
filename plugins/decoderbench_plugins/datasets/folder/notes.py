"""Files in a folder beside the labeled images: refused if labels may be missing, else counted in notes."""

from collections import Counter
from collections.abc import Collection, Sequence
from posixpath import basename
from typing import TYPE_CHECKING

from .files import (
    SHOWN,
    count_by_suffix,
    find_problem,
    first_names,
    is_image,
    is_unsupported_image,
    looks_like_image,
    show,
    suffix_of,
)
from .labels import Report, Row
from .sources import Place, Source
from .split_lists import Lists

if TYPE_CHECKING:
    from .dataset import Folder


def labeled_images(source: Source, place: Place, report: Report, *, follow_links: bool) -> list[Row]:
    """Return the rows that have an image of their own, which may be opened; report the others."""
    good, problems, seen, move = list[Row](), list[str](), dict[str, Row](), ""
    for row in source.rows:
        before_this = len(problems)
        if row.name in seen:
            before = seen[row.name]
            other = f" with the label {show(before.label)}, not {show(row.label)}" if before.label != row.label else ""
            problems.append(f"{row.place}: {show(row.name)} is already named in {before.place}{other}")
            move = ", or set dataset.labels_file to one of the tables" if before.table != row.table else move
        elif is_unsupported_image(row.name) and row.name in place.images.files:
            problems.append(
                f"{row.place}: {show(row.name)} is a {suffix_of(row.name)} image, which cannot be read here"
            )
        elif not place.images.files.get(row.name):
            reason = find_problem(place.folder, row.name, follow_links=follow_links)
            if reason == "does not exist" and (similar := place.names.similar(row.name)):
                reason += f"; {similar}"
            elif reason == "does not exist" and place.folder != place.root and row.name in place.tree.files:
                reason = f"is outside of the folder of images {place.folder}; set dataset.images = '.'"
            if reason:
                problems.append(f"{row.place}: {show(row.name)} {reason}")
        if len(problems) == before_this:
            good.append(row)
        seen[row.name] = row
    if problems:
        more = f"\n  and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        report(
            f"{len(problems):,} names do not each denote one image in {place.folder}; "
            f"correct the names, or dataset.images{move}:"
            + "".join(f"\n  {problem}" for problem in problems[:SHOWN])
            + more
        )
    return good


def report_left_out(source: Source, place: Place, config: "Folder.Config", report: Report) -> None:
    """Report images that would be left out although the images label themselves."""
    if source.files:
        return
    if unsupported := sorted(filter(is_unsupported_image, place.images.files)):
        report(
            f"images that cannot be read here would be left out: {count_by_suffix(unsupported)}; "
            "convert them, or move them out of the folder"
        )
    if place.images.linked_folders:
        report(
            f"links to folders in {place.folder} would be left out: {first_names(place.images.linked_folders)}; "
            "set dataset.follow_links = true to read them, or remove the links"
        )
    if config.images is None and (outside := sorted(filter(looks_like_image, _outside(place)))):
        report(
            f"{len(outside):,} images outside of {place.folder} would be left out ({first_names(outside, 3)}); set "
            "dataset.images = 'images' to leave them out, or dataset.images = '.' to read all of them"
        )


def list_notes(place: Place, source: Source, keys: Collection[str], lists: Lists) -> list[str]:
    """Return notes on everything in the folder that is not read, for people."""
    notes = list(source.notes)
    unlabeled = sorted(set(filter(is_image, place.images.files)) - set(keys))
    if unlabeled:
        notes.append(f"images without a label are excluded: {len(unlabeled):,} ({first_names(unlabeled)})")
    if (named := [row.name for row in source.rows if row.place == "file name"]) and (twice := _same_names(named)):
        notes.append(
            f"images in several folders under one name, which may be copies: {len(twice):,} ({first_names(twice, 3)})"
        )
    if outside := sorted(filter(is_image, _outside(place))):
        notes.append(f"images outside of {place.folder.name}/ are not read: {len(outside):,} ({first_names(outside)})")
    unread_links = [name for name in place.tree.linked_folders if place.root / name != place.folder]
    if links := sorted({*place.images.linked_folders, *unread_links}):
        notes.append(f"links to folders are not followed: {first_names(links)}")
    if results := sorted({*place.images.results, *place.tree.results}):
        notes.append(f"results of decoderbench are not read: {first_names(results)}")
    listed = {file for files in lists.naming.values() for file in files}
    read = {*source.files, *source.unread, *listed, *keys}
    others = [
        file
        for file in dict.fromkeys([*place.images.files, *_outside(place)])
        if not is_image(file) and file not in read and not any(name.startswith(f"{file} ") for name in listed)
    ]
    if others:
        notes.append(f"files not read: {count_by_suffix(others)}")
    return notes


def _same_names(names: Sequence[str]) -> list[str]:
    counts = Counter(map(basename, names))
    return [name for name in names if counts[basename(name)] > 1]


def _outside(place: Place) -> list[str]:
    """Return the files of the root that are not in the folder of images, relative to the root."""
    if place.folder == place.root:
        return []
    inside = f"{place.folder}/".removeprefix(f"{place.root}/")
    return [file for file in place.tree.files if not file.startswith(inside)]
