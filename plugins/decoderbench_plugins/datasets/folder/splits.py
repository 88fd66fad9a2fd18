"""How the images of a folder are assigned to train, val and test: by the split that is given, or dealt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from decoderbench import DataError, Split

from .files import first_names
from .groups import Grouping, chosen_grouping, folders_of, likely_groupings, require_column
from .labels import Row
from .split_lists import Lists
from .split_signs import Sign, column_sign, find_signs, unread_split_columns, word_of_value
from .split_words import SPLITS

if TYPE_CHECKING:
    from .dataset import Folder

DEAL_ANEW = "'dealt' to deal all samples anew"


class Assignment(NamedTuple):
    """The part of each sample, how it was found, and notes, for people."""

    splits: Sequence[Split]
    source: str
    notes: Sequence[str]


def assign_splits(
    rows: Sequence[Row], lists: Lists, config: "Folder.Config", deal: Callable[..., list[Split]]
) -> Assignment:
    """Return the split of each row; `deal` is `Dataset.deal_splits`.

    Raises:
        DataError: signs contradict each other or do not reach every sample, groups are in several parts, a part is
            missing and cannot be dealt, or options do not fit.
    """
    grouping = chosen_grouping(rows, config.group_column)
    likely = likely_groupings(rows) if config.group_column is None else []
    signs, notes = _choose_signs(rows, lists, config)
    if signs:
        splits, source = _follow(rows, signs)
        notes += _note_divided(splits, source, [*likely, grouping], config)
        return _complete(Assignment(splits, source, notes), [*likely, grouping], config, deal)
    notes += [_note_likely(one) for one in likely]
    folders = folders_of(rows) if config.split == "auto" and not grouping.column else []
    if 1 < len(folders) < len(rows):
        notes.append(
            f"images are dealt without regard to their {len(folders):,} folders ({first_names(folders, 3)}): if each "
            "is a part of the split, rename them train, val and test; if a page, book or writer, give a table with a "
            "column that says so, and set dataset.group_column"
        )
    if grouping.column and (empty := sum(not group for group in grouping.of)) > 1:
        notes.append(f"column {grouping.column} is empty for {empty:,} samples, which are one group")
    shares = ", ".join(f"{share:g} {split}" for split, share in zip(SPLITS, config.fractions, strict=True))
    splits = deal(grouping.of, config.fractions, seed=config.split_seed)
    return Assignment(splits, f"dealt by {grouping.name}, seed {config.split_seed}: {shares}", notes)


def _choose_signs(rows: Sequence[Row], lists: Lists, config: "Folder.Config") -> tuple[list[Sign], list[str]]:
    """Return the signs to follow, none if samples are to be dealt, and notes on ignored signs."""
    found = find_signs(rows, lists.naming)
    signs, alone = [sign for sign in found if sign.divides], [sign for sign in found if not sign.divides]
    if config.split == "dealt":
        return [], [f"the split given by {sign.source} is not used, as dataset.split is 'dealt'" for sign in signs]
    if config.split_column is not None:
        return _choose_column(rows, signs, config.split_column)
    if lists.problem:
        raise DataError(f"{lists.problem}, or set dataset.split = {DEAL_ANEW}")
    notes = list(lists.notes)
    for column, certain in unread_split_columns(rows):
        values = sorted({row.columns.get(column, "") for row in rows})
        if certain and len(values) > 1 and not signs:
            raise DataError(
                f"column {column} is called like a split, but its values are {first_names(values, 3)}; write train, "
                f"val and test, name another column by dataset.split_column, or set dataset.split = {DEAL_ANEW}"
            )
        notes.append(f"column {column} names no part, so it does not count as a split: {first_names(values, 3)}")
    if not signs:
        of = f"; {alone[0].source} alone is no split" if alone else ""
        if config.split == "given" or config.test_from:
            option = "test_from is set" if config.test_from else "split is 'given'"
            raise DataError(f"dataset.{option}, but no folders, columns or lists name train and test{of}")
        notes += [f"all samples are in {sign.source}, which alone is no split: they are dealt" for sign in alone]
    return signs, notes


def _choose_column(rows: Sequence[Row], signs: Sequence[Sign], column: str) -> tuple[list[Sign], list[str]]:
    require_column(rows, column)
    for row in rows:
        if word_of_value(row.columns[column]) is None:
            allowed = "train, val and test, also as training, valid, validation, dev, testing, eval"
            raise DataError(f"{row.place}: column {column!r} has value {row.columns[column]!r}; allowed: {allowed}")
    chosen = column_sign(rows, column)
    assert chosen is not None  # every value names a part
    notes = []
    for sign in signs:
        pairs = zip(sign.splits, chosen.splits, strict=True)
        if differing := sum(split not in (None, own) for split, own in pairs):
            notes.append(f"{sign.source} contradict split_column for {differing:,} samples, and are not used")
    return [chosen], notes


def _follow(rows: Sequence[Row], signs: Sequence[Sign]) -> tuple[list[Split], str]:
    """Return the part of each sample, which all signs agree on, and the source."""
    for sign in signs:
        if sign.problem:
            raise DataError(f"{sign.source}: {sign.problem}, or set dataset.split = {DEAL_ANEW}")
    splits: list[Split] = []
    untold, contradicting = [], []
    for at, row in enumerate(rows):
        told = {split: sign for sign in signs if (split := sign.splits[at])}
        splits += list(told)[:1]
        if not told:
            untold.append(row.name)
        if len(told) > 1:
            said = ", but ".join(f"{split} by {sign.kind} ({sign.names[at]})" for split, sign in told.items())
            contradicting.append(f"{row.name!r} is {said}")
    if contradicting:
        raise DataError(
            f"two signs of a split disagree for {len(contradicting):,} of {len(rows):,} samples: {contradicting[0]}; "
            f"correct one, set dataset.split_column if it is a column, or set dataset.split = {DEAL_ANEW}"
        )
    complete = next((sign.source for sign in signs if None not in sign.splits), None)
    source = complete or " and ".join(sign.source for sign in signs)
    if untold:
        raise DataError(
            f"the split given by {source} has no part for {len(untold):,} of {len(rows):,} samples "
            f"({first_names(untold, 3)}); complete it, or set dataset.split = {DEAL_ANEW}"
        )
    return splits, f"given by {source}"


def _note_divided(
    splits: Sequence[Split], source: str, groupings: Sequence[Grouping], config: "Folder.Config"
) -> list[str]:
    """Return notes on groups that are in several parts of a given split; raise `DataError` if nobody decided on it."""
    texts = []
    for one in groupings:
        if divided := one.divided(splits):
            of = f"of column {one.column}" if one.column else "with one sidecar file each"
            texts.append(
                f"{len(divided):,} of {len(set(one.of)):,} groups {of} are in several parts of the split {source} "
                f"({first_names(divided, 3)})"
            )
    if texts and config.split == "auto":
        raise DataError(f"{'; '.join(texts)}: set dataset.split = 'given' to keep it as it is, or {DEAL_ANEW}")
    return texts


def _complete(
    given: Assignment, groupings: Sequence[Grouping], config: "Folder.Config", deal: Callable[..., list[Split]]
) -> Assignment:
    """Return an assignment with the parts that are missing in a given split: dealt from another part."""
    shares = dict(zip(SPLITS, config.fractions, strict=True))
    missing = [split for split in SPLITS if split not in given.splits and shares[split] > 0]
    origin: Split = config.test_from or "train"
    if "train" not in given.splits:
        raise DataError(f"the split {given.source} has no train; set dataset.split = {DEAL_ANEW}")
    if config.test_from and ("test" in given.splits or origin not in given.splits):
        raise DataError(f"test_from is {origin!r}, but the split {given.source} has parts: {_parts(given)}")
    if "test" in missing and not config.test_from:
        raise DataError(
            f"the split {given.source} has no test: set dataset.test_from = 'val' or 'train' to deal one from that "
            f"part, or dataset.split = {DEAL_ANEW}"
        )
    stated = [option for option in ("fractions", "split_seed") if option in config.model_fields_set]
    if not missing:
        verb = "has" if stated == ["split_seed"] else "have"
        text = f"{' and '.join(stated)} {verb} no effect, as the split is {given.source}"
        if stated and config.split == "auto":
            raise DataError(f"{text}; remove them, or set dataset.split = 'given' to allow that, or {DEAL_ANEW}")
        return given._replace(notes=[*given.notes, *([text] if stated else [])])
    (new,) = missing
    by = groupings[0]
    notes = list(given.notes)
    if "fractions" in stated:
        notes.append(f"fractions apply to {origin} and {new} only, {shares[origin]:g} to {shares[new]:g}")
    notes += [_note_likely(other) for other in groupings[1:] if other.column]
    of = [group for group, split in zip(by.of, given.splits, strict=True) if split == origin]
    total = shares[origin] + shares[new]
    dealt = iter(deal(of, [shares[s] / total if s in (origin, new) else 0.0 for s in SPLITS], seed=config.split_seed))
    splits = [next(dealt) if split == origin else split for split in given.splits]
    source = f"{given.source}; {new} dealt from {origin} by {by.name}, seed {config.split_seed}"
    return Assignment(splits, source, notes)


def _parts(given: Assignment) -> str:
    return ", ".join(split for split in SPLITS if split in given.splits)


def _note_likely(one: Grouping) -> str:
    return f"column {one.column} may be groups: set dataset.group_column = {one.column!r} to keep them together"
