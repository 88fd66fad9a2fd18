"""Which of the named splits of a dataset is train, val and test."""

from collections.abc import Mapping, Sequence

from decoderbench import DataError, Split, did_you_mean

from .folder.split_words import SPELLINGS, SPLITS, meaning, word_in


def choose_splits(names: Sequence[str], given: Mapping[Split, str | None], *, what: str) -> dict[Split, str]:
    """Return the name of each part that there is: the given one, else the one that common spellings say.

    Args:
        names: the splits of the dataset.
        given: the name of each part, None where the spelling decides.
        what: the dataset, for messages; its options are `train_split` and so on.

    Raises:
        DataError: a given name is unknown, or several names say the same part.
    """
    chosen: dict[Split, str] = {}
    taken = {name for name in given.values() if name is not None}
    words = {name: word for name in names if (word := word_in(name)) and name not in taken}
    meant = meaning({word for name in names if (word := word_in(name))})
    for split in SPLITS:
        name = given[split]
        if name is not None:
            if name not in names:
                raise DataError(
                    f"{what} has no split {name!r}; it has: {', '.join(names)}{did_you_mean(name, list(names))}; "
                    f"correct the option {split}_split"
                )
            chosen[split] = name
            continue
        found = [name for name, word in words.items() if meant[word] == split]
        exact = [name for name in found if name.lower() in SPELLINGS[words[name]].split("|")]
        if len(exact or found) > 1:
            raise DataError(
                f"{what} has several splits for {split}: {', '.join(exact or found)}; set the option {split}_split"
            )
        if found:
            chosen[split] = (exact or found)[0]
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
