"""`-k`: which cells an expression selects."""

import pytest
from helpers.recording import make_cell

from decoderbench.errors import ConfigError
from decoderbench.planning.selection import select_cells

CELLS = [
    make_cell("LSTM + CTC", 1),
    make_cell("LSTM + CTC", 10),
    make_cell("attention", 1, name="TRBA"),
    make_cell("this or that", 1),
]


def select(expression: str) -> list[tuple[str, int]]:
    return [(cell.decoder.label, cell.seed) for cell in select_cells(CELLS, expression)]


def test_empty_expression_selects_all() -> None:
    assert len(select("")) == len(select("  ")) == 4


def test_word_selects_by_label_and_by_name_whatever_the_case() -> None:
    assert select("lstm + ctc") == [("LSTM + CTC", 1), ("LSTM + CTC", 10)]
    assert select("trba") == [("attention", 1)]


def test_seed_1_excludes_seed_10() -> None:
    assert select("CTC and seed 1") == [("LSTM + CTC", 1)]
    assert select("CTC and not seed 1") == [("LSTM + CTC", 10)]


def test_and_binds_tighter_than_or() -> None:
    assert select("attention or CTC and seed 10") == [("LSTM + CTC", 10), ("attention", 1)]


def test_cell_id_selects_one_cell_and_only_as_a_whole() -> None:
    cell_id = CELLS[1].cell_id
    assert select(cell_id) == [("LSTM + CTC", 10)]
    with pytest.raises(ConfigError, match="matches none of 4 cells"):
        select(cell_id[:-1])


@pytest.mark.parametrize("quoted", ['"this or that"', "'this or that'"])
def test_quotes_keep_a_label_with_or_together(quoted: str) -> None:
    assert select(quoted) == [("this or that", 1)]
    assert select(f"{quoted} or seed 10") == [("LSTM + CTC", 10), ("this or that", 1)]
    assert len(select(f"not {quoted}")) == 3


def test_label_with_or_unquoted_is_two_words_and_the_message_says_to_quote() -> None:
    assert select("this or that") == [("this or that", 1)]
    with pytest.raises(ConfigError, match='quote labels that hold such a word, as in "a or b"'):
        select("this or those")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("ctc or", "words are missing at the end"),
        ("and ctc", "words are missing before 'and'"),
        ("ctc or and attention", "words are missing before 'and'"),
        ("not", "words are missing at the end"),
        ("transformer", "'transformer' matches none of 4 cells"),
        ("ctc and transformer", "'transformer' matches none of 4 cells"),
        ("ctc and attention", "it selects none of 4 cells"),
    ],
)
def test_incomplete_or_misspelled_expression_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(expression)
