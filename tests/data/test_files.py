"""Files as people have them: the API and the job read the same rows, and what cannot be read is one clear line."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.annotation.job import choose_columns
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.stage import read_staged, stage_corpus, stage_group
from emollm.api import annotate
from emollm.core.errors import ConfigError, DataError
from emollm.data.files.columns import Notes, reading
from emollm.data.files.inputs import find_files
from tests.annotation.cheap import CheapScorer

Row = tuple[str | None, str | None, str | None]
"""Id, text and error."""
TWO: list[Row] = [("007", "one, or ü", None), ("8", "two", None)]


def by_job(where: Path, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that a job would score, as its output has them, and its notes."""
    config = AnnotateConfig(input=where, out=folder / "out", model="m", **options)
    notes = Notes()
    source, files = find_files(config.input, config.reading, notes)
    columns = choose_columns(config, (), source, files)
    staged = folder / "staged"
    staged.mkdir()

    def stage(groups: Any, take: Any) -> None:
        for number, group in groups:
            take(number, stage_group(source, group, columns, source, str(staged), number, None))

    def ids(name: str) -> Any:
        return [pq.read_table(staged / name)["id"]]

    found = stage_corpus([files], columns, stage, ids, max_posts=None, source=config.input, notes=notes)
    rows = read_staged(source, str(staged), found, 0, found.posts).to_pylist()
    problems = [p for file in found.files for p in pq.read_table(staged / file.name)["problem"].to_pylist()]
    return [{**row, "error": problem} for row, problem in zip(rows, problems, strict=True)], notes.lines()


def by_api(where: Path, **options: Any) -> pd.DataFrame:
    frame = annotate(where, "V-reg", model=CheapScorer(), progress=False, **options)  # type: ignore[arg-type]
    assert isinstance(frame, pd.DataFrame)
    return frame


def both(where: Path, folder: Path, **options: Any) -> list[Row]:
    """The rows, after the API and the job were found to agree on them."""
    rows, _ = by_job(where, folder, **options)
    frame = by_api(where, **options)
    assert [row["text"] for row in rows] == frame["text"].tolist()
    errors = [row["error"] or (None if (row["text"] or "").strip() else "empty_text") for row in rows]
    assert frame["error"].tolist() == errors
    good = [n for n, row in enumerate(rows) if row["error"] is None]
    if "id" in frame:
        assert [rows[n]["id"] for n in good] == [str(frame["id"][n]) for n in good]
    return [(row["id"], row["text"], row["error"]) for row in rows]


