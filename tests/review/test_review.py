"""From annotated posts to a review file, and from a filled-in one to data that trains; several annotators merged."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.commands import merge as merge_command
from emollm.commands import review as review_command
from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS, Kind
from emollm.data.aaid import OwnConfig, build_own
from emollm.data.corpora.own import read_own
from emollm.review.annotated import Annotated, doubt, read_annotated, read_value
from emollm.review.combine import align, combine, compare, joined
from emollm.review.pick import pick
from emollm.review.sheet import merge_reviews, write_review

ASKED = (TASKS["V-reg"], TASKS["E-c"])


def annotated(path: Path, valence: list[float | None], emotions: list[list[str] | None], sure: list[float]) -> Path:
    texts = ["a quiet day", "so angry!!", "they won, I am crying of joy", "hm", "hm"][: len(valence)]
    table = {
        "id": [f"p{n}" for n in range(len(valence))],
        "text": texts,
        "v_reg": pa.array(valence, pa.float64()),
        "v_reg_confidence": pa.array(sure, pa.float32()),
        "e_c": pa.array(emotions, pa.list_(pa.string())),
        "e_c_confidence": pa.array(sure, pa.float32()),
    }
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    emotions: list[list[str] | None] = [["joy"], ["anger"], ["joy", "love"], [], []]
    return annotated(tmp_path / "a.parquet", [0.5, 0.1, 0.9, 0.5, 0.5], emotions, [0.9, 0.8, 0.2, 0.6, 0.1])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    emotions: list[list[str] | None] = [["joy"], ["sadness"], ["joy"], None, []]
    return annotated(tmp_path / "b.parquet", [0.6, 0.8, 0.9, None, 0.5], emotions, [0.9] * 5)


def test_cells_of_every_format_say_the_same() -> None:
    sets = (["joy", "love"], '["joy", "love"]', "joy, love", "joy, love.", {"choices": ["joy", "love"]})
    assert {read_value(TASKS["E-c"], cell) for cell in sets} == {("joy", "love")}
    assert read_value(TASKS["E-c"], "neutral or no emotion") == () == read_value(TASKS["E-c"], [])
    assert read_value(TASKS["E-c"], " ") is None and read_value(TASKS["V-reg"], float("nan")) is None
    assert read_value(TASKS["SST5"], "0") == 0 == read_value(TASKS["SST5"], TASKS["SST5"].classes[0].phrase)
    for task, wrong in (("E-c", "glee"), ("V-reg", "1.5"), ("SST5", "7"), ("V-reg", "high")):
        with pytest.raises(ValueError, match=r".+"):
            read_value(TASKS[task], wrong)


def test_the_most_useful_posts_come_first_and_each_text_once(first: Path, second: Path) -> None:
    posts, other = read_annotated(str(first), ASKED), read_annotated(str(second), ASKED)
    assert [(p.row, p.why) for p in pick(posts, 9, by="uncertain")] == [
        (4, "uncertain"), (2, "uncertain"), (1, "uncertain"), (0, "uncertain"),
    ]  # fmt: skip
    apart = pick(posts, 2, by="disagreement", others=[other])
    # p1: valence .7 apart, sets disjoint. p2: equal, and Jaccard one half.
    assert [(p.row, p.score) for p in apart] == [(1, pytest.approx((0.7 + 1.0) / 2)), (2, pytest.approx(0.25))]
    mixed = pick(posts, 3, others=[other])
    assert [p.why for p in mixed] == ["uncertain", "disagreement", "atypical"] and len({p.row for p in mixed}) == 3
    assert [p.row for p in pick(posts, 9, by="random", seed=1)] != [p.row for p in pick(posts, 9, by="random", seed=2)]
    with pytest.raises(DataError, match="--against"):
        pick(posts, 1, by="disagreement")


def test_doubt_by_hand() -> None:
    assert doubt(TASKS["E-c"], probabilities={"joy": 0.5, "love": 1.0}, confidence=0.5) == pytest.approx(math.log(2))
    assert doubt(TASKS["SST5"], probabilities='{"0": 0.5, "1": 0.5}') == pytest.approx(math.log(2))
    assert doubt(TASKS["V-reg"], std=0.1, confidence=0.5) == 0.1
    assert doubt(TASKS["V-reg"], confidence=0.25) == 0.75 and doubt(TASKS["V-reg"]) is None


def test_an_unusual_post_is_atypical() -> None:
    values: list[Any] = [0.5 + 0.01 * (n % 7) for n in range(60)]
    values[31] = 0.99
    texts = [f"text {n}" for n in range(60)]
    posts = Annotated("a", texts, texts, [], {"v_reg": values})
    assert pick(posts, 1, by="atypical")[0].row == 31


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_labels_come_back_as_data(first: Path, tmp_path: Path, ending: str) -> None:
    posts = read_annotated(str(first), ASKED)
    review = tmp_path / f"review{ending}"
    write_review(posts, pick(posts, 3, by="uncertain"), review)
    rows = _rows(review)
    assert list(rows[0]) == ["id", "text", "why", "score", "guess_v_reg", "guess_e_c", "v_reg", "e_c"]
    assert rows[1]["guess_e_c"] == "joy, love" and not rows[1]["e_c"]
    assert [row["id"] for row in rows] == ["p4", "p2", "p1"]
    rows[0] |= {"e_c": "neutral or no emotion"}
    rows[1] |= {"v_reg": "0.95", "e_c": '{"choices": ["joy"]}'}
    filled = tmp_path / "filled.csv"
    with filled.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert merge_reviews([filled], ASKED, tmp_path / "labels") == {"v_reg": 1, "e_c": 2}
    found = read_own(tmp_path / "labels" / "labels.toml")
    assert {(e.id, e.task, e.value) for e in found.examples} == {
        ("p2", "V-reg", 0.95), ("p2", "E-c", ("joy",)), ("p4", "E-c", ()),
    }  # fmt: skip


def _rows(path: Path) -> list[dict[str, Any]]:
    match path.suffix:
        case ".csv":
            return list(csv.DictReader(path.open(encoding="utf-8")))
        case ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case _:
            return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def test_invalid_labels_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    review = tmp_path / "r.csv"
    review.write_text("id,text,v_reg,e_c\nx,one,high,joy\ny,two,,glee\n")
    with pytest.raises(DataError, match=r"row x: .*high.*row y: .*glee"):
        merge_reviews([review], ASKED, tmp_path / "labels")
    review.write_text("id,text,v_reg,e_c\nx,one,,\n")
    with pytest.raises(DataError, match="no label"):
        merge_reviews([review], ASKED, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_several_people_are_raters(tmp_path: Path) -> None:
    asked = (*ASKED, TASKS["EI-reg"])
    (tmp_path / "anna.csv").write_text("id,text,v_reg,e_c,ei_reg_joy\nx,one,0.4,joy,0.9\ny,two,0.5,,\n")
    (tmp_path / "ben.csv").write_text("id,text,v_reg,ei_reg_joy\nx,one,0.8,0.7\nz,three,,0.1\n")
    found = merge_reviews([tmp_path / "anna.csv", tmp_path / "ben.csv"], asked, tmp_path / "labels")
    assert found == {"ei_reg_joy": 3, "v_reg": 3, "e_c": 1}
    said = {(e.id, e.task): (e.value, e.ratings) for e in read_own(tmp_path / "labels" / "labels.toml").examples}
    assert said["x", "V-reg"] == (pytest.approx(0.6), (0.4, 0.8)) and said["y", "V-reg"] == (0.5, (0.5,))
    assert said["x", "EI-reg"][1] == (0.9, 0.7) and said["z", "EI-reg"][1] == (0.1,)
    assert said["x", "E-c"][0] == ("joy",) and len(said) == 5


def test_a_task_of_ones_own_travels_with_its_definition(tmp_path: Path) -> None:
    mood = TASKS["SST5"].model_copy(update={"name": "Mood", "source": "own labels"})
    review = tmp_path / "r.csv"
    review.write_text("id,text,mood\nx,one,3\ny,two,1\n")
    merge_reviews([review], [mood], tmp_path / "labels")
    assert read_own(tmp_path / "labels" / "labels.toml").tasks == (mood,)


def test_reviewed_labels_join_an_earlier_data_folder(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    rows = [f"t{n},text {n},{n % 5}" for n in range(40)]
    (own / "old.csv").write_text("\n".join(["id,text,sst5", *rows]))
    task = '[[task]]\nname = "SST5"\ncolumn = "sst5"\n'
    (own / "old.toml").write_text(f'file = "old.csv"\ntext = "text"\nid = "id"\nvalidation = 0.3\n{task}')
    old = build_own(OwnConfig(data=own / "old.toml", out=tmp_path / "old"))
    held = old["validation"]["text"][0].as_py()
    (own / "labels.csv").write_text(f"id,text,sst5\nn1,text new,4\nn2,{held},0\n")
    (own / "new.toml").write_text(f'file = "labels.csv"\ntext = "text"\nid = "id"\nvalidation = 0.0\n{task}')
    new = build_own(OwnConfig(data=own / "new.toml", out=tmp_path / "new", also=tmp_path / "old"))
    assert new["validation"].num_rows == old["validation"].num_rows
    texts = set(new["train"]["text"].to_pylist())
    assert texts == {"text new", *old["train"]["text"].to_pylist()} and held not in texts
    with pytest.raises(DataError, match="not a data folder"):
        build_own(OwnConfig(data=own / "new.toml", out=tmp_path / "no", also=own))


def test_several_values_become_one() -> None:
    number, spread = joined(TASKS["V-reg"], [(0.2, 1.0), (0.6, 3.0)], "vote")
    assert (number, spread) == (pytest.approx(0.5), pytest.approx(0.03**0.5))
    assert joined(TASKS["SST5"], [(0, 1.0), (1, 1.0), (4, 1.0)], "vote")[0] == 2
    three = [(("joy",), 1.0), (("joy", "love"), 1.0), (("love", "trust"), 1.0)]
    assert joined(TASKS["E-c"], three, "vote")[0] == ("joy", "love")  # type: ignore[arg-type]
    assert joined(TASKS["E-c"], three, "union")[0] == ("joy", "love", "trust")  # type: ignore[arg-type]
    assert joined(TASKS["E-c"], three, "intersection")[0] == ()  # type: ignore[arg-type]


def test_annotators_are_weighted_by_posts_whose_truth_is_known(first: Path, second: Path, tmp_path: Path) -> None:
    people = [read_annotated(str(path), ASKED) for path in (first, second)]
    aligned = align(people)
    agreed = {one.column: one for one in compare(aligned)}
    assert agreed["e_c"].pairs["a.parquet", "b.parquet"] == (pytest.approx((1 + 0 + 0.5 + 1) / 4), 4)
    assert agreed["v_reg"].weights == {"a.parquet": 0.5, "b.parquet": 0.5}
    gold = annotated(tmp_path / "gold.parquet", [0.5, 0.2], [["joy"], ["anger"]], [1.0, 1.0])
    weighted = compare(aligned, read_annotated(str(gold), ASKED))
    # Mean squared distances from gold: a (0 + .01) / 2, b (.01 + .36) / 2: weights of 37 to 1.
    assert weighted[0].weights["a.parquet"] == pytest.approx(37 / 38)
    table = combine(aligned, weighted).to_pylist()
    assert table[1]["v_reg"] == pytest.approx((37 * 0.1 + 0.8) / 38) and table[1]["e_c"] == ["anger"]
    assert table[3]["v_reg"] == 0.5 and table[3]["v_reg_annotators"] == 1  # b has no answer there
    stranger = Annotated("c", ["other"], ["t"], people[0].questions, {"v_reg": [0.5], "e_c": [()]})
    with pytest.raises(DataError, match="no post in common"):
        align([people[0], stranger])


def test_the_commands(first: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "merged.csv"
    review = tmp_path / "review.csv"
    merge_command.main([str(first), str(second), "vader", "--out", str(out), "--review", str(review)])
    said = capsys.readouterr().out
    assert "5 posts of 3 annotators" in said and "vader" in said
    rows = list(csv.DictReader(out.open()))
    assert rows[0]["v_reg_annotators"] == "3" and rows[0]["e_c_annotators"] == "2"
    found = json.loads(out.with_suffix(".agreement.json").read_text())
    assert [pair["annotators"] for pair in found[0]["pairs"]][-1] == ["b.parquet", "vader"]
    assert next(csv.DictReader(review.open()))["why"] == "disagreement"
    with pytest.raises(ConfigError, match="exists"):
        merge_command.main([str(first), str(second), "--out", str(out)])
    picked = tmp_path / "picked.csv"
    review_command.main(["pick", str(first), str(picked), "--rows", "2"])
    assert "2 of 5 posts" in capsys.readouterr().out
    rows = list(csv.DictReader(picked.open()))
    rows[0]["v_reg"] = "0.4"
    with picked.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    review_command.main(["merge", str(picked), "--out", str(tmp_path / "labels")])
    assert "1 v_reg" in capsys.readouterr().out
    assert Kind(read_own(tmp_path / "labels" / "labels.toml").tasks[0].kind) is Kind.REGRESSION


@pytest.mark.parametrize(
    ("ids", "said"), [(["1", None], "1 rows have no id, such as row 2"), (["1", "1"], "id '1' occurs more than once")]
)
def test_posts_that_cannot_be_told_apart_are_refused(tmp_path: Path, ids: list[str | None], said: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ids, "text": ["a", "b"], "v_reg": [0.1, 0.2]}), path)
    with pytest.raises(DataError, match=said):
        read_annotated(str(path), TASKS.values())
