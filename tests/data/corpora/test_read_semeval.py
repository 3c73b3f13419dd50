"""The SemEval-2018 reader: traps of the official files, and what it refuses."""

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.semeval import read_semeval

FILES = Path(__file__).parent / "files" / "semeval"
HEADER = "ID\tTweet\tAffect Dimension\tIntensity Score\n"


def write_joy(folder: Path, rows: str, header: str = HEADER) -> Path:
    (folder / "EI-reg-En-joy-train.txt").write_text(header + rows, encoding="utf-8", newline="")
    return folder


def test_examples_come_by_task_with_source_split_id_and_line() -> None:
    examples = read_semeval(FILES, "test")
    assert [(e.task, e.emotion, e.id, e.line, e.value) for e in examples] == [
        ("EI-reg", "joy", "2018-En-00001", 2, 0.731),
        ("EI-reg", "joy", "2018-En-00003", 4, 1.0),
        ("V-reg", None, "2018-En-00001", 2, 0.5),
        ("E-c", None, "2018-En-00001", 2, ("anger", "joy")),
        ("E-c", None, "2018-En-00002", 3, ()),
    ]
    assert {(e.source, e.split) for e in examples} == {("semeval2018", "test")}


def test_text_stays_raw() -> None:
    # Literal \n, entities, quotes and outer blanks stay; a line separator inside a tweet parts no rows.
    texts = [e.text for e in read_semeval(FILES, "test")]
    assert texts[0] == 'the "good" chair is free\\n\\nfinally &amp; for ever '
    assert texts[1] == "next stop\u2028home"


def test_mystery_rows_are_never_examples_nor_bad() -> None:
    bad: list[BadRow] = []
    assert not any("mystery" in e.id for e in read_semeval(FILES, "test", bad=bad))
    assert bad == []


def test_gold_file_is_taken_where_a_bare_test_file_lies_beside_it() -> None:
    assert read_semeval(FILES, "test")[0].path.endswith("-test-gold.txt")


def test_other_languages_have_the_same_form() -> None:
    (only,) = read_semeval(FILES, "test", language="Es")
    assert (only.id, only.value) == ("2018-Es-00001", ("joy",))


def test_all_bad_rows_are_reported_together_with_file_line_value_and_reason(tmp_path: Path) -> None:
    rows = (
        "id-1\ta lamp\tjoy\t1.2\n"
        "id-2\ta lamp\tboredom\t0.5\n"
        "id-3\t \tjoy\t0.5\n"
        "id-4\tfine\tjoy\t0.5\n"
        "id-4\ttwice\tjoy\t0.5\n"
        "id-5\tshort\tjoy\n"
        "id-6\tword\tjoy\tmuch\n"
        "id-7\tnumber\tjoy\tnan\n"
    )
    with pytest.raises(DataError) as error:
        read_semeval(write_joy(tmp_path, rows), "train")
    path = tmp_path / "EI-reg-En-joy-train.txt"
    assert str(error.value).splitlines() == [
        "7 bad rows:",
        f"{path}:2: '1.2': 1.2 is not a number in [0, 1] for EI-reg",
        f"{path}:3: 'boredom': unknown affect dimension; this file is about joy",
        f"{path}:4: ' ': empty text",
        f"{path}:6: 'id-4': duplicate id, first on line 5",
        f"{path}:7: 'id-5\\tshort\\tjoy': 3 columns, expected 4",
        f"{path}:8: 'much': not a number",
        f"{path}:9: 'nan': not a number",
    ]


def test_good_and_bad_rows_add_up(tmp_path: Path) -> None:
    bad: list[BadRow] = []
    rows = "".join(f"id-{i}\ta lamp\tjoy\t{i / 20}\n" for i in range(40))
    examples = read_semeval(write_joy(tmp_path, rows), "train", bad=bad)
    assert len(examples) == 21  # 0.00 to 1.00
    assert len(examples) + sum(row.labels for row in bad) == 40


def test_first_twenty_and_the_total_are_shown(tmp_path: Path) -> None:
    rows = "".join(f"id-{i}\ta lamp\tjoy\t7\n" for i in range(25))
    with pytest.raises(DataError) as error:
        read_semeval(write_joy(tmp_path, rows), "train")
    lines = str(error.value).splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("25 bad rows:", 22, "... and 5 more")


def test_file_of_another_task_loses_all_its_rows(tmp_path: Path) -> None:
    bad: list[BadRow] = []
    header = "ID\tTweet\tAffect Dimension\tIntensity Class\n"
    write_joy(tmp_path, "id-1\ta lamp\tjoy\t0: no joy\nid-2\ta chair\tjoy\t0: no joy\n\n", header)
    assert read_semeval(tmp_path, "train", bad=bad) == []
    (row,) = bad
    assert (row.line, row.labels) == (1, 2)
    assert "'Intensity Score'" in row.reason


def test_line_that_is_not_utf8_is_bad(tmp_path: Path) -> None:
    write_joy(tmp_path, "")
    path = tmp_path / "EI-reg-En-joy-train.txt"
    path.write_bytes(path.read_bytes() + b"id-1\tcaf\xe9\tjoy\t0.5\nid-2\tfine\tjoy\t0.5\n")
    bad: list[BadRow] = []
    assert [e.id for e in read_semeval(tmp_path, "train", bad=bad)] == ["id-2"]
    assert [(row.line, row.reason) for row in bad] == [(2, "not UTF-8")]


def test_missing_folder_split_and_twofold_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SemEval-2018 folder"):
        read_semeval(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"no train file of SemEval-2018 \(En\)"):
        read_semeval(FILES, "train")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_joy(tmp_path / name, "")
    with pytest.raises(DataError, match="two files for EI-reg joy train"):
        read_semeval(tmp_path, "train")