CSV = 'id,text\n007,"one, or ü"\n8,two\n'
SEMICOLONS = "id;text\n007;one, or ü\n8;two\n"
JSONL = '{"id": "007", "text": "one, or ü"}\n{"id": 8, "text": "two"}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.CSV", CSV.encode()),
        ("a.csv", b"\xef\xbb\xbf" + SEMICOLONS.encode()),
        ("a b ü.csv", CSV.replace("\n", "\r").encode()),
        ("a.csv", CSV.replace("\n", ",\n").encode()),
        ("a.csv", b"sep=;\r\n" + SEMICOLONS.encode()),
        ("a.csv", b'"id", "text"\n"007", "one, or \xc3\xbc"\n"8", "two"\n'),
        ("a.csv", CSV.encode("utf-16")),
        ("a.csv", CSV.encode("utf-16-le")),
        ("a.csv", CSV.encode("utf-16-be")),
        ("a.csv", CSV.encode("utf-32")),
        ("a.csv", CSV.encode("utf-32-be")),
        ("a.tsv", b"id\ttext\n007\tone, or \xc3\xbc\n8\ttwo\n"),
        ("a.csv.gz", gzip.compress(CSV.encode()[:12], mtime=0) + gzip.compress(CSV.encode()[12:], mtime=0)),
        ("a.JSONL.bz2", bz2.compress(JSONL.encode())),
        ("a.ndjson.zst", pa.compress(JSONL.encode(), codec="zstd", asbytes=True)),
        ("a.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
        ("a.jsonl", JSONL.encode("utf-16")),
        ("a.jsonl", JSONL.replace("\n", "\r").encode()),
        ("a.json", ("[" + JSONL.strip().replace("\n", ",") + "]").encode()),
        ("a.json", json.dumps([json.loads(line) for line in JSONL.splitlines()], indent=1).encode()),
    ],
)  # fmt: skip
def test_the_same_two_posts_in_any_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert both(tmp_path / name, tmp_path) == TWO


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "quote.csv",
            b'id,text\n1,fine\n2,"never closed\n3,third\n4,"fourth, ""so"""\n',
            [
                ("1", "fine", None),
                ("quote.csv:3", '2,"never closed', "malformed_row: a quote is opened and not closed"),
                ("3", "third", None),
                ("4", 'fourth, "so"', None),
            ],
        ),
        (
            "slash.csv",
            b'id,text\n1,"a \\"word\\" here"\n2,"two\nlines \\\\"\n',
            [
                ("slash.csv:2", '1,"a \\"word\\" here"', "malformed_row: text after a closing quote"),
                ("2", "two\nlines \\\\", None),
            ],
        ),
        (
            "ragged.csv",
            b"id,text\n1\n2,b,c\nid,text\n\n3,x\n",
            [
                ("ragged.csv:2", "1", "malformed_row: 1 column, expected 2"),
                ("ragged.csv:3", "2 | b | c", "malformed_row: 3 columns, expected 2"),
                ("ragged.csv:4", "id | text", "malformed_row: repeated header"),
                ("3", "x", None),
            ],
        ),
        ("bytes.csv", b"id,text\n1,caf\xe9\n2,x\0y\n", [("1", "caf\ufffd", "invalid_utf8"), ("2", "x\0y", None)]),
        (
            "odd.jsonl",
            b'{"id": 1, "text": 5}\n{"id": 2, "text": true}\nno\n{"id": 3, "text": NaN}\n'
            b'{"id": 99999999999999999999, "text": "a"}\n{"id": 5, "text": "a", "x": 1e400}\n' + b"[" * 99_999,
            [
                ("1", "5", "not_text: int"),
                ("2", "true", "not_text: bool"),
                ("odd.jsonl:3", "no", "malformed_row: not a JSON object"),
                ("3", "NaN", "not_text: float"),
                ("99999999999999999999", "a", None),
                ("5", "a", None),
                ("odd.jsonl:7", "[" * 99_999, "malformed_row: not a JSON object"),
            ],
        ),
        ("long.jsonl", json.dumps({"id": 1, "text": "x" * 6_800_000}).encode(), [("1", "x" * 6_800_000, None)]),
        ("long.csv", b"id,text\n1," + b"x" * 6_800_000, [("1", "x" * 6_800_000, None)]),
        ("p.txt", "one\r\ntwo".encode("utf-16"), [("", "one", None), ("", "two", None)]),
    ],
)  # fmt: skip
def test_a_bad_row_is_kept_with_an_error(tmp_path: Path, name: str, content: bytes, rows: list[Row]) -> None:
    (tmp_path / name).write_bytes(content)
    found = both(tmp_path / name, tmp_path)
    assert [row[1:] for row in found] == [row[1:] for row in rows]
    assert name == "p.txt" or found == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.csv", b"id,text,L\xe4nge\n1,x,2\n", r"its first line is not UTF-8; give --encoding, such as windows"),
        ("twice.csv", b"id,text,text\n1,x,y\n", r"has two columns 'text'; rename one"),
        ("none.csv", b'"0","14678","had a great morning"\n', r"no column 'text'; .*no header: .*--column-names, as in"),
        ("other.csv", b"id;body\n1;x\n", r"no column 'text'; give --text-column, one of: id, body$"),
        ("empty.csv", b"", r"holds no posts"),
        ("header.csv", b"id,text\n", r"holds no posts"),
        ("empty.json", b"[]", r"holds no posts"),
        ("blank.txt", b"\n \n", r"holds no posts"),
        ("cut.json", b'[{"id": 1, "text": "x"}, {"id', r"element 2 of its array is not valid JSON"),
        ("pretty.json", b'{\n "id": 1,\n "text": "x"\n}', r"line 1 is not a JSON object; there must be one object per"),
        ("numbers.jsonl", b'{"id": 1, "text": 5}\n', r"no row has text in column 'text'"),
        ("sheet.csv", b"PK\x03\x04\0\0", r"a zip archive or an Excel sheet"),
        ("sheet.xlsx", b"PK\x03\x04\0\0", r"unsupported file type; expected \.parquet, or \.jsonl"),
        ("packed.csv", gzip.compress(b"id,text\n1,x\n", mtime=0), r"compressed with gzip; name it \.gz"),
        (
            "cut.csv.gz",
            gzip.compress(random.Random(0).randbytes(9999).hex().encode(), mtime=0)[:3000],
            r"cut\.csv\.gz cannot be read",
        ),
    ],
)
def test_unreadable_input_is_one_line_in_both(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (lambda: by_api(tmp_path / name), lambda: by_job(tmp_path / name, tmp_path)):
        with pytest.raises(DataError, match=message) as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "is_told"),
    [("1,42\n2,3.5 %\n3,\n", True), ("1,2026-03-01 12:30\n", True), ("1,42\n2,so 42\n", False), ("1,:)\n2,\n", False)],
)
def test_a_column_of_numbers_in_place_of_texts_is_noticed(tmp_path: Path, rows: str, is_told: bool) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n{rows}")
    _, notes = by_job(tmp_path / "a.csv", tmp_path)
    assert [note for note in notes if "numbers and no words" in note] == (
        ["a.csv: the column 'text' has numbers and no words; is this the text? --text-column names another"]
        if is_told
        else []
    )


