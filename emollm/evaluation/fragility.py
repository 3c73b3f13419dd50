"""Which questions are fragile: the spread over a task's wordings, and how far small changes move answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from emollm.core.tasks import Kind, Task
from emollm.data.raters import distance
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.perturb import CHANGES
from emollm.evaluation.predict import askable_tasks, predict
from emollm.evaluation.systems import spread
from emollm.metrics.bootstrap import Interval
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import Bootstrap, score_task
from emollm.scoring.open import resolve_engine

WORDING = "other wording"
_MOVED = 0.1
"""A number has moved that is further than this part of its range from what it was, as in the other measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """A task's headline metric under each of its wordings, on the same rows."""

    task: str
    metric: str
    rows: int
    scores: list[float]
    """In the order of the task's wordings; the first is the one that is used."""
    intervals: list[Interval | None]

    @property
    def spread(self) -> float:
        """Largest less smallest; NaN where none is defined."""
        known = [score for score in self.scores if not math.isnan(score)]
        return max(known) - min(known) if known else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far one change moves the answers to a task."""

    task: str
    change: str
    answers: int
    """That the change touches: of a wording, rows times other wordings."""
    distance: float
    """Mean distance of the answer from the one before, 0..1; of sets 1 - Jaccard."""
    low: float
    high: float
    """The 95% bootstrap interval of that, over rows."""
    moved: float
    """Share of other classes, labels or sets, or of numbers more than a tenth of the range away."""


@dataclass(frozen=True, slots=True)
class Fragility:
    wordings: list[Wordings]
    """Empty for heads, which are asked without words."""
    moved: list[Moved]

    def as_json(self) -> dict[str, Any]:
        def clean(value: Any) -> Any:
            return None if isinstance(value, float) and math.isnan(value) else value

        return {
            "wordings": [
                {**asdict(one), "scores": [clean(score) for score in one.scores], "spread": clean(one.spread)}
                for one in self.wordings
            ],
            "moved": [asdict(one) for one in self.moved],
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """One variant of one row."""

    row: int
    change: str
    template: int
    text: str


def measure_fragility(
    config: EvaluateConfig,
    questions: Sequence[GoldQuestion],
    on_rows: Callable[[int, int], None] = lambda _done, _total: None,
) -> Fragility:
    """Ask `wording_rows` rows per task and emotion in every wording and with every change of the text."""
    assert config.scored_model
    engine = resolve_engine(config.scored_model, config.engine)
    known = {task.name: task for task in askable_tasks(config.scored_model, config.engine)}
    rows = spread([q for q in questions if q.task.name in known], config.wording_rows)
    asked = list(variants(rows, known, worded=engine != "heads"))
    scored = predict(
        config.scored_model,
        [replace(rows[one.row], text=one.text) for one in asked],
        options={**config.scorer_options(), "engine": engine},
        cluster=config.cluster,
        calibrated=config.calibrated,
        templates=[one.template for one in asked],
        on_rows=lambda done: on_rows(done, len(asked)),
    ).predictions
    return summed_up(rows, asked, scored, Bootstrap(config.resamples or 1000, config.seed))


def variants(rows: Sequence[GoldQuestion], known: Mapping[str, Task], *, worded: bool) -> list[_Asked]:
    """Every row as it is, in each other wording, and with each change that touches it."""
    found = []
    for n, question in enumerate(rows):
        found.append(_Asked(n, "", 0, question.text))
        if worded:
            templates = len(known[question.task.name].templates)
            found += [_Asked(n, WORDING, template, question.text) for template in range(1, templates)]
        for change, apply in CHANGES.items():
            if (text := apply(question.text)) != question.text:
                found.append(_Asked(n, change, 0, text))
    return found


def summed_up(
    rows: Sequence[GoldQuestion], asked: Sequence[_Asked], scored: Sequence[Prediction], bootstrap: Bootstrap
) -> Fragility:
    base = {one.row: p for one, p in zip(asked, scored, strict=True) if not one.change}
    by_task: dict[str, list[tuple[_Asked, Prediction]]] = {}
    for one, prediction in zip(asked, scored, strict=True):
        by_task.setdefault(rows[one.row].task.name, []).append((one, prediction))
    wordings, moved = [], []
    for name, mine in by_task.items():
        templates = sorted({one.template for one, _ in mine if one.change in ("", WORDING)})
        if len(templates) > 1:
            wordings.append(_wordings(name, mine, templates, bootstrap))
        for change in (WORDING, *CHANGES):
            found = [(one.row, base[one.row], p) for one, p in mine if one.change == change]
            if found and (one_change := _moved(name, change, found, bootstrap)):
                moved.append(one_change)
    return Fragility(wordings, moved)


def _wordings(
    name: str, mine: Sequence[tuple[_Asked, Prediction]], templates: Sequence[int], bootstrap: Bootstrap
) -> Wordings:
    results = []
    for template in templates:
        worded = [p for one, p in mine if one.template == template and one.change in ("", WORDING)]
        results.append(score_task(worded, bootstrap=bootstrap))
    metric = results[0].headline[0]
    return Wordings(
        task=name, metric=metric, rows=results[0].rows, scores=[r.scores[metric] for r in results],
        intervals=[r.intervals.get(metric) for r in results],
    )  # fmt: skip


def _moved(
    name: str, change: str, pairs: Sequence[tuple[int, Prediction, Prediction]], bootstrap: Bootstrap
) -> Moved | None:
    apart: dict[int, list[float]] = {}
    flipped = []
    for row, before, after in pairs:
        if before.value is not None and after.value is not None:
            task = before.question.task
            far = distance(task, before.value, after.value)
            apart.setdefault(row, []).append(far)
            flipped.append(far > _MOVED if task.kind is Kind.REGRESSION else far > 0)
    if not flipped:
        return None
    # Rows are drawn with all their wordings: answers to one row are no independent samples.
    sums, counts = (np.array([f(one) for one in apart.values()], dtype=float) for f in (sum, len))
    drawn = np.random.default_rng(bootstrap.seed).integers(0, len(sums), (bootstrap.resamples, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return Moved(
        task=name, change=change, answers=len(flipped), distance=float(sums.sum() / counts.sum()), low=float(low),
        high=float(high), moved=float(np.mean(flipped)),
    )  # fmt: skip
