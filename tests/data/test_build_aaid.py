"""`build_data aaid` on the sample corpora: rows, manifest, determinism, imported wordings, bad rows."""

import json
import shutil
from pathlib import Path

import pytest

from emollm.core.errors import ConfigError, DataError
from emollm.core.folders import read_run
from emollm.core.tasks import PROFILE, TASKS, Task
from emollm.data.aaid import OFFICIAL_AAID, SAMPLES, AaidConfig, build_aaid
from emollm.data.corpora.published import read_published
from emollm.data.instructions import read_rows

SEMEVAL = SAMPLES / "semeval2018"


def test_official_counts_make_the_published_rows() -> None:
    assert 10 * sum(OFFICIAL_AAID["train"].values()) == 234_040
    assert 10 * sum(OFFICIAL_AAID["validation"].values()) == 47_120


def test_every_example_in_all_ten_wordings(tmp_path: Path) -> None:
    tables = build_aaid(AaidConfig(out=tmp_path / "data"))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    examples = sum(1 for path in SEMEVAL.rglob("*-train.txt") for line in path.read_text().splitlines()[1:] if line)
    assert tables["train"].num_rows == manifest["tables"]["train"]["rows"] == 10 * examples
    for split, table in tables.items():
        assert read_rows(tmp_path / "data", split).num_rows == table.num_rows
        counts = manifest["tables"][split]
        assert len(counts["questions"]) == 11
        assert sum(counts["questions"].values()) == sum(counts["templates"].values()) == table.num_rows
        # Each of a task's wordings is on each of its examples once.
        for task in PROFILE:
            assert len({counts["templates"][f"{task}/{i}"] for i in range(10)}) == 1
        assert sum(counts["labels"]["V-oc"].values()) == counts["questions"]["V-oc"]


def test_manifest_says_where_all_came_from(tmp_path: Path) -> None:
    build_aaid(AaidConfig(out=tmp_path / "data", seed=7))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["wording"]["from"] == "emollm"
    assert manifest["wording"]["templates"]["V-reg"] == list(TASKS["V-reg"].templates)
    assert len(manifest["files"]) == 22
    assert len(manifest["files"]["semeval/V-reg/Valence-reg-En-dev.txt"]) == 64
    run = read_run(tmp_path / "data")
    assert run is not None
    assert [Task.model_validate(task).name for task in run["tasks"]] == list(PROFILE)


