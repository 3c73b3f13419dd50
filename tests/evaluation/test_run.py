"""From rows to a report: the run, its folder, its pages, comparison and calibration."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from emollm.core.bases import DEFAULT_BASE, DEFAULT_MODEL
from emollm.core.card import card_of, read_card
from emollm.core.errors import ConfigError, DataError, ModelError
from emollm.core.options import ClusterConfig
from emollm.core.tasks import TASKS
from emollm.data.aeb import AEB, AebConfig, build_aeb
from emollm.evaluation.calibrate import calibrate_model
from emollm.evaluation.compare import compare_runs
from emollm.evaluation.options import CalibrateConfig, CompareConfig, EvaluateConfig
from emollm.evaluation.published import PUBLISHED_ROWS
from emollm.evaluation.report.evaluation_page import evaluation_page
from emollm.evaluation.report.main_table import main_tables
from emollm.evaluation.report.terminal import comparison_table, gains_table, sets_table
from emollm.evaluation.run import evaluate
from emollm.evaluation.systems import how_learnt
from emollm.metrics.predictions import read_predictions
from emollm.metrics.questions import load_questions
from tests.conftest import ROOT


def given(folder: Path, name: str, rows: list[dict[str, Any]], **options: Any) -> Path:
    """A run of somebody's predictions, written to `folder / name`."""
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = {"predictions": folder / f"{name}.jsonl", "out": folder / name, "resamples": 200, **options}
    evaluate(EvaluateConfig.model_validate(config))
    return folder / name


def classes(right: float, rows: int = 150) -> list[dict[str, Any]]:
    """SST-5 answers of which this share is right."""
    return [
        {
            "id": str(i),
            "task": "SST5",
            "gold": i % 5,
            "prediction": i % 5 if (i * 7) % rows < right * rows else (i + 1) % 5,
        }
        for i in range(rows)
    ]


HOSTILE = "<script>alert(1)</script> | <img src=x> ✨"


def test_a_run_writes_predictions_metrics_and_reports(tmp_path: Path) -> None:
    rows = [
        {"task": "E-c", "text": HOSTILE, "gold": ["joy"], "prediction": "anger, fear."},
        {"task": "E-c", "text": "b", "gold": [], "prediction": "neutral or no emotion"},
        {"task": "V-reg", "text": "c", "gold": 0.2, "prediction": 48},
        {"task": "V-reg", "text": "d", "gold": 0.9, "prediction": HOSTILE},
        {"task": "V-reg", "text": "e", "gold": 0.4, "prediction": 0.5},
        {"task": "V-oc", "text": "f", "gold": -3, "prediction": 3},
        {"task": "V-oc", "text": "g", "gold": 1, "prediction": 1},
    ]
    out = given(tmp_path, "mine", rows, baselines=("constant",))
    assert {p.name for p in out.iterdir()} == {
        "predictions.parquet", "metrics.json", "report.html", "run.json",
    }  # fmt: skip
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row["system"] for row in table] == ["mine"] * 7 + ["best constant"] * 7
    out_of_range_value = next(row for row in table if row["number"] == 48)
    assert (out_of_range_value["error"], out_of_range_value["answer_text"]) == ("out_of_range", "48")
    metrics = json.loads((out / "metrics.json").read_text())
    assert [system["name"] for system in metrics["systems"]] == ["mine", "best constant"]
    v_reg = next(r for r in metrics["systems"][0]["results"] if r["task"] == "V-reg")
    assert v_reg["errors"] == {"out_of_range": 1, "invalid_answer": 1}
    assert set(v_reg["by_policy"]) == {"clip", "drop", "worst"}
    constant = next(r for r in metrics["systems"][1]["results"] if r["task"] == "V-reg")
    assert constant["scores"]["pearson"] is None and constant["undefined"].startswith("the prediction is constant")
    report = (out / "report.html").read_text()
    assert "EmoLLaMA-chat-13b <small>quoted</small>" in report


