"""Which of the named splits of a dataset is train, val and test."""

from collections.abc import Mapping, Sequence

from decoderbench import DataError, Split, did_you_mean, split_word_in, splits_meant_by

USUAL_NAMES: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
"""The names that the library itself gives; they count before other spellings."""


def choose_splits(names: Sequence[str], given: Mapping[Split, str | None], *, what: str) -> dict[Split, str]:
    """Return the name of each part that there is: the given one, else the usual one, else the one that says so.

    Args:
        names: the splits of the dataset.
        given: the name of each part, None where the spelling decides.
        what: the dataset, for messages; its options are `train_split` and so on.

    Raises:
        DataError: a given name is unknown, or several names say the same part.
    """
    chosen: dict[Split, str] = {}
    taken = {name for name in given.values() if name is not None}
    words = {name: word for name in names if (word := split_word_in(name))}
    meant = splits_meant_by(set(words.values()))
    for split, usual in USUAL_NAMES.items():
        name = given[split]
        if name is not None:
            if name not in names:
                raise DataError(
                    f"{what} has no split {name!r}; it has: {', '.join(names)}{did_you_mean(name, list(names))}; "
                    f"correct the option {split}_split"
                )
            chosen[split] = name
            continue
        found = [name for name, word in words.items() if meant[word] == split and name not in taken]
        if usual in found:
            found = [usual]
        if len(found) > 1:
            raise DataError(f"{what} has several splits for {split}: {', '.join(found)}; set the option {split}_split")
        if found:
            chosen[split] = found[0]
    return chosen


def describe_splits(chosen: Mapping[Split, str], dealt: Mapping[Split, float], seed: int) -> str:
    """Return how samples were assigned to the parts, for people: which were given, and which were dealt from train.

    Args:
        chosen: the name of each part that is given.
        dealt: the share of train that each other part got.
        seed: the seed of the dealing.
    """
    names = list(chosen.values())
    named = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    shares = " and ".join(f"{split} ({share:g})" for split, share in dealt.items())
    given = f"given by split{'s' * (len(names) > 1)} {named}"
    return f"{given}; {shares} dealt from {chosen['train']}, seed {seed}" if dealt else given