@pytest.mark.slow
def test_same_inputs_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    # The same corpus elsewhere, its folders listed in another order.
    shutil.copytree(SEMEVAL, tmp_path / "elsewhere")
    build_aaid(AaidConfig(out=tmp_path / "one", jsonl=True))
    build_aaid(AaidConfig(out=tmp_path / "two", jsonl=True, semeval=tmp_path / "elsewhere"))
    build_aaid(AaidConfig(out=tmp_path / "other", seed=4))
    names = {path.name for path in (tmp_path / "one").iterdir()} - {"run.json"}
    assert names == {"train.parquet", "validation.parquet", "train.jsonl", "validation.jsonl", "manifest.json",
                     "card.html"}  # fmt: skip
    for name in names - {"manifest.json", "card.html"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert one | {"differs_from_official": None} == two | {"differs_from_official": None}
    assert (tmp_path / "one" / "train.parquet").read_bytes() != (tmp_path / "other" / "train.parquet").read_bytes()


def test_a_second_run_is_byte_identical(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_aaid(AaidConfig(out=tmp_path / name, templates_per_example=2))
    for path in (tmp_path / "one").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_json_lines_are_read_back_as_published_ones(tmp_path: Path) -> None:
    tables = build_aaid(AaidConfig(out=tmp_path / "data", jsonl=True, templates_per_example=1))
    examples = read_published(tmp_path / "data" / "validation.jsonl", "dev")
    rows = tables["validation"].to_pylist()
    assert [(e.task, e.emotion) for e in examples] == [(row["task"], row["emotion"]) for row in rows]


@pytest.mark.slow
def test_imported_wordings_take_the_place_of_ours(tmp_path: Path) -> None:
    build_aaid(AaidConfig(out=tmp_path / "ours", jsonl=True))
    published = tmp_path / "ours" / "train.jsonl"
    lines = published.read_text().replace("Score emotion E in the tweet", "Put a number on E in the tweet")
    published.write_text(lines)
    tables = build_aaid(AaidConfig(out=tmp_path / "theirs", templates=published))
    texts = {row["prefix"] + row["post"] + row["suffix"] for row in tables["train"].to_pylist()}
    said = {json.loads(line)["conversations"][0]["value"] for line in lines.splitlines()}
    assert texts == said
    assert json.loads((tmp_path / "theirs" / "manifest.json").read_text())["wording"]["from"] == "train.jsonl"


def test_wordings_of_another_benchmark_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sst.json"
    path.write_text('{"instruction": "Task: Rate. Text: a lamp Sentiment score: ", "output": 0.5}\n')
    with pytest.raises(ConfigError, match="has no wording of EI-reg, EI-oc, V-reg, V-oc, E-c; it has: SST"):
        build_aaid(AaidConfig(out=tmp_path / "data", templates=path))


def spoil(folder: Path) -> Path:
    shutil.copytree(SEMEVAL, folder)
    path = folder / "V-reg" / "Valence-reg-En-train.txt"
    path.write_text(path.read_text() + "bad-1\ta lamp\tvalence\t1.5\nbad-2\t\tvalence\t0.5\n")
    path = folder / "V-oc" / "Valence-oc-En-dev.txt"
    path.write_text(path.read_text() + "bad-3\ta lamp\tvalence\tgood\n")
    return folder


def test_bad_rows_of_all_files_refuse_the_whole_and_nothing_is_written(tmp_path: Path) -> None:
    semeval = spoil(tmp_path / "semeval")
    with pytest.raises(DataError) as error:
        build_aaid(AaidConfig(out=tmp_path / "data", semeval=semeval))
    message = str(error.value)
    assert message.startswith("3 bad rows:\n")
    assert "Valence-reg-En-train.txt" in message
    assert "Valence-oc-En-dev.txt" in message
    assert "--skip-bad" in message
    assert {path.name for path in tmp_path.iterdir()} == {"semeval"}


def test_skip_bad_writes_the_good_and_lists_the_bad(tmp_path: Path) -> None:
    good = build_aaid(AaidConfig(out=tmp_path / "good"))
    tables = build_aaid(AaidConfig(out=tmp_path / "data", semeval=spoil(tmp_path / "semeval"), skip_bad=True))
    assert tables["train"].num_rows == good["train"].num_rows
    rejected = [json.loads(line) for line in (tmp_path / "data" / "rejected.jsonl").read_text().splitlines()]
    assert [(Path(row["file"]).name, row["value"]) for row in rejected] == [
        ("Valence-reg-En-train.txt", "1.5"),
        ("Valence-reg-En-train.txt", ""),
        ("Valence-oc-En-dev.txt", "good"),
    ]
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["rejected"] == {"rows": 3, "labels": 3}


def test_a_skipped_file_of_another_task_adds_up_too(tmp_path: Path) -> None:
    semeval = tmp_path / "semeval"
    shutil.copytree(SEMEVAL, semeval)
    swapped = semeval / "V-reg" / "Valence-reg-En-train.txt"
    shutil.copy(semeval / "V-oc" / "Valence-oc-En-train.txt", swapped)
    rows = len([line for line in swapped.read_text().splitlines()[1:] if line])
    whole = build_aaid(AaidConfig(out=tmp_path / "whole"))
    tables = build_aaid(AaidConfig(out=tmp_path / "data", semeval=semeval, skip_bad=True))
    rejected = json.loads((tmp_path / "data" / "manifest.json").read_text())["rejected"]
    assert rejected == {"rows": 1, "labels": rows}
    assert tables["train"].num_rows + 10 * rows == whole["train"].num_rows


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="exists"):
        build_aaid(AaidConfig(out=tmp_path / "data", semeval=tmp_path / "nowhere"))
    assert (tmp_path / "data" / "mine.txt").read_text() == "keep"
