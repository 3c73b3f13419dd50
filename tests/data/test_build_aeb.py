"""`build_data aeb` on small files of every source: parts, golds, spelling, missing sources, overlap."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from emollm.core.errors import DataError
from emollm.core.folders import read_run
from emollm.core.tasks import TASKS, Task
from emollm.data.aaid import AaidConfig, build_aaid
from emollm.data.aeb import AEB, AebConfig, build_aeb
from emollm.data.instructions import gold_value, read_rows

FILES = Path(__file__).parent / "corpora" / "files"
OFFICIAL: dict[str, Any] = {
    "semeval": FILES / "semeval",
    "sst": FILES / "sst_distribution",
    "tdt": FILES / "tdt",
    "emobank": FILES / "emobank",
    "goemotions": FILES / "goemotions",
    "vader": FILES / "vader",
}


def build(tmp_path: Path, **options: Any) -> dict[str, list[dict[str, Any]]]:
    tables = build_aeb(AebConfig(out=tmp_path / "aeb", **{"allow_missing": True, **options}))
    return {name: table.to_pylist() for name, table in tables.items()}


def manifest(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "aeb" / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_the_published_benchmark_has_14_tasks_and_30808_rows() -> None:
    assert len(AEB) == 14
    assert sum(sum(part.questions.values()) for part in AEB) == 30_808
    assert {task for part in AEB for task in part.tasks} <= set(TASKS)


def test_one_file_per_task_from_the_official_files(tmp_path: Path) -> None:
    rows = build(tmp_path, **OFFICIAL)
    assert {name: len(found) for name, found in rows.items()} == {
        "EI-reg": 2, "V-reg": 1, "E-c": 2, "TDT": 3, "SST": 2, "SST5": 2, "EmoBank": 6, "GoEmotions": 3,
        "VADER-Amazon": 3, "VADER-Movie": 2, "VADER-NYT": 2, "VADER-Tweets": 2,
    }  # fmt: skip
    for name, found in rows.items():
        assert read_rows(tmp_path / "aeb", name).to_pylist() == found
    run = read_run(tmp_path / "aeb")
    assert run is not None
    assert {task["name"] for task in run["tasks"]} == {row["task"] for found in rows.values() for row in found}
    assert all(Task.model_validate(task) == TASKS[task["name"]] for task in run["tasks"])


def test_every_file_read_is_hashed(tmp_path: Path) -> None:
    build(tmp_path, **OFFICIAL)
    files = manifest(tmp_path)["files"]
    assert {name for name in files if name.startswith("sst/")} == {
        "sst/datasetSentences.txt", "sst/datasetSplit.txt", "sst/dictionary.txt", "sst/sentiment_labels.txt"
    }  # fmt: skip
    assert {"emobank/emobank.csv", "goemotions/test.tsv", "tdt/test.raw", "vader/tweets_GroundTruth.txt"} <= set(files)


def test_golds_are_exact_in_their_own_range_and_in_unit_form(tmp_path: Path) -> None:
    rows = build(tmp_path, **OFFICIAL)
    first = rows["EmoBank"][0]
    assert (first["task"], first["value"], first["answer"]) == ("EmoBank-V", 2.8, "0.45")
    assert first["unit"] == pytest.approx(0.45)
    assert [row["task"] for row in rows["EmoBank"]] == [f"EmoBank-{d}" for d in "VVAADD"]
    assert [row["value"] for row in rows["VADER-Tweets"]] == [1.5, -3.25]
    assert [row["unit"] for row in rows["VADER-Tweets"]] == [0.6875, 0.09375]
    assert [gold_value(TASKS["TDT"], row) for row in rows["TDT"]] == [1, -1, 0]
    assert gold_value(TASKS["GoEmotions"], rows["GoEmotions"][0]) == ("sadness", "surprise")
    assert [row["value"] for row in rows["SST"]] == [0.79167, 0.2]


def test_texts_are_spelled_as_published(tmp_path: Path) -> None:
    rows = build(tmp_path, **OFFICIAL)
    assert rows["SST"][1]["text"] == "( my café ) closes"
    assert rows["SST5"][1]["text"] == "-lrb- my café -rrb- closes"
    assert rows["GoEmotions"][0]["text"] == 'I lost. "Again?"'
    # AEB-2 texts get no full stop, those of SemEval do.
    assert rows["SST"][0]["post"] == " A lovely lamp\\/chair"
    assert rows["V-reg"][0]["post"] == " soup again."


def test_missing_sources_are_named_and_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no rows for .*SST, GoEmotions.* give --goemotions, --semeval, --sst, --vader"
    ):
        build(tmp_path, allow_missing=False, tdt=FILES / "tdt", sst=FILES / "sst_trees", emobank=FILES / "emobank")
    assert not (tmp_path / "aeb").exists()
    with pytest.raises(DataError, match="no rows for EI-reg"):
        build(tmp_path)


def test_allow_missing_names_what_is_left_out(tmp_path: Path) -> None:
    rows = build(tmp_path, sst=FILES / "sst_trees")
    assert list(rows) == ["SST5"]
    assert len(manifest(tmp_path)["missing"]) == 13
    assert manifest(tmp_path)["differs_from_published"] == {"SST5": {"SST5": {"published": 2210, "here": 3}}}


def test_a_source_that_is_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test\.raw under"):
        build(tmp_path, tdt=FILES / "emobank")


def test_goemotions_28_is_an_extra(tmp_path: Path) -> None:
    rows = build(tmp_path, goemotions=FILES / "goemotions", goemotions_28=True)
    assert list(rows) == ["GoEmotions", "GoEmotions-28"]
    assert rows["GoEmotions-28"][0]["labels"] == ["sadness", "confusion"]
    assert rows["GoEmotions-28"][0]["text"] == '"I lost." "Again?"'  # never published, so as the corpus has it


def published(folder: Path, **rows: list[tuple[str, object]]) -> Path:
    folder.mkdir()
    for name, found in rows.items():
        lines = [json.dumps({"instruction": i, "input": "", "output": o}) for i, o in found]
        (folder / f"{name}.json").write_text("\n".join(lines) + "\n")
    return folder


RELEASE: dict[str, list[tuple[str, object]]] = {
    "sst": [("Task: How good is it? Text: A lovely lamp Sentiment score: ", 0.79167)],
    "semeval": [
        (f"Task: {wording} Tweet: lamp {i}. Emotion E: joy. Intensity Score: ", str(i / 10))
        for i, wording in enumerate(["Rate E.", "Score E.", "Rate E."])
    ],
    "emobank": [("Task: Rate valence, 1 to 5. Text: A lamp. Intensity Score: ", 2.8)],
}


def test_published_rows_with_their_own_wordings_come_out_letter_for_letter(tmp_path: Path) -> None:
    release = published(tmp_path / "release", **RELEASE)
    rows = build(tmp_path, published=release, templates=release)
    for name, part in (("sst", "SST"), ("semeval", "EI-reg"), ("emobank", "EmoBank")):
        assert [row["prefix"] + row["post"] + row["suffix"] for row in rows[part]] == [i for i, _ in RELEASE[name]]
        assert [row["value"] for row in rows[part]] == [float(str(o)) for _, o in RELEASE[name]]
    # Such wordings ask EmoBank in 1..5, and models of ours answer in 0..1: said, not hidden.
    assert manifest(tmp_path)["asked_in_own_range"] == ["EmoBank-V"]


def test_without_imported_wordings_published_rows_are_asked_in_ours(tmp_path: Path) -> None:
    rows = build(tmp_path, published=published(tmp_path / "release", **RELEASE))
    assert rows["SST"][0]["prefix"].removeprefix("Task: ").removesuffix(" Text:") in TASKS["SST"].templates
    assert manifest(tmp_path)["asked_in_own_range"] == []


def test_official_files_go_before_published_ones(tmp_path: Path) -> None:
    release = published(tmp_path / "release", **RELEASE)
    rows = build(tmp_path, published=release, emobank=FILES / "emobank")
    assert {row["source"] for row in rows["EmoBank"]} == {"emobank"}
    assert {row["source"] for row in rows["SST"]} == {"published"}


def test_wordings_are_drawn_by_seed_or_always_the_first(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text(
        "id,split,V,A,D,text\n" + "".join(f"r{i},test,3,3,3,lamp {i}\n" for i in range(50))
    )
    drawn = build(tmp_path, emobank=tmp_path / "emobank.csv")["EmoBank"]
    again = build(tmp_path, emobank=tmp_path / "emobank.csv", overwrite=True)["EmoBank"]
    first = build(tmp_path, emobank=tmp_path / "emobank.csv", overwrite=True, wording="first")["EmoBank"]
    assert {row["template"] for row in drawn} == {0, 1, 2}
    assert drawn == again
    assert {row["template"] for row in first} == {0}


def test_a_thousand_rows_of_a_vader_set_are_drawn_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "vader").mkdir()
    for path in (FILES / "vader").iterdir():
        (tmp_path / "vader" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vader" / "tweets_GroundTruth.txt").write_text("".join(f"{i}\t0.5\tlamp {i}\n" for i in range(4200)))
    rows = build(tmp_path, vader=tmp_path / "vader")["VADER-Tweets"]
    lines = [row["line"] for row in rows]
    assert len(lines) == 1000
    assert lines == sorted(set(lines))
    assert lines != list(range(1, 1001))


def test_bad_rows_of_all_sources_together(tmp_path: Path) -> None:
    (tmp_path / "test.raw").write_text("$T$ !\na lamp\n3\n$T$ ?\na chair\n0\n")
    (tmp_path / "emobank.csv").write_text("id,split,V,A,D,text\na,test,9,3,3,a lamp\n")
    options = {"tdt": tmp_path, "emobank": tmp_path / "emobank.csv"}
    with pytest.raises(DataError, match=r"^2 bad rows:\n.*test\.raw:1: '3'.*\n.*emobank\.csv:2: '9'"):
        build(tmp_path, **options)
    rows = build(tmp_path, **options, skip_bad=True)
    assert {name: len(found) for name, found in rows.items()} == {"TDT": 1, "EmoBank": 2}
    assert len((tmp_path / "aeb" / "rejected.jsonl").read_text().splitlines()) == 2


def test_training_texts_in_the_benchmark_are_counted(tmp_path: Path) -> None:
    build_aaid(AaidConfig(out=tmp_path / "train", templates_per_example=1))
    learnt = read_rows(tmp_path / "train", "train")["text"][0].as_py()
    (tmp_path / "test.raw").write_text(f"$T$\n{learnt}\n0\n$T$ {learnt.upper()}\n!\n0\n$T$\nnew to all\n0\n")
    build(tmp_path, tdt=tmp_path, against=tmp_path / "train")
    card = (tmp_path / "aeb" / "card.html").read_text()
    # Three texts, one there letter for letter, none asked the same question, two alike.
    cells = re.findall(r"<td[^>]*>(.*?)</td>", card)
    found = cells.index("train (other folder)")
    assert cells[found - 1 : found + 5] == ["TDT", "train (other folder)", "3", "1", "0", "2"]
