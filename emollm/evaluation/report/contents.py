"""What the report says beside its tables: notes, costs, what invalid answers change, the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from emollm.core.answers import answer_string
from emollm.core.tasks import Kind
from emollm.data.raters import distance
from emollm.evaluation.measured import Evaluation, Measured
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.published import PUBLISHED_ROWS, SOURCE
from emollm.evaluation.report.main_table import DERIVED, TAUGHT, mark_of
from emollm.evaluation.report.terminal import format_score
from emollm.metrics.predictions import Prediction
from emollm.metrics.scores import POLICIES, split_tasks


class Mistake(NamedTuple):
    task: str
    text: str
    gold: str
    predicted: str
    confidence: str


def notes(config: EvaluateConfig, evaluation: Evaluation) -> list[str]:
    """Sentences that a reader of the table should not miss."""
    found = [
        f"Quoted figures are those of {SOURCE}, on the full official test rows, and were not measured here.",
        'The "acc" of E-c and GoEmotions is the label Jaccard weighted by support, as that paper prints it; the '
        "official per-tweet Jaccard stands among each task's metrics.",
    ]
    part = []
    for task, where in evaluation.rows_from.items():
        rows = max((r.rows for m in evaluation.measured for r in m.results if r.task == task), default=0)
        if task in PUBLISHED_ROWS and (rows != PUBLISHED_ROWS[task] or "benchmark" not in where):
            part.append(f"{task} ({rows:,} rows, published {PUBLISHED_ROWS[task]:,})")
    if part:
        found.append(
            "Not measured on the published rows, so small differences to quoted figures mean nothing: "
            f"{', '.join(part)}."
        )
    main = evaluation.measured[0]
    for measured in evaluation.measured:
        name, learnt = measured.system.name, measured.system.facts.get("learnt", {})
        marks = {task: mark_of(measured, task) for task in learnt}
        if derived := [f"{task} {how}" for task, how in learnt.items() if marks[task] == DERIVED]:
            found.append(
                f"{DERIVED} {name} has no labels of these tasks: its answers follow by a fixed map from those to "
                f"another: {'; '.join(derived)}."
            )
        if taught := [task for task in learnt if marks[task] == TAUGHT]:
            found.append(
                f"{TAUGHT} {name} was trained on labels of {', '.join(taught)}, which no published system was: the "
                "quoted figures are zero-shot, of models fitted on AAID alone."
            )
        if untaught := [task for task, how in learnt.items() if how.startswith("not trained")]:
            found.append(f"{name} was not trained on these tasks and is asked all the same: {', '.join(untaught)}.")
        asked = sum(r.rows for r in measured.results)
        there = sum(_most_rows(evaluation, r.task) for r in measured.results)
        if asked < there:
            found.append(f"{measured.system.name} answered {asked:,} of the {there:,} questions on its tasks.")
    if any(where.startswith("validation rows") for where in evaluation.rows_from.values()):
        found.append(
            "Validation rows may have chosen a model's checkpoint or its calibration: its figures on them are then "
            "optimistic, and only rows that nothing was chosen on (--aeb) prove it."
        )
    if undefined := [f"{r.task} ({r.headline[0]}: {r.undefined})" for r in main.results if r.undefined]:
        found.append(f"{main.system.name} has no figure where the metric is undefined: {'; '.join(undefined)}.")
    if config.resamples:
        found.append(
            f"Intervals are 95% bootstrap intervals: {config.resamples:,} resamples of rows, within emotions, seed "
            f"{config.seed}. Invalid answers: {config.invalid}."
        )
    return found


def cost_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Throughput and size of what was measured."""
    header = ["system", "engine", "parameters", "size on disk", "questions", "seconds", "questions/s", "valid", "other"]
    return header, [_cost(measured) for measured in evaluation.measured]