class Page(HTMLParser):
    """What a page would load or run, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "onload", "onerror")]
        if tag not in ("meta", "line", "rect", "circle", "polyline", "br", "link", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            # html closes table rows and the like by itself; what we open we close in order.
            assert self._open.pop() == tag


def test_the_page_stands_alone_and_what_it_shows_is_escaped(tmp_path: Path) -> None:
    rows = [{"task": "V-oc", "text": HOSTILE, "gold": -3, "prediction": 3, "id": "<b>"}] + [
        {"task": "V-oc", "text": "t", "gold": i % 3, "prediction": HOSTILE} for i in range(4)
    ]
    text = (given(tmp_path, "mine", rows) / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags
    assert page.loads == []
    assert "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text


def test_predictions_can_be_measured_again_and_stand_beside_others(tmp_path: Path) -> None:
    first = given(tmp_path, "first", classes(0.4), baselines=("constant",))
    again = evaluate(EvaluateConfig(predictions=first / "predictions.parquet", resamples=0))
    assert [m.system.name for m in again.measured] == ["first", "best constant"]
    assert again.main[0].scores["accuracy"] == pytest.approx(0.4)
    second = given(tmp_path, "second", classes(0.6), compare_with=(first,))
    metrics = json.loads((second / "metrics.json").read_text())
    assert [s["name"] for s in metrics["systems"]] == ["second", "first", "best constant"]
    both = evaluate(EvaluateConfig(compare_with=(first, first), resamples=0))
    assert [m.system.name for m in both.measured][2:] == ["first (2)", "best constant (2)"]


def test_a_written_table_reads_back_unchanged(tmp_path: Path) -> None:
    rows = [
        {"task": "E-c", "gold": ["joy"], "prediction": "anger, fear."},
        {"task": "EI-oc", "emotion": "joy", "gold": 2, "prediction": 17},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = evaluate(EvaluateConfig(predictions=tmp_path / "p.jsonl", resamples=0, out=tmp_path / "out"))
    assert read_predictions(tmp_path / "out" / "predictions.parquet", TASKS.values()) == {
        "p": run.measured[0].system.predictions
    }


def emotions_of_posts(noise: float, posts: int = 40) -> list[dict[str, Any]]:
    """Four intensities a post, all under the post's id."""
    return [
        {"id": str(i), "task": "EI-reg", "emotion": emotion, "gold": gold, "prediction": abs(gold - noise * (i % 3))}
        for i in range(posts)
        for k, emotion in enumerate(("anger", "fear", "joy", "sadness"))
        for gold in [(i * (7, 11, 13, 17)[k] % posts) / posts]
    ]


def test_questions_that_share_a_posts_id_stay_apart(tmp_path: Path) -> None:
    rows = emotions_of_posts(0.1)
    first = given(tmp_path, "first", rows)
    metrics = json.loads((first / "metrics.json").read_text())
    pearson = metrics["systems"][0]["results"][0]["scores"]["pearson"]
    again = evaluate(EvaluateConfig(predictions=first / "predictions.parquet", resamples=0, baselines=("constant",)))
    assert [m.results[0].rows for m in again.measured] == [160, 160]
    assert again.main[0].scores["pearson"] == pytest.approx(pearson)
    second = given(tmp_path, "second", emotions_of_posts(0.3), compare_with=(first,))
    beside = json.loads((second / "metrics.json").read_text())["systems"][1]
    assert beside["results"][0]["scores"]["pearson"] == pytest.approx(pearson)
    (found,) = compare_runs(CompareConfig(run_a=first, run_b=second)).tasks
    assert (found.rows, found.a) == (160, pytest.approx(pearson))


def test_systems_that_mean_different_rows_by_one_id_are_refused(tmp_path: Path) -> None:
    first = given(tmp_path, "first", classes(0.4))
    shifted = [{**row, "gold": (row["gold"] + 1) % 5} for row in classes(0.4)]
    with pytest.raises(DataError, match="SST5 '0': gold 1 and gold 0; one id must mean one row"):
        given(tmp_path, "second", shifted, compare_with=(first,))
    # The order of a set's labels is none.
    sets = [
        {"id": "1", "task": "E-c", "gold": gold, "prediction": "joy"} for gold in (["joy", "fear"], ["fear", "joy"])
    ]
    given(tmp_path, "third", sets[:1], compare_with=(given(tmp_path, "fourth", sets[1:]),))


