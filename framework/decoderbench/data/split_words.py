"""Words that name a part of a split in names of folders, files and columns, in common spellings. No torch here."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Literal

from decoderbench.data.dataset import Split

SplitWord = Literal["train", "val", "test", "eval", "trainval"]
"""What a data set may call a part of it; `splits_meant_by` says which split each is."""

SPELLINGS: dict[SplitWord, str] = {
    "train": "train|training|trn|训练",
    "val": "val|valid|validation|validate|validating|dev|devel|development|验证",
    "test": "test|testing|tst|holdout|测试",
    "eval": "eval|evaluation",
    "trainval": "trainval|trainvalid|trainvalidation|traindev",
}
ENDINGS = "s|sets?|data|datasets?|lists?|files?|labels?|images?|imgs?|gt|splits?|parts?|集"
ANY = re.compile("tr(ai)?n|val|dev|te?st|hold|held|eval|训练|验证|测试", re.IGNORECASE)  # rules most names out, fast
PATTERNS = {word: re.compile(f"({spellings})({ENDINGS})?") for word, spellings in SPELLINGS.items()}


@lru_cache(maxsize=100_000)
def split_word_in(name: str) -> SplitWord | None:
    """Return the only word in a name that names a part, or None: `written_name_TRAIN_v2.csv` names train.

    A word ends at a character that is no letter, or where small letters change to capitals. A name with two words names
    none (`train_test_split`), except that train and val together are what val is dealt from (`train_val`).
    """
    if not ANY.search(name):
        return None
    name = re.sub("hold[^a-z]*out|held[^a-z]*out", "holdout", name, flags=re.IGNORECASE)
    tokens = {*re.findall(r"[^\W\d_]+", name), *re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    texts = {token.lower() for token in tokens}
    found = {word for word, pattern in PATTERNS.items() if any(map(pattern.fullmatch, texts))}
    if found == {"train", "val"} and not texts & {"split", "splits"}:
        return "trainval"
    return found.pop() if len(found) == 1 else None


def splits_meant_by(words: Collection[SplitWord]) -> dict[SplitWord, Split]:
    """Return the part that each word of one sign means.

    Where eval stands beside a test, it is the validation part, as in TensorFlow's data sets; else it is the test, as
    beside dev. trainval means train, from which val is dealt.
    """
    return {
        "train": "train",
        "val": "val",
        "test": "test",
        "eval": "val" if "test" in words else "test",
        "trainval": "train",
    }