def invalid_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """What each way of dealing with invalid answers does to the headline metric, where there are any."""
    header = ["system", "task", "metric", "invalid answers", *POLICIES]
    rows = []
    for measured in evaluation.measured:
        for result in measured.results:
            if result.errors:
                reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in result.errors.items())
                scores = [format_score(result.by_policy[policy]) for policy in POLICIES]
                rows.append([measured.system.name, result.task, result.headline[0], reasons, *scores])
    return header, rows


def invalid_answers(measured: Measured, most: int = 10) -> list[tuple[str, str, str]]:
    """The first invalid answers: task, reason, what was written."""
    bad = [p for p in measured.system.predictions if p.value is None]
    return [(p.question.task.name, p.error or "", p.text or "") for p in bad[:most]]


def mistakes(measured: Measured, each: int = 3) -> list[Mistake]:
    """The worst answers of each task: numbers and classes farthest off; labels and sets surest and wrong."""
    found = []
    for predictions in split_tasks(measured.system.predictions).values():
        ranked = sorted((p for p in predictions if p.value is not None), key=_wrongness, reverse=True)
        found += [_mistake(p) for p in ranked[:each] if _wrongness(p) > 0]
    return found


def _wrongness(prediction: Prediction) -> float:
    task, gold, value = prediction.question.task, prediction.question.gold, prediction.value
    match task.kind:
        case Kind.REGRESSION:
            return distance(task, value, gold)  # type: ignore[arg-type]
        case Kind.ORDINAL:
            return abs(value - gold) + 0.5 * (prediction.confidence or 0) if value != gold else 0.0  # type: ignore[operator]
        case Kind.SINGLE_LABEL:
            return (1 + (prediction.confidence or 0)) if value != gold else 0.0
        case Kind.LABEL_SET:
            return len(set(value) ^ set(gold)) + (prediction.confidence or 0) if set(value) != set(gold) else 0.0  # type: ignore[arg-type]


def _mistake(prediction: Prediction) -> Mistake:
    question = prediction.question
    return Mistake(
        task=f"{question.task.name} {question.emotion or ''}".strip(),
        text=question.text or "(no text given)",
        gold=_shown(prediction, gold=True),
        predicted=_shown(prediction, gold=False),
        confidence="" if prediction.confidence is None else f"{prediction.confidence:.2f}",
    )


def _shown(prediction: Prediction, *, gold: bool) -> str:
    question = prediction.question
    value = question.gold if gold else prediction.value
    assert value is not None
    if question.task.kind is Kind.REGRESSION:
        return f"{value:.2f}"
    return answer_string(question.task, value, question.emotion).rstrip(".")


def _most_rows(evaluation: Evaluation, task: str) -> int:
    return max(r.rows for m in evaluation.measured for r in m.results if r.task == task)


def _cost(measured: Measured) -> list[str]:
    facts = measured.system.facts
    rows = sum(result.rows for result in measured.results)
    valid = sum(result.valid * result.rows for result in measured.results) / rows if rows else 0.0
    other: Sequence[str] = [
        f"{facts['actors']} actors" if facts.get("actors") else "",
        "calibrated" if facts.get("calibrated") else "",
        str(facts.get("asked") or ""),
        f"{facts['requests']:,} requests, {facts['retried']:,} again" if "requests" in facts else "",
        f"cost {facts['cost']:.2f} (estimated {facts['estimated_cost']:.2f})" if facts.get("cost") else "",
        ", ".join(f"{count:,} distributions {mark}" for mark, count in (facts.get("distributions") or {}).items()),
    ]
    return [
        measured.system.name,
        str(facts.get("engine") or ""),
        f"{facts['parameters'] / 1e6:,.0f}M" if facts.get("parameters") else "",
        f"{facts['bytes'] / 1e6:,.1f} MB" if facts.get("bytes") else "",
        f"{rows:,}",
        f"{facts['seconds']:,.1f}" if facts.get("seconds") is not None else "",
        f"{facts['questions_per_s']:,.0f}" if facts.get("questions_per_s") else "",
        f"{valid:.1%}",
        ", ".join(filter(None, other)),
    ]
