"""report.html: one self-contained page, laid out by `reports/templates/evaluation.html`.

It shows texts of the rows (the worst mistakes): whoever may not show the corpus may not show the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from emollm.core.tasks import Kind, Task, as_labels
from emollm.evaluation.fragility import Moved, Wordings
from emollm.evaluation.measured import Evaluation, Measured
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.published import SOURCE
from emollm.evaluation.report.contents import cost_table, invalid_answers, invalid_table, mistakes, notes
from emollm.evaluation.report.main_table import main_tables, mark_of
from emollm.evaluation.report.terminal import format_score
from emollm.metrics.conformal import SetCoverage
from emollm.metrics.predictions import PREDICTIONS_FILE, Prediction
from emollm.metrics.raters import RaterFigures
from emollm.metrics.reliability import Reliability
from emollm.metrics.scores import TaskResult, resolve_invalid, split_tasks
from emollm.reports import charts
from emollm.reports.page import render

_RATERS = [
    *("question", "posts", "raters", "measure", "alpha", "one rater", "model", "cross-entropy", "JS", "doubt"),
    *("no majority", "F1, majority", "F1, all posts"),
]
_LABELS = ["label", "gold", "predicted", "right", "wrong", "missed", "F1"]


def evaluation_page(config: EvaluateConfig, evaluation: Evaluation) -> str:
    main, others = evaluation.measured[0], evaluation.measured[1:]
    by_task = split_tasks(main.system.predictions)
    classes = [found for found in by_task.values() if not found[0].question.task.labels]
    labels = [found for found in by_task.values() if found[0].question.task.labels]
    reliability = main.reliability
    return render(
        "evaluation.html",
        title=f"{main.system.name}, measured",
        subtitle=f"Measured beside {', '.join(m.system.name for m in others)}" if others else "Measured alone",
        main=main,
        figures=_figures(evaluation),
        notes=notes(config, evaluation),
        score=format_score,
        tables=main_tables(evaluation),
        tasks=[_task(evaluation, task) for task in evaluation.tasks],
        pictures=[_picture(config, found) for found in classes],
        label_tables=[_label_table(found[0].question.task, found) for found in labels],
        reliability=[
            *((name, f"{found.events:,}", charts.reliability(found.bins)) for name, found in reliability.items()),
            *(
                (f"{name}, risk", f"{found.events:,}", charts.risk(found.risk))
                for name, found in reliability.items()
                if found.risk
            ),
        ],
        reliability_header=[
            *("task", "events", "ECE", "Brier", "risk area", f"{config.right_share:.0%} right above", "kept"),
            *("50% interval holds", "80%", "90%", "95%"),
        ],
        reliability_rows=[_reliability_row(name, found) for name, found in reliability.items()],
        raters_header=_RATERS,
        raters_rows=[_rater_row(found) for found in main.raters],
        sets_header=["task", "rows", "hold", "95% interval", "size"],
        sets_rows=[_set_row(found) for found in main.sets],
        fragility=evaluation.fragility,
        wording_rows=[_wording_row(one) for one in evaluation.fragility.wordings] if evaluation.fragility else [],
        moved_rows=[_moved_row(one) for one in evaluation.fragility.moved] if evaluation.fragility else [],
        invalid=invalid_table(evaluation),
        written=[(_written_heading(m), bad) for m in evaluation.measured if (bad := invalid_answers(m))],
        mistakes=mistakes(main),
        cost=cost_table(evaluation),
        quoted_source=SOURCE,
    )


def _figures(evaluation: Evaluation) -> list[tuple[str, str]]:
    main = evaluation.measured[0]
    rows = sum(result.rows for result in main.results)
    valid = sum(result.rows * result.valid for result in main.results) / rows
    facts = main.system.facts
    figures = [(f"{len(main.results)}", "tasks"), (f"{rows:,}", "questions"), (f"{valid:.1%}", "valid answers")]
    if facts.get("questions_per_s"):
        figures.append((f"{facts['questions_per_s']:,.0f}", "questions per second"))
    if facts.get("bytes"):
        figures.append((f"{facts['bytes'] / 1e6:,.1f} MB", "model directory"))
    return figures


def _task(evaluation: Evaluation, task: Task) -> dict[str, Any]:
    """All metrics of all systems on a task, and how each came by its answers."""
    found = [(m, r) for m in evaluation.measured for r in m.results if r.task == task.name]
    metrics = list(dict.fromkeys(name for _, result in found for name in result.scores))
    emotions = list(dict.fromkeys(e for _, result in found for e in result.by_emotion))
    return {
        "name": task.name,
        "title": task.title.lower(),
        "rows_from": evaluation.rows_from.get(task.name, ""),
        "source": task.source,
        "header": ["system", "learnt", "rows", "valid", *metrics, *(f"{metrics[0]}, {e}" for e in emotions)],
        "rows": [
            [
                measured.system.name + mark_of(measured, task.name),
                measured.system.facts.get("learnt", {}).get(task.name, ""),
                f"{result.rows:,}",
                f"{result.valid:.1%}",
                *(_with_interval(result, name) for name in metrics),
                *(format_score(result.by_emotion[e]) if e in result.by_emotion else "" for e in emotions),
            ]
            for measured, result in found
        ],
    }


def _with_interval(result: TaskResult, name: str) -> str:
    interval = result.intervals.get(name)
    shown = format_score(result.scores[name])
    return f"{shown} ({format_score(interval.low)} to {format_score(interval.high)})" if interval else shown


def _picture(config: EvaluateConfig, predictions: Sequence[Prediction]) -> tuple[str, str, Markup]:
    """Name, rows and chart of a regression or an ordinal."""
    task = predictions[0].question.task
    pairs = [(p.question.gold, v) for p in predictions if (v := resolve_invalid(p, config.invalid)) is not None]
    gold: list[Any] = [g for g, _ in pairs]
    predicted: list[Any] = [v for _, v in pairs]
    if task.kind is Kind.REGRESSION:
        assert task.low is not None and task.high is not None
        chart = charts.scatter(gold, predicted, low=task.low, high=task.high)
    else:
        chart = charts.confusion(gold, predicted, [c.value for c in task.classes])
    return task.name, f"{len(pairs):,}", chart


def _label_table(task: Task, predictions: Sequence[Prediction]) -> tuple[str, list[str], list[list[object]]]:
    """Hits, wrong and missed of each label, with its F1."""
    sets = [(set(as_labels(p.question.gold) or ()), set(as_labels(p.value) or ())) for p in predictions]
    rows: list[list[object]] = []
    for label in task.labels:
        pairs = [(label in gold, label in predicted) for gold, predicted in sets]
        hits, wrong, missed = (pairs.count(pair) for pair in ((True, True), (False, True), (True, False)))
        f1 = 2 * hits / (2 * hits + wrong + missed) if hits else 0.0
        rows.append([label, hits + missed, hits + wrong, hits, wrong, missed, format_score(f1)])
    return task.name, _LABELS, rows


def _reliability_row(name: str, found: Reliability) -> list[object]:
    return [
        name,
        f"{found.events:,}",
        format_score(found.ece),
        format_score(found.brier),
        "" if found.risk_area is None else format_score(found.risk_area),
        f"{found.abstain.threshold:.2f}" if found.abstain else "not reached",
        f"{found.abstain.coverage:.0%}" if found.abstain else "",
        *(f"{share:.0%}" for share in found.coverage.values()),
        *([""] * (4 - len(found.coverage))),
    ]


def _rater_row(found: RaterFigures) -> list[object]:
    figures = (found.alpha, found.human, found.model, found.cross_entropy, found.js, found.doubt)
    rest = (found.majority_f1, found.all_inclusive_f1)
    return [
        found.question, f"{found.posts:,}", f"{found.raters:.1f}", found.measure, *map(format_score, figures),
        f"{found.without_majority:,}", *map(format_score, rest),
    ]  # fmt: skip


def _set_row(found: SetCoverage) -> list[object]:
    size = f"{found.size:.1f} of {found.out_of}" if found.out_of > 1 else f"{found.size:.0%} of the range"
    return [found.task, f"{found.rows:,}", f"{found.coverage:.1%}", f"{found.low:.1%} to {found.high:.1%}", size]


def _wording_row(found: Wordings) -> list[object]:
    known = [score for score in found.scores if not math.isnan(score)] or [float("nan")]
    widest = [f"{format_score(i.low)} to {format_score(i.high)}" if i else "" for i in found.intervals[:1]]
    return [
        found.task, found.metric, f"{found.rows:,}", len(found.scores), format_score(found.scores[0]), *widest,
        format_score(min(known)), format_score(max(known)), format_score(found.spread),
    ]  # fmt: skip


def _moved_row(found: Moved) -> list[object]:
    between = f"{found.low:.3f} to {found.high:.3f}"
    return [found.task, found.change, f"{found.answers:,}", f"{found.distance:.3f}", between, f"{found.moved:.0%}"]


def _written_heading(measured: Measured) -> str:
    count, shown = sum(sum(result.errors.values()) for result in measured.results), len(invalid_answers(measured))
    part = f"{count:,}" if count == shown else f"the first {shown} of {count:,}, all in {PREDICTIONS_FILE}"
    return f"{measured.system.name}: {part}"
