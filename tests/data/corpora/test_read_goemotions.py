"""The GoEmotions reader: numbers to labels, the Ekman mapping, quotes that mean nothing."""

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.goemotions import EKMAN, as_csv_cell, read_goemotions

FILES = Path(__file__).parent / "files" / "goemotions"


def test_ekman_labels_in_the_order_the_corpus_names_them() -> None:
    # 25 sadness, 6 confusion; 17 joy, 27 neutral; 3 annoyance and 2 anger fall together, 26 surprise.
    assert [e.value for e in read_goemotions(FILES, "test")] == [
        ("sadness", "surprise"),
        ("joy", "neutral"),
        ("anger", "surprise"),
    ]


def test_the_28_labels() -> None:
    examples = read_goemotions(FILES, "test", task_name="GoEmotions-28")
    assert examples[0].value == ("sadness", "confusion")
    assert examples[2].value == ("annoyance", "anger", "surprise")


def test_every_label_has_one_ekman_group() -> None:
    grouped = [fine for group in EKMAN.values() for fine in group]
    assert sorted(grouped) == sorted(TASKS["GoEmotions-28"].labels)
    assert tuple(EKMAN) == TASKS["GoEmotions"].labels


def test_quotes_mean_nothing_but_the_benchmark_reads_them_as_csv() -> None:
    texts = [e.text for e in read_goemotions(FILES, "test")]
    assert texts == ['"I lost." "Again?"', 'Nice lamp, "friend"', '""Oh"" no']
    assert [as_csv_cell(text) for text in texts] == ['I lost. "Again?"', 'Nice lamp, "friend"', 'Oh"" no']


def test_unknown_number_and_missing_column_are_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("a lamp\t28\tid1\na lamp\tid2\na lamp\t\tid3\na chair\t0\tid4\n")
    bad: list[BadRow] = []
    assert [e.id for e in read_goemotions(tmp_path, "dev", bad=bad)] == ["id4"]
    assert [row.reason for row in bad] == [
        "label 28 is not in 0..27",
        "2 columns, expected text, label numbers, id",
        "not a whole number",
    ]


def test_another_label_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("a lamp\t0\tid1\n")
    (tmp_path / "emotions.txt").write_text("joy\nanger\n")
    with pytest.raises(DataError, match=r"emotions\.txt is not the list"):
        read_goemotions(tmp_path, "dev")
