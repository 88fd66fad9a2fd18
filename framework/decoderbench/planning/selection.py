"""Which cells, and trials of tuning, `-k` selects: an expression such as `CTC and not seed 1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError

RULE = "join words of these lines with and, or, not, without parentheses"
QUOTES = 'quote labels that hold such a word, as in "a or b"'


@dataclass(frozen=True)
class Term:
    """Words that must, or with `negated` must not, occur in the name of a cell."""

    words: str
    negated: bool


def select_cells(cells: Sequence[Cell], expression: str) -> list[Cell]:
    """Return the cells whose name matches an expression such as `ctc and not seed 1`; all if it is empty.

    Words are searched in the name of the combination, its labels, its seed and its fold, ignoring case; a cell id must
    match as a whole. `and` binds tighter than `or`, and there are no parentheses. Quotes keep a label together that
    holds `and`, `or` or `not`. A number matches whole numbers only: `seed 1` does not select seed 10.

    Raises:
        ConfigError: the expression is incomplete or selects no cell, or some of its words match no cell.
    """
    if not expression.strip():
        return list(cells)
    alternatives = _parse(expression)
    matches = {
        term.words: {cell.cell_id for cell in cells if _matches(cell, term.words)}
        for alternative in alternatives
        for term in alternative
    }
    for words, ids in matches.items():
        if not ids:
            raise ConfigError([_explain(cells, expression, f"{words!r} matches")])
    selected = [
        cell
        for cell in cells
        if any(all((cell.cell_id in matches[term.words]) != term.negated for term in terms) for terms in alternatives)
    ]
    if not selected:
        raise ConfigError([_explain(cells, expression, "it selects")])
    return selected


def select_trials(trials: Sequence[Cell], cells: Sequence[Cell]) -> list[Cell]:
    """Return the trials by which the rows of some cells choose values, in each of their folds."""
    rows = {(cell.variant, cell.fold) for cell in cells}
    return [trial for trial in trials if (trial.variant, trial.fold) in rows]


def _parse(expression: str) -> list[list[Term]]:
    """Return the alternatives of an expression, each a list of terms that must all hold."""
    alternatives: list[list[Term]] = [[]]
    words: list[str] = []
    negated = False

    def end_term(keyword: str) -> None:
        nonlocal negated
        if not words:
            raise ConfigError([f"-k {expression!r}: words are missing {keyword}; {RULE}"])
        alternatives[-1].append(Term(" ".join(words), negated))
        words.clear()
        negated = False

    for quoted, single_quoted, bare in re.findall(r""""([^"]*)"|'([^']*)'|(\S+)""", expression.lower()):
        if bare == "or":
            end_term("before 'or'")
            alternatives.append([])
        elif bare == "and":
            end_term("before 'and'")
        elif bare == "not" and not words:
            negated = not negated
        else:
            words.append((quoted or single_quoted or bare).strip())
    end_term("at the end")
    return alternatives


def _matches(cell: Cell, words: str) -> bool:
    if words == cell.cell_id:
        return True
    name = f"{cell.name} {' / '.join(filter(None, cell.variant))} / {cell.model_title}".lower()
    before, after = r"(?<!\d)" * words[:1].isdigit(), r"(?!\d)" * words[-1:].isdigit()
    return bool(words) and re.search(before + re.escape(words) + after, name) is not None


def _explain(cells: Sequence[Cell], expression: str, what: str) -> str:
    names = "".join(f"\n  {cell.title}" for cell in cells)
    return f"-k {expression!r}: {what} none of {len(cells)} cells; {RULE}; {QUOTES}:{names}"
