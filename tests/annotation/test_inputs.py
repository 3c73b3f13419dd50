"""Which files a corpus is made of, and what their rows become."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.annotation.blocks import Block, read_block
from emollm.annotation.job import choose_columns
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.stage import GROUP_ROWS, Corpus, Staged, read_staged, stage_corpus, stage_group, staged_name
from emollm.core.errors import ConfigError, DataError
from emollm.data.files.carry import type_from_text
from emollm.data.files.columns import Columns, Notes, Reading
from emollm.data.files.ids import IdHashes, derive_ids, hash_ids
from emollm.data.files.inputs import find_files, groups_of
from emollm.data.files.readers import column_names, count_rows, read_rows

ROWS = Columns(id="id", text="text")


def table_of(path: Path, columns: Columns = ROWS) -> list[dict[str, object]]:
    filesystem, (file,) = find_files(str(path))
    tables = list(read_rows(filesystem, file, columns))
    found = pa.concat_tables(tables).to_pylist()
    assert count_rows(filesystem, file, columns) == len(found)
    return found


def texts(path: Path) -> list[tuple[object, ...]]:
    return [(row["id"], row["text"], row["problem"]) for row in table_of(path)]


def test_a_folder_a_pattern_and_a_uri_name_the_same_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b/c.parquet", "b/d.csv.gz", "b/_skipped/e.csv", ".hidden.csv", "notes.md", "b/f[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    every = ["a.jsonl", "b/c.parquet", "b/d.csv.gz", "b/f[1].txt"]

    def names(where: str) -> list[str]:
        return [file.name for file in find_files(where)[1]]

    assert names(str(tmp_path)) == every == names(f"file://{tmp_path}")
    assert names(f"{tmp_path}/**/*.parquet") == ["b/c.parquet"] == names(f"file://{tmp_path}/b*/*.parquet")[:1]
    assert names(f"{tmp_path}/*.jsonl") == ["a.jsonl"] and names(f"{tmp_path}/b/[cd].*") == ["c.parquet", "d.csv.gz"]
    assert names(f"{tmp_path}/b/f[1].txt") == ["f[1].txt"]  # a file of that name, before a pattern
    for where, message in (("nowhere", "no input at"), ("*.md", "holds no file of posts"), ("notes.md", r"\.jsonl")):
        with pytest.raises(DataError, match=message):
            find_files(f"{tmp_path}/{where}")
    with pytest.raises(DataError, match="no address that can be read"):
        find_files("ftp://host/x.csv")


def test_a_uri_may_hold_any_wildcard_and_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    for name in ("a1.csv", "a2.csv", "b1.csv"):
        (folder / name).write_text("x")
    for pattern, names in (("a?.csv", ["a1.csv", "a2.csv"]), ("[!a]1.csv", ["b1.csv"]), ("?[2].csv", ["a2.csv"])):
        for where in (f"{folder}/{pattern}", f"file://{folder}/{pattern}", f"{folder.as_uri()}/{pattern}"):
            assert [file.name for file in find_files(where)[1]] == names, where
    assert len(find_files(folder.as_uri())[1]) == len(find_files(f"file://{folder}")[1]) == 3


def test_gzipped_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet.gz")
    with pytest.raises(DataError, match=r"b\.parquet\.gz cannot be read: .*gunzip"):
        find_files(str(tmp_path))
    assert len(find_files(f"{tmp_path}/*.csv")[1]) == 1


def test_small_files_are_read_together_and_large_ones_alone(tmp_path: Path) -> None:
    for name, size in (("a", 3), ("b", 4), ("c", 50), ("d", 2)):
        (tmp_path / f"{name}.txt").write_text("x" * size)
    groups = groups_of(find_files(str(tmp_path))[1], group_bytes=10)
    assert [[file.name[0] for file in group] for group in groups] == [["a", "b"], ["c"], ["d"]]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [7, 8], "text": ["one", "zwei ü"]}), tmp_path / "p.parquet")
    as_dictionary = pa.table({"id": ["7", "8"], "text": pa.array(["one", "zwei ü"]).dictionary_encode()})
    pq.write_table(as_dictionary, tmp_path / "q.parquet")
    (tmp_path / "p.csv").write_text('id,text\n7,"one"\n8,zwei ü\n')
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress('text,id\n"one",7\nzwei ü,8\n'.encode()))
    lines = b'{"id": 7, "text": "one"}\r\n\n{"id": "8", "text": "zwei \\u00fc"}'
    (tmp_path / "p.jsonl").write_bytes(lines)
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(lines))
    for path in tmp_path.iterdir():
        assert texts(path) == [("7", "one", None), ("8", "zwei ü", None)], path


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("one\u2028still\x0bone\r\n\n  \ntwo ".encode() + b"\xff")
    rows = table_of(tmp_path / "p.txt", Columns(id=None, text="text"))
    assert [(row["place"], row["text"], row["problem"]) for row in rows] == [
        (1, "one\u2028still\x0bone", None),
        (4, "two \ufffd", "invalid_utf8"),
    ]


def test_no_content_of_a_row_stops_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(
        b'{"id": 1, "text": null}\n{"id": 2}\n{"id": 3, "text": 4.5}\n{"id": 4, "text": {"a": 1}}\n'
        b'{"id": 5, "text": "\\ud83d"}\n{"id": 6, "text": "\xf0\x28"}\n[1, 2]\n{"id": 8, "te\n'
        b'{"id": "\xff", "text": "ok"}\n{"id": 10, "text": "a real \xef\xbf\xbd"}\n' + b"[" * 100_000
    )
    assert texts(tmp_path / "p.jsonl") == [
        ("1", None, None),
        ("2", None, None),
        ("3", "4.5", "not_text: float"),
        ("4", '{"a": 1}', "not_text: dict"),
        ("5", "?", None),
        ("6", "\ufffd(", "invalid_utf8"),
        ("p.jsonl:7", "[1, 2]", "malformed_row: not a JSON object"),
        ("p.jsonl:8", '{"id": 8, "te', "malformed_row: not a JSON object"),
        ("\ufffd", "ok", None),
        ("10", "a real \ufffd", None),
        ("p.jsonl:11", "[" * 100_000, "malformed_row: not a JSON object"),
    ]
    broken = pa.array([b"fine", b"\xff!", None], pa.binary())
    unchecked = pa.StringArray.from_buffers(3, *broken.buffers()[1:], broken.buffers()[0])
    pq.write_table(pa.table({"id": ["a", "b", None], "text": unchecked}), tmp_path / "p.parquet")
    assert texts(tmp_path / "p.parquet") == [("a", "fine", None), ("b", "\ufffd!", "invalid_utf8"), (None, None, None)]
    (tmp_path / "p.csv").write_bytes(b"id,text\n1,\xff\n2,\n")
    assert texts(tmp_path / "p.csv") == [("1", "\ufffd", "invalid_utf8"), ("2", "", None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"id": 1, "text": \n', r"p\.jsonl cannot be read: line 1 is not a JSON object"),
        ("p.jsonl.gz", b"no gzip at all", r"p\.jsonl\.gz cannot be read"),
        ("p.parquet", b"PAR1 no", r"p\.parquet cannot be read"),
        ("p.csv", b'id,"text\n1,x\n2,y,z\n', r"p\.csv: line 1, which should name the columns, is not CSV: a quote is"),
    ],
)  # fmt: skip
def test_a_broken_file_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    filesystem, (file,) = find_files(str(tmp_path / name))
    with pytest.raises(DataError, match=message):
        _ = column_names(filesystem, file, Reading()), list(read_rows(filesystem, file, ROWS))


def test_a_cut_off_gzip_file_says_why(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"id": %d, "text": "x%d"}\n' % (i, i * 7919) for i in range(100_000)))
    (tmp_path / "p.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"p\.jsonl\.gz cannot be read"):
        table_of(tmp_path / "p.jsonl.gz")


def test_columns_are_chosen_by_name_and_a_wrong_one_lists_the_others(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"key": 1, "body": "x", "lang": "en", "truncated": true}\n')
    filesystem, (file,) = find_files(str(path))

    def chosen(**options: object) -> Columns:
        settings = {"model": "m", "input": path, "out": tmp_path / "out", "text_column": "body"}
        return choose_columns(AnnotateConfig.model_validate(settings | options), (), filesystem, [file])

    assert chosen() == Columns(id=None, text="body")
    assert chosen(id_column="key", carry=("lang",)) == Columns(id="key", text="body", carry=("lang",))
    for options, message in (
        ({"text_column": "text"}, "no column 'text'; give --text-column, one of: key, body, lang, truncated"),
        ({"id_column": "id"}, "no column 'id'; give --id-column"),
        ({"carry": ("*",)}, "'truncated' cannot be carried: the output has one of that name"),
    ):
        with pytest.raises(DataError, match=message):
            chosen(**options)


def test_plain_text_takes_no_id_column_and_hides_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.csv").write_text("id,text,lang\n7,two,en\n")
    filesystem, files = find_files(str(tmp_path))

    def chosen(**options: object) -> Columns:
        settings = {"input": tmp_path, "out": tmp_path / "out"}
        return choose_columns(AnnotateConfig.model_validate(settings | options), (), filesystem, files)

    assert chosen(carry=("lang",)) == Columns(id="id", text="text", carry=("lang",))
    assert [row["id"] for row in staged(tmp_path, chosen())[1]] == ["a.txt:1:8e83ed46", "7"]
    with pytest.raises(DataError, match=r"a\.txt is plain text and has no --id-column 'id'"):
        chosen(id_column="id")


def staged(folder: Path, columns: Columns, *, together: bool = True) -> tuple[Corpus, list[dict[str, object]]]:
    """A folder's corpus, its files staged as one group or each alone, and its rows as they are scored."""
    filesystem, files = find_files(str(folder))
    target = folder / f"_staged-{together}"
    target.mkdir()

    def stage(groups: Any, take: Any) -> None:
        for number, group in groups:
            take(number, stage_group(filesystem, group, columns, filesystem, str(target), number, None))

    groups = groups_of(files, group_bytes=1 << 20 if together else 0)
    corpus = stage_corpus(groups, columns, stage, lambda _: [], max_posts=None, source=str(folder), notes=Notes())
    return corpus, read_staged(filesystem, str(target), corpus, 0, corpus.posts).to_pylist()