def test_chosen_tasks_are_those_of_every_system(tmp_path: Path) -> None:
    valence = [{"id": str(i), "task": "V-reg", "gold": i / 9, "prediction": 0.5 + i / 18} for i in range(9)]
    first = given(tmp_path, "first", [*classes(0.4), *valence], baselines=("constant",))
    for options in (
        {"predictions": first / "predictions.parquet"},
        {"predictions": tmp_path / "first.jsonl"},
        {"compare_with": (first,)},
    ):
        found = evaluate(EvaluateConfig.model_validate({**options, "tasks": ("V-reg",), "resamples": 0}))
        assert {r.task for m in found.measured for r in m.results} == {"V-reg"} == set(found.rows_from)
    with pytest.raises(ConfigError, match="first has no answer to --tasks V-oc; there are SST5, V-reg"):
        evaluate(EvaluateConfig(compare_with=(first,), tasks=("V-oc",), resamples=0))


def test_a_data_folder_beside_a_benchmark_must_be_one(tmp_path: Path, sample_data: Path) -> None:
    goemotions = ROOT / "tests" / "data" / "corpora" / "files" / "goemotions"
    build_aeb(AebConfig(goemotions=goemotions, out=tmp_path / "aeb", allow_missing=True))
    options = {"aeb": tmp_path / "aeb", "compare_with": (given(tmp_path, "a", classes(0.4)),), "resamples": 0}
    with pytest.raises(DataError, match=r"no .*mistyped/validation.parquet"):
        evaluate(EvaluateConfig.model_validate({**options, "data": tmp_path / "mistyped"}))
    found = evaluate(EvaluateConfig.model_validate({**options, "data": sample_data, "baselines": ("constant",)}))
    tasks = {r.task for r in found.measured[-1].results}
    assert {"GoEmotions", "V-reg"} <= tasks and "SST5" not in tasks


def test_a_better_run_is_told_from_an_equal_one(tmp_path: Path) -> None:
    worse, better = given(tmp_path, "worse", classes(0.4)), given(tmp_path, "better", classes(0.7))
    found = compare_runs(CompareConfig(run_a=worse, run_b=better))
    (one,) = found.tasks
    assert one.difference == pytest.approx(0.3)
    assert one.interval is not None and 0.15 < one.interval.low < 0.3 < one.interval.high < 0.45
    assert found.verdict == "B is better: on SST5, and worse on none of 1."
    assert compare_runs(CompareConfig(run_a=better, run_b=worse)).verdict.startswith("B is worse")
    same = compare_runs(CompareConfig(run_a=better, run_b=given(tmp_path, "again", classes(0.72))))
    assert same.tasks[0].verdict == "no difference shown"
    assert same.verdict.startswith("No difference shown on any of 1 tasks")
    assert comparison_table(found).row_count == 1


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    a = given(tmp_path, "a", classes(0.4))
    other = [{**row, "id": f"z{row['id']}"} for row in classes(0.4)]
    with pytest.raises(DataError, match="share no row"):
        compare_runs(CompareConfig(run_a=a, run_b=given(tmp_path, "b", other)))
    shifted = [{**row, "gold": (row["gold"] + 1) % 5} for row in classes(0.4)]
    with pytest.raises(DataError, match="SST5 '0': gold 0 and gold 1; one id must mean one row"):
        compare_runs(CompareConfig(run_a=a, run_b=given(tmp_path, "c", shifted)))
    with pytest.raises(DataError, match="is not an output folder"):
        compare_runs(CompareConfig(run_a=a, run_b=tmp_path))
    with pytest.raises(ConfigError, match="has no system 'x'; choose from: a"):
        compare_runs(CompareConfig(run_a=a, run_b=a, system_b="x"))
    partly = compare_runs(CompareConfig(run_a=a, run_b=given(tmp_path, "d", classes(0.4)[:100])))
    assert (partly.tasks[0].rows, partly.unequal_rows) == (100, 50)


