"""Own data with several raters: from the table to soft targets, to the card, to the figures of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS, QuestionKey, Value
from emollm.data.aaid import SAMPLES, OwnConfig, build_own
from emollm.data.corpora.own import read_own, read_own_toml
from emollm.data.raters import alpha
from emollm.metrics.predictions import Prediction, predictions_table, read_predictions
from emollm.metrics.questions import GoldQuestion, load_questions
from emollm.metrics.raters import measure_raters
from emollm.scoring.heads.labels import read_labels, subset

TOML = """
file = "rated.csv"
text = "text"
validation = 0.5

[[task]]
name = "V-reg"
raters = ["v1", "v2", "v3"]
blank = "skip"

[[task]]
name = "EI-oc"
raters = { joy = ["j1", "j2"] }
blank = "skip"

[[task]]
name = "Mood"
kind = "single-label"
counts = { calm = "calm", angry = "angry" }
blank = "skip"
"""
ROWS = [
    "text,v1,v2,v3,j1,j2,calm,angry",
    "a fine day,0.8,0.6,,2,3,3,1",
    "so so,0.5,,,,,0,2",
    "nobody said,,,,,,,",
]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "rated.csv").write_text("\n".join(ROWS))
    (tmp_path / "rated.toml").write_text(TOML)
    return tmp_path / "rated.toml"


def test_ratings_are_read_and_become_one_value(own: Path) -> None:
    found = read_own(own)
    values = {(e.text, e.task): (e.value, e.ratings) for e in found.examples}
    assert values["a fine day", "V-reg"] == (pytest.approx(0.7), (0.8, 0.6))
    assert values["so so", "V-reg"] == (0.5, (0.5,))
    assert values["a fine day", "EI-oc"] == (2, (2, 3))
    assert values["a fine day", "Mood"] == ("calm", ("calm", "calm", "calm", "angry"))
    assert len(values) == 5 and found.tasks[2].labels == ("calm", "angry")
    assert found.tasks[1] == TASKS["EI-oc"]


def test_an_invalid_rating_is_a_bad_row_or_a_clear_error(own: Path) -> None:
    (own.parent / "rated.csv").write_text("\n".join([ROWS[0], "x,2.5,0.1,,9,1,many,1"]))
    with pytest.raises(DataError, match=r"(?s)2\.5.*9.*many") as error:
        read_own(own)
    assert "a count must be an integer" in str(error.value)
    own.write_text(TOML.replace('raters = ["v1", "v2", "v3"]', 'raters = ["v1"]\ncolumn = "v2"'))
    with pytest.raises(ConfigError, match="give one of"):
        read_own_toml(own)
    own.write_text(TOML.replace('name = "V-reg"\nraters = ["v1", "v2", "v3"]', 'name = "E-c"\ncounts = { joy = "v1" }'))
    with pytest.raises(ConfigError, match="give `raters`"):
        read_own_toml(own)


def test_the_targets_of_heads_are_the_raters_distribution(own: Path, tmp_path: Path) -> None:
    tables = build_own(OwnConfig(data=own, out=tmp_path / "data"))
    assert "Krippendorff" in (tmp_path / "data" / "card.html").read_text()
    mine = read_own(own).tasks
    labelled = [read_labels(table, mine) for table in tables.values() if table.num_rows]
    found = {(text, key): gold[n] for part in labelled for key, gold in part.golds.items()
             for n, text in enumerate(part.texts)}  # fmt: skip
    assert found["a fine day", QuestionKey("Mood")].tolist() == [0.75, 0.25]
    assert found["a fine day", QuestionKey("EI-oc", "joy")].tolist() == [0, 0, 0.5, 0.5]
    fine = next(part for part in labelled if "a fine day" in part.texts)
    place = fine.texts.index("a fine day")
    assert fine.variance[QuestionKey("V-reg")][place] == pytest.approx(0.01)
    assert subset(fine, np.array([place])).variance[QuestionKey("V-reg")].tolist() == pytest.approx([0.01])
    held = [name for name in tables if tables[name].num_rows]
    questions = [q for name in held for q in load_questions(tmp_path / "data", mine, split=name)]
    assert {q.ratings for q in questions if q.text == "so so"} == {(0.5,), ("angry", "angry")}


def prediction(task: str, ratings: tuple[Value, ...], gold: Value, n: int = 0, **answer: object) -> Prediction:
    question = GoldQuestion(id=str(n), task=TASKS[task], emotion=None, text="t", gold=gold, ratings=ratings)
    return Prediction(question=question, **answer)  # type: ignore[arg-type]


def classes(ratings: tuple[int, ...], gold: int, n: int, *p: float) -> Prediction:
    shares = {str(c): x for c, x in enumerate(p)}
    return prediction("SST5", ratings, gold, n, value=int(np.argmax(p)), probabilities=shares)


def test_figures_of_classes_by_hand() -> None:
    split = classes((0, 0, 4, 4), 2, 0, 0.5, 0.0, 0.0, 0.0, 0.5)
    sure = classes((1, 1), 1, 1, 0.0, 1.0, 0.0, 0.0, 0.0)
    (found,) = measure_raters([split, sure])
    # Both distributions are the raters' own: no divergence, and as many nats as the raters' entropy.
    assert found.js == pytest.approx(0.0) and found.cross_entropy == pytest.approx(np.log(2) / 2)
    assert found.doubt == pytest.approx(1.0)
    assert (found.posts, found.raters, found.without_majority) == (2, 3.0, 1)
    # All-inclusive: gold {0, 4} and {1}, predicted the same; classes 2 and 3 never occur.
    assert found.all_inclusive_f1 == pytest.approx(3 / 5)
    far = classes((1, 1), 1, 1, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert measure_raters([split, far])[0].js == pytest.approx(0.5)  # none and all of it, at base 2


def test_figures_of_numbers_and_sets_by_hand() -> None:
    numbers = [
        prediction("V-reg", (0.4, 0.6), 0.5, 0, value=0.5, std=0.1),
        prediction("V-reg", (0.8, 0.8), 0.8, 1, value=0.8, std=0.05),
        prediction("V-reg", (0.2, 0.3), 0.25, 2, value=0.25, std=0.07),
    ]
    (found,) = measure_raters(numbers)
    normal = [0.5 + np.log(0.1 * np.sqrt(2 * np.pi)), np.log(0.05 * np.sqrt(2 * np.pi)),
              0.05**2 / (2 * 0.07**2) + np.log(0.07 * np.sqrt(2 * np.pi))]  # fmt: skip
    assert found.cross_entropy == pytest.approx(np.mean(normal)) and found.doubt == pytest.approx(1.0)
    assert found.measure == "pearson" and found.human > 0.8 and np.isnan(found.js)
    shares = dict.fromkeys(TASKS["E-c"].labels, 0.0)
    sets = [
        prediction("E-c", (("joy",), ("joy", "love")), ("joy", "love"), 0, value=("joy",),
                   probabilities=shares | {"joy": 1.0, "love": 0.5}),
        prediction("E-c", (("anger",), ("anger",)), ("anger",), 1, value=("anger",),
                   probabilities=shares | {"anger": 1.0}),
    ]  # fmt: skip
    (found,) = measure_raters(sets)
    assert found.js == pytest.approx(0.0) and found.without_majority == 1 and found.measure == "jaccard"
    assert measure_raters([prediction("V-reg", (), 0.5, value=0.5)]) == []


def test_ratings_stay_in_the_table_of_predictions(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    made = prediction("E-c", (("joy",), ()), (), value=())
    pq.write_table(predictions_table({"m": [made]}), tmp_path / "p.parquet")
    (back,) = read_predictions(tmp_path / "p.parquet", [TASKS["E-c"]])["m"]
    assert back.question.ratings == (("joy",), ())


def test_the_bundled_sample_of_raters(tmp_path: Path) -> None:
    tables = build_own(OwnConfig(data=SAMPLES / "own" / "rated.toml", out=tmp_path / "data"))
    tasks = read_own(SAMPLES / "own" / "rated.toml").tasks
    questions = [q for name in tables for q in load_questions(tmp_path / "data", tasks, split=name)]
    by_task = {task: [q for q in questions if q.task.name == task] for task in ("V-reg", "Mood")}
    assert [len(mine) for mine in by_task.values()] == [24, 24]
    # They agree on most posts, and are of different minds about irony.
    assert 0.8 < alpha(TASKS["V-reg"], [q.ratings for q in by_task["V-reg"]]) < 0.95
    assert 0.5 < alpha(by_task["Mood"][0].task, [q.ratings for q in by_task["Mood"]]) < 0.8