@pytest.mark.parametrize(
    ("first", "second", "type_", "values"),
    [
        (pa.nulls(1), pa.array(["en"]), pa.string(), [None, "en"]),
        (None, pa.array(["en"]), pa.string(), [None, "en"]),
        (pa.array([["en"]]), None, pa.list_(pa.string()), [["en"], None]),
        (pa.array([1]), pa.array([1.5]), pa.string(), ["1", "1.5"]),
        (pa.array(["en"]).dictionary_encode(), pa.array(["de"]), pa.string(), ["en", "de"]),
    ],
)
def test_a_carried_column_does_not_depend_on_how_files_are_grouped(
    tmp_path: Path, first: Any, second: Any, type_: pa.DataType, values: list[object]
) -> None:
    for name, tag in (("a", first), ("b", second)):
        columns = {"id": [name], "text": ["x"]} | ({} if tag is None else {"tag": tag})
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    for together in (True, False):
        corpus, rows = staged(tmp_path, Columns("id", "text", ("tag",)), together=together)
        assert {name: type_from_text(text) for name, text in corpus.carried.items()} == {"tag": type_}
        assert [row["tag"] for row in rows] == values


def test_plain_text_carries_nulls_beside_what_others_carry(tmp_path: Path) -> None:
    for other, line in (("a.csv", "id,text,n\n7,x,1\n"), ("a.jsonl", '{"id": 7, "text": "x", "n": 1}\n')):
        folder = tmp_path / other[2:]
        folder.mkdir()
        (folder / other).write_text(line)
        (folder / "b.txt").write_text("y\n")
        for together in (True, False):
            _, rows = staged(folder, Columns("id", "text", ("n",)), together=together)
            assert [row["n"] for row in rows] == ["1" if other == "a.csv" else 1, None]