def test_encoding_delimiter_and_names_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"007|one, or \xfc\n8|two\n")
    options = {"encoding": "latin-1", "delimiter": "|", "column_names": ("id", "text")}
    assert both(path, tmp_path, **options) == TWO
    for wrong, message in ((("x", None), "unknown encoding 'x'"), ((None, "||"), "delimiter '||' is not one")):
        with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
            reading(*wrong)


def test_ids_and_values_come_back_to_the_last_digit(tmp_path: Path) -> None:
    posts = [(1542657904481796100 + n, None if n == 1 else 1542657904481796104) for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": i, "text": "x", "to": to}) + "\n" for i, to in posts))
    (tmp_path / "a.csv").write_text("id,text,day\n1542657904481796104,2024-01-01,001\n,two,\n")
    rows, _ = by_job(tmp_path / "a.jsonl", tmp_path, carry=("to", "id"))
    frame = by_api(tmp_path / "a.jsonl")
    assert [(row["id"], row["to"]) for row in rows] == [(str(i), to) for i, to in posts]
    assert frame["id"].tolist() == [i for i, _ in posts]
    assert [None if pd.isna(to) else int(to) for to in frame["to"]] == [to for _, to in posts]
    frame = by_api(tmp_path / "a.csv")
    assert frame["id"].tolist() == ["1542657904481796104", ""] and frame["day"].tolist() == ["001", ""]
    assert frame["text"].tolist() == ["2024-01-01", "two"] and frame["error"].tolist() == [None, None]


def test_an_empty_id_is_a_missing_one_and_ids_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n,two\n  ,three\n")
    with pytest.raises(DataError, match=r"2 posts have no id, such as a\.csv:3, a\.csv:4; .*--id-column ''"):
        by_job(tmp_path / "a.csv", tmp_path)
    (tmp_path / "staged").rename(tmp_path / "before")
    rows, _ = by_job(tmp_path / "a.csv", tmp_path, id_column="")
    assert [row["id"].rpartition(":")[0] for row in rows] == ["a.csv:2", "a.csv:3", "a.csv:4"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([[1], [2]]), r"column 'id' is list<.*>, which cannot be an id"),
        (pa.array([b"\xff\xfe", b"\x80a"]), r"column 'id' is binary and holds bytes that are not UTF-8"),
        (pa.array([1.5e18, 2.0]), r"column 'id' is double, which has lost digits of its ids"),
    ],
)
def test_columns_that_cannot_be_ids_are_refused_by_name(tmp_path: Path, ids: Any, message: str) -> None:
    pq.write_table(pa.table({"id": ids, "text": ["x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        by_job(tmp_path / "a.parquet", tmp_path)
    (tmp_path / "a.jsonl").write_text('{"id": [1], "text": "x"}\n')
    (tmp_path / "staged").rename(tmp_path / "before")
    with pytest.raises(DataError, match=r"a\.jsonl:1: column 'id' holds a list; give another --id-column"):
        by_job(tmp_path / "a.jsonl", tmp_path)


def test_any_column_is_carried(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,place,row,problem,a.b\n1,x,Rome,7,none,c\n")
    rows, _ = by_job(tmp_path / "a.csv", tmp_path, carry=("*",))
    assert rows[0] | {"error": None} == {
        "id": "1", "text": "x", "place": "Rome", "row": "7", "problem": "none", "a.b": "c", "error": None,
    }  # fmt: skip
    assert by_api(tmp_path / "a.csv")["place"].tolist() == ["Rome"]
    (tmp_path / "n.jsonl").write_text('{"key": 1, "text": "x", "geo": null, "a.b": {"c": 1}}\n')
    (tmp_path / "staged").rename(tmp_path / "before")
    rows, _ = by_job(tmp_path / "n.jsonl", tmp_path, id_column="key", carry=("geo", "key", "a.b"))
    assert [rows[0][name] for name in ("id", "key", "geo", "a.b")] == ["1", 1, None, '{"c": 1}']
    assert by_api(tmp_path / "n.jsonl")["geo"].tolist() == [None]
    (tmp_path / "staged").rename(tmp_path / "before2")
    with pytest.raises(DataError, match="no row has the column 'goe' to carry"):
        by_job(tmp_path / "n.jsonl", tmp_path, carry=("goe",))


def test_a_mixed_folder_is_read_and_skipped_files_are_named(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "x.csv").mkdir(parents=True)
    (corpus / "out" / "_unfinished").mkdir(parents=True)
    for name, content in (
        ("part-0.jsonl", ""), ("part-1.jsonl", '{"id": 1, "text": "one"}\n'), ("B.CSV", "id;text\n2;two\n"),
        ("x.csv/c.tsv", "id\ttext\n3\tthree\n"), ("about.json", '{\n "rows": 3\n}'), ("more.json", '{"rows": 3}'),
        ("README.md", "#"),
        ("d.jsonl.zst", "x"), (".hidden.csv", "no"), ("_SUCCESS", ""), ("out/part-0.csv", "id,text\n1,one\n"),
    ):  # fmt: skip
        (corpus / name).write_text(content)
    (corpus / "loop").symlink_to(corpus)
    rows, notes = by_job(corpus / "*", tmp_path)
    assert [row["text"] for row in rows] == ["two", "one"]
    (tmp_path / "staged").rename(tmp_path / "before")
    (corpus / "loop").unlink()
    rows, notes = by_job(corpus, tmp_path, carry=("id",))
    assert [(row["id"], row["text"]) for row in rows] == [("2", "two"), ("1", "one"), ("3", "three")]
    assert sorted(notes) == [
        "B.CSV: read with a semicolon as delimiter; --delimiter sets another",
        "README.md: left out: unsupported file type; expected .parquet, or .jsonl/.ndjson/.json/.csv/.tsv/.txt "
        "(optionally .gz/.bz2/.zst)",
        "about.json, more.json: left out: it has one JSON object without posts",
        "d.jsonl.zst: left out: it is not compressed with zstd, as its name says",
        "out/: left out: it is the output of an annotation",
    ]
    assert by_api(corpus)["text"].tolist() == ["two", "one", "three"]


def test_columns_are_carried_out_of_json_and_csv_together(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text('{"id": 1, "text": "x", "n": 1}\n{"id": 2, "text": "x"}\n')
    (corpus / "b.csv").write_text("id,text,n\n3,y,01\n")
    assert [row["n"] for row in by_job(corpus, tmp_path, carry=("n",))[0]] == ["1", None, "01"]
