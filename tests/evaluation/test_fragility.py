"""Wordings and small changes of the text: how far they move answers, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from emollm.core.conformal import Conformal
from emollm.core.tasks import TASKS, Value
from emollm.evaluation.fragility import WORDING, Fragility, summed_up, variants
from emollm.evaluation.measured import Evaluation, measure, metrics_json
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.perturb import CHANGES, other_names, typo, without_emoji
from emollm.evaluation.report.evaluation_page import evaluation_page
from emollm.evaluation.report.terminal import moved_table
from emollm.evaluation.systems import System
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import Bootstrap
from emollm.scoring.rows import ScoreQuestions


def test_changes_touch_what_they_name_and_nothing_else() -> None:
    text = "@jo my friend Anna is wonderful 😢😢 :) #wow"
    assert without_emoji(text) == "@jo my friend Anna is wonderful #wow"
    assert other_names(text) == "@someone my friend Ben is wonderful 😢😢 :) #wow"
    changed = typo("a wonderful day")
    assert sorted(changed) == sorted("a wonderful day") and changed != "a wonderful day" and changed[2] == "w"
    assert typo("a wonderful day") == changed  # the same each time
    for change in CHANGES.values():
        assert change("so it is") == "so it is"
    assert without_emoji("😢") == "😢" and typo("#wonderful @someone") == "#wonderful @someone"


def question(n: int, text: str, gold: float) -> GoldQuestion:
    return GoldQuestion(id=str(n), task=TASKS["V-reg"], emotion=None, text=text, gold=gold)


def test_spread_and_distances_by_hand() -> None:
    rows = [question(0, "glad :)", 0.9), question(1, "meh", 0.5), question(2, "sad", 0.1)]
    asked = variants(rows, TASKS, worded=True)
    others = len(TASKS["V-reg"].templates) - 1
    assert [one.change for one in asked if one.row == 1] == ["", *[WORDING] * others]
    assert [one.change for one in asked if one.row == 0] == ["", *[WORDING] * others, "typo", "emoji removed"]

    def answer(row: int, change: str, template: int) -> float:
        value = rows[row].gold
        if template == 1:
            return 1.0 - float(value)  # type: ignore[arg-type]
        return 0.7 if change == "emoji removed" else float(value)  # type: ignore[arg-type]

    scored = [Prediction(question=rows[a.row], value=answer(a.row, a.change, a.template)) for a in asked]
    found = summed_up(rows, asked, scored, Bootstrap(200, 0))
    (wordings,) = found.wordings
    assert wordings.metric == "pearson" and wordings.rows == 3 and wordings.spread == pytest.approx(2.0)
    assert wordings.scores[:3] == pytest.approx([1.0, -1.0, 1.0])
    moved = {one.change: one for one in found.moved}
    # One of the other wordings turns .9, .5, .1 over: .8, 0 and .8 away.
    assert moved[WORDING].distance == pytest.approx(1.6 / (3 * others)) and moved[WORDING].answers == 3 * others
    assert moved[WORDING].moved == pytest.approx(2 / (3 * others))
    assert moved["emoji removed"].distance == pytest.approx(0.2) and moved["emoji removed"].moved == 1.0
    assert moved[WORDING].low <= moved[WORDING].distance <= moved[WORDING].high
    assert found.as_json()["wordings"][0]["spread"] == pytest.approx(2.0)


def test_only_changes_of_the_text_affect_heads() -> None:
    asked = variants([question(0, "glad :)", 0.9)], TASKS, worded=False)
    assert WORDING not in {one.change for one in asked}
    assert summed_up([], [], [], Bootstrap(10, 0)) == Fragility([], [])
    with pytest.raises(ValueError, match="name it with --model"):
        EvaluateConfig(predictions=Path("p.jsonl"), wordings="all")


@pytest.mark.slow
def test_a_model_is_asked_in_the_wording_named(model_directory: Path) -> None:
    rows: dict[str, Sequence[Value | None]] = {
        "index": [0, 1], "task": ["V-reg", "V-reg"], "emotion": [None, None], "text": ["what a day"] * 2,
        "context": [None, None], "target": [None, None], "template": [0, 3],
    }  # fmt: skip
    scorer = ScoreQuestions(model=str(model_directory), engine="constrained", device="cpu")
    first, other = scorer(pa.table(rows)).to_pylist()
    assert first["number"] != other["number"]
    again = scorer(pa.table({name: values[:1] for name, values in rows.items() if name != "template"})).to_pylist()
    assert again[0]["number"] == pytest.approx(first["number"])


def test_the_report_shows_raters_sets_and_fragility() -> None:
    rows = [replace(question(n, f"glad :) {n}", n / 200), ratings=(n / 200, n / 200 + 0.1)) for n in range(120)]
    predictions = [Prediction(question=q, value=float(q.gold), std=0.1, confidence=0.5) for q in rows]  # type: ignore[arg-type]
    sets = (Conformal(task="V-reg", score="std", rows=100, quantiles={"0.9": 1.0}),)
    config = EvaluateConfig(predictions=Path("p.jsonl"), resamples=20)
    measured = measure(System("mine", "model", predictions, {}, sets), config)
    assert measured.sets[0].coverage == 1.0 and measured.raters[0].posts == 120
    asked = variants(rows, TASKS, worded=True)
    fragility = summed_up(rows, asked, [Prediction(question=rows[a.row], value=0.5) for a in asked], Bootstrap(20, 0))
    evaluation = Evaluation([measured], {"V-reg": "rows"}, fragility)
    shown = evaluation_page(config, evaluation)
    for heading in ("Which questions are fragile?", "Where raters differ", "Do 90% sets hold the truth here?"):
        assert heading in shown
    told = metrics_json(config, evaluation)
    assert told["fragility"]["wordings"][0]["scores"][0] is None  # a constant answer has no Pearson
    assert told["systems"][0]["sets"][0]["coverage"] == 1.0 and told["systems"][0]["raters"][0]["js"] is None
    assert moved_table(fragility.moved).row_count == len(fragility.moved) > 1