def test_a_system_reports_the_origin_of_its_answers() -> None:
    card = card_of("smollm2-135m-heads")
    assert card is not None and card.heads is not None
    fitted_on_aaid = card.model_copy(update={"tasks": tuple(t for t in card.tasks if t.name != "Intensity")})
    asked = {"V-reg", "SST", "TDT"}
    assert how_learnt(fitted_on_aaid, "heads", asked) == {
        "SST": "derived from V-reg, zero-shot", "TDT": "derived from V-oc, zero-shot", "V-reg": "trained",
    }  # fmt: skip
    # Asked in words, a model knows what it has labels of, and no more.
    assert how_learnt(fitted_on_aaid, "constrained", {"V-reg", "EmoBank-A"}) == {
        "EmoBank-A": "not trained, zero-shot", "V-reg": "trained",
    }  # fmt: skip
    # With labels of other corpora, nothing is zero-shot in the published sense.
    heads = [h if h.task != "EmoBank-V" else h.model_copy(update={"origin": "trained", "derivation": None})
             for h in card.heads.heads]  # fmt: skip
    more = fitted_on_aaid.model_copy(update={"heads": card.heads.model_copy(update={"heads": tuple(heads)})})
    assert how_learnt(more, "heads", {"EmoBank-V", "SST"}) == {"EmoBank-V": "trained", "SST": "derived from V-reg"}