def test_long_integers_beside_floats_are_carried_digit_by_digit(tmp_path: Path) -> None:
    numbers = ("1.5", "123456789012345678", "9007199254740993")
    for n, number in enumerate(numbers):
        (tmp_path / f"{n}.jsonl").write_text(f'{{"id": {n}, "text": "x", "n": {number}}}\n')
    assert [row["n"] for row in staged(tmp_path, Columns("id", "text", ("n",)))[1]] == list(numbers)


def test_a_carried_column_with_two_types_that_text_cannot_hold_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["x"], "tag": [["a"]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "text": ["y"], "tag": [5]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"'tag' is list<.*> in .*/a\.parquet and int64 in .*/b\.parquet; leave it out"):
        staged(tmp_path, Columns(id="id", text="text", carry=("tag",)))


def test_rows_far_apart_are_read_without_what_lies_between(tmp_path: Path) -> None:
    posts = [f"{i:05}" for i in range(5 * GROUP_ROWS)]
    (tmp_path / "p.csv").write_text("id,text\n" + "".join(f"{post},post {post}\n" for post in posts))
    filesystem, files = find_files(str(tmp_path))
    stage_group(filesystem, files, Columns("id", "text"), filesystem, str(tmp_path), 0, None)
    path = tmp_path / staged_name(0, 0)
    metadata = pq.read_metadata(path)
    whole = bytearray(path.read_bytes())
    for group in (1, 3):
        column = metadata.row_group(group).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        whole[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(whole)
    spans = ((0, 2), (2 * GROUP_ROWS + 1, 2 * GROUP_ROWS + 2), (5 * GROUP_ROWS - 1, 5 * GROUP_ROWS))
    block = Block(Staged(path.name, 100, len(posts)), spans)
    (table,) = read_block(filesystem, str(tmp_path), block, {})
    assert table["id"].to_pylist() == ["00000", "00001", "02049", "05119"]
    assert table["row"].to_pylist() == [100, 101, 2149, 5219]


def test_any_rows_of_the_staged_input_are_read_in_order(tmp_path: Path) -> None:
    posts = 3 * GROUP_ROWS + 5
    for name in ("a", "b"):
        lines = "".join(f"{name}{i},text of {name}{i}\n" for i in range(posts))
        (tmp_path / f"{name}.csv").write_text("id,text\n" + lines)
    corpus, rows = staged(tmp_path, ROWS, together=False)
    assert [row["id"] for row in rows] == [f"{name}{i}" for name in "ab" for i in range(posts)]
    target, edges = find_files(str(tmp_path))[0], (0, 1, GROUP_ROWS, posts - 1, posts, posts + GROUP_ROWS, 2 * posts)
    for first, stop in itertools.pairwise(edges):
        found = read_staged(target, str(tmp_path / "_staged-False"), corpus, first, stop)
        assert found.to_pylist() == rows[first:stop]


def test_derived_ids_are_stable_and_differ() -> None:
    table = pa.table({"place": [1, 2], "text": ["same", None]})
    assert derive_ids("a/b.txt", table).to_pylist() == ["a/b.txt:1:5bf1936c", "a/b.txt:2:1271cf25"]
    other = pa.table({"place": [1, 2], "text": ["else", None]})
    first, second = derive_ids("a/b.txt", table).to_pylist(), derive_ids("a/b.txt", other).to_pylist()
    assert first[0] != second[0] and first[1] == second[1]


def test_repeated_ids_are_found_among_many() -> None:
    ids = IdHashes()
    for start in range(0, 10_000, 1000):
        ids.add(hash_ids(pa.array([f"id-{i}" for i in range(start, start + 1000)])))
    assert len(ids.repeated()) == 0
    ids.add(hash_ids(pa.array(["id-77", "id-9999", "new"])))
    assert ids.repeated().tolist() == sorted(hash_ids(pa.array(["id-77", "id-9999"])).tolist())


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    from emollm.core.options import read_config

    base = ["--model", "m", "--input", "i", "--out", "o"]
    for options, message in (
        (["--overwrite", "--retry-errors"], "give one of them"),
        (["--max-workers", "1", "--cluster.num-workers", "2"], "--max-workers 1 is less than"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(AnnotateConfig, [*base, *options], prog="annotate")


def test_errors_of_a_job_are_reported_before_ray_starts(tmp_path: Path, model_directory: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": 1, "text": "x"}\n')
    settings = {"model": model_directory, "input": path, "out": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    for overwrite in (False, True):
        job = AnnotateConfig.model_validate({**settings, "model": str(model_directory), "overwrite": overwrite})
        with pytest.raises(DataError, match="choose another --out"):
            annotate_corpus(job)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
