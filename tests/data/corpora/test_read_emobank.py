"""The EmoBank reader: quotes in CSV, three labels a row."""

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.data.corpora.emobank import read_emobank
from emollm.data.corpora.example import BadRow

FILES = Path(__file__).parent / "files" / "emobank"


def test_first_all_valence_then_arousal_then_dominance() -> None:
    examples = read_emobank(FILES, "test")
    assert [(e.task, e.id, e.value, e.line) for e in examples] == [
        ("EmoBank-V", "a_2", 2.8, 3),
        ("EmoBank-V", "a_3", 4.4, 4),
        ("EmoBank-A", "a_2", 3.1, 3),
        ("EmoBank-A", "a_3", 1.4, 4),
        ("EmoBank-D", "a_2", 2.5, 3),
        ("EmoBank-D", "a_3", 3.0, 4),
    ]


def test_quotes_commas_and_line_ends_inside_a_cell() -> None:
    assert read_emobank(FILES, "train")[0].text == 'He said "later", and left.'
    assert read_emobank(FILES, "test")[1].text == "Two lines,\r\none row."
    # The row after the one of two lines counts file lines, not rows.
    assert read_emobank(FILES / "emobank.csv", "dev")[0].line == 6


def test_a_wrong_label_does_not_affect_the_other_two(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text(
        "text,D,A,V,split,id\nfine,3,3,3,test,a\nloud,3,5.2,3,test,b\n,3,3,3,test,c\nodd,3,3,3,exam,d\n"
    )
    bad: list[BadRow] = []
    examples = read_emobank(tmp_path, "test", bad=bad)
    assert [(e.id, e.task) for e in examples if e.id == "b"] == [("b", "EmoBank-V"), ("b", "EmoBank-D")]
    assert [(row.line, row.value, row.labels) for row in bad] == [(3, "5.2", 1), (4, "", 3), (5, "exam", 3)]
    assert len(examples) + sum(row.labels for row in bad) == 4 * 3


def test_missing_column_loses_the_file(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text("id,split,V,A,text\nx,test,3,3,fine\ny,test,3,3,fine\n")
    with pytest.raises(DataError, match=r"1 bad row \(6 labels\):\n.*:1: 'id \| split \| V \| A \| text': no column D"):
        read_emobank(tmp_path, "test")


def test_an_open_quote_is_a_bad_row_and_swallows_no_other(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text(
        'id,split,V,A,D,text\na,test,3,3,3,fine\nb,test,3,3,3,"open\nc,test,3,3,3,x\n'
    )
    bad: list[BadRow] = []
    assert {e.id for e in read_emobank(tmp_path, "test", bad=bad)} == {"a", "c"}
    assert [(row.line, row.labels) for row in bad] == [(3, 3)]
    assert "quote" in bad[0].reason


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no emobank\.csv under"):
        read_emobank(tmp_path, "test")