def test_the_report_keeps_derived_and_trained_figures_apart(tmp_path: Path) -> None:
    tasks = ("SST", "EmoBank-V", "V-reg")
    rows = [{"task": t, "gold": 1 if t == "EmoBank-V" else i / 40, "prediction": i / 40 + (t == "EmoBank-V")}
            for t in tasks for i in range(40)]  # fmt: skip
    rows += [{"task": "V-reg", "gold": 0.5, "prediction": f"nonsense {i}"} for i in range(12)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = EvaluateConfig(predictions=tmp_path / "mine.jsonl", resamples=0)
    found = evaluate(config)
    learnt = {"SST": "derived from V-reg", "EmoBank-V": "trained", "V-reg": "trained"}
    found.measured[0].system.facts["learnt"] = learnt
    shown = evaluation_page(config, found)
    assert "its answers follow by a fixed map from those to another: SST derived from V-reg." in shown
    assert "mine was trained on labels of EmoBank-V, which no published system was" in shown
    assert "1.000†" in shown and "‡" in shown and ".763†" not in shown and ".763‡" not in shown
    assert "<td>derived from V-reg</td>" in shown
    [only] = main_tables(found)
    assert only.heading == "" and "As published" not in shown

    found.measured[0].system.facts["learnt"] = {**learnt, "SST": "trained"}
    published, own = main_tables(found)
    assert [column.task for column in own.columns] == ["SST"] and [line.name for line in own.lines] == ["mine"]
    [mine] = [line for line in published.lines if line.name == "mine"]
    assert [column.task for column in mine.cells] == ["V-reg"] and len(published.lines) > 1
    shown = evaluation_page(config, found)
    assert shown.index("As published") < shown.index("Learnt from the task")
    assert "mine: the first 10 of 12, all in predictions.parquet" in shown


def test_published_rows_are_those_of_the_benchmark() -> None:
    rows: Counter[str] = Counter()
    for part in AEB:
        for question, count in part.questions.items():
            rows[question.partition(".")[0]] += count
    assert rows == PUBLISHED_ROWS


def test_options_that_do_not_go_together_are_refused(sample_data: Path) -> None:
    with pytest.raises(ValueError, match="give rows to measure on"):
        EvaluateConfig(model="m")
    with pytest.raises(ValueError, match="--task names the task of --predictions"):
        EvaluateConfig(data=sample_data, task="V-reg")
    with pytest.raises(ValueError, match="--max-rows is for the questions of --data and --aeb"):
        EvaluateConfig(compare_with=(sample_data,), max_rows=3)


@pytest.mark.ray
def test_a_model_beside_baselines_and_a_file(
    local_ray: None, tmp_path: Path, sample_data: Path, model_directory: Path, tiny_base: Path
) -> None:
    questions = load_questions(sample_data, [TASKS["V-oc"]], max_rows=4)
    lines = [json.dumps({"id": q.id, "prediction": q.gold}) for q in reversed(questions)]
    (tmp_path / "oracle.jsonl").write_text("\n".join(lines))
    steps: list[str] = []
    found = evaluate(
        EvaluateConfig(
            model=str(model_directory), data=sample_data, tasks=("V-oc",), max_rows=4, resamples=100, task="V-oc",
            predictions=tmp_path / "oracle.jsonl", baselines=("constant", "vader", "zero-shot"),
            zero_shot=f"base:{tiny_base}", slow_rows=2, out=tmp_path / "out",
        ),
        on_system=steps.append,
    )  # fmt: skip
    assert steps == [str(model_directory), "constant", "vader", "zero-shot"]
    assert [m.system.role for m in found.measured] == ["model", "given", "baseline", "baseline", "baseline"]
    assert found.measured[-1].results[0].rows == 2
    assert found.measured[1].results[0].scores["accuracy"] == 1.0
    model = found.measured[0]
    assert all(p.probabilities and p.confidence for p in model.system.predictions)
    assert "V-oc" in model.reliability
    assert model.system.facts["engine"] == "constrained"
    assert model.system.facts["questions_per_s"] > 0
    Page((tmp_path / "out" / "report.html").read_text())


@pytest.mark.ray
def test_calibration_is_fitted_stored_and_applied(
    local_ray: None, tmp_path: Path, sample_data: Path, model_directory: Path
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(model_directory, model)
    options = {"model": str(model), "data": sample_data, "tasks": ("V-reg", "EI-reg"), "precision": "float32"}
    options["cluster"] = ClusterConfig(num_workers=1)
    done = calibrate_model(CalibrateConfig.model_validate(options))
    assert [gain.task for gain in done.gains] == ["V-reg"]
    assert done.left == ("EI-reg.anger", "EI-reg.fear", "EI-reg.joy", "EI-reg.sadness")
    assert done.gains[0].before != done.gains[0].after
    assert gains_table(done.gains, right_share=0.9).row_count == 1
    calibration = read_card(model).calibration["constrained"]
    (maps,) = calibration.questions
    assert (maps.task, maps.rows) == ("V-reg", 215)
    assert set(calibration.abstain) == {"V-reg", "EI-reg"}
    assert [(one.task, one.rows) for one in calibration.sets] == [("V-reg", 215)]
    assert [one.task for one in done.sets] == ["V-reg"] and sets_table(done.sets).row_count == 1
    options |= {"tasks": ("V-reg",), "max_rows": 12}
    assert not list(model.glob(".affect*"))

    def run(**more: Any) -> dict[str, Any]:
        found = evaluate(EvaluateConfig.model_validate({**options, "resamples": 0, **more}))
        assert found.measured[0].system.facts["calibrated"] == more.get("calibrated", True)
        return {p.question.id: p for p in found.measured[0].system.predictions}

    raw, calibrated = run(calibrated=False), run()
    for key, before in raw.items():
        unit = min(max(maps.slope * before.value + maps.offset, 0.0), 1.0)
        assert calibrated[key].value == pytest.approx(unit, abs=1e-6)
        assert calibrated[key].std == pytest.approx(before.std * maps.slope * maps.std_scale, rel=1e-5)


def test_a_base_and_a_bundled_model_cannot_be_calibrated_in_place(sample_data: Path) -> None:
    with pytest.raises(ModelError, match="no card that can be written; name a model directory"):
        calibrate_model(CalibrateConfig(model=DEFAULT_BASE, data=sample_data))
    with pytest.raises(ModelError, match=r"no card that can be written; copy .*default_models"):
        calibrate_model(CalibrateConfig(model=DEFAULT_MODEL, data=sample_data))
