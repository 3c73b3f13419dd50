"""Features and labels to heads. All selection is by cross-validation on the given texts, grouped by text.

Shapes: N texts, F features, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from emollm.core.errors import DataError
from emollm.core.heads_card import FeatureSpec, Head
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.scoring.heads import head_calibration
from emollm.scoring.heads.labels import Floats, LabelledText
from emollm.scoring.heads.ridge import (
    STRENGTHS,
    Features,
    Linear,
    Scale,
    SufficientStats,
    computing_on,
    explained_variance,
    fold_moments,
    held_out_scores,
    scale_of,
    solve,
)
from emollm.scoring.heads.stacking import First, borrowed, is_better, per_task
from emollm.scoring.heads.weights import HeadWeights

MAX_READINGS = 3
LEAST_GAIN = 0.002
"""Another feature_spec is added only if it explains this much more of the held-out variance."""
MOST_BESIDE = 6
"""Number of the best features that are tried in addition to a first one."""
WORTH_DEPTH = 0.005
"""A deeper layer must explain this much more than a shallower one, since every layer costs time for every post."""


@dataclass(frozen=True, slots=True)
class FittedHeads:
    head_weights: HeadWeights
    heads: tuple[Head, ...]
    feature_specs: tuple[FeatureSpec, ...]
    scale: Scale
    """Moments of the features, over all texts."""
    explained: dict[str, float]
    """The held-out variance explained by each tried set of feature_specs, averaged over the tasks."""
    borrows: bool
    """Whether the heads were also fitted on each other's scores (`stacking.py`)."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Questions that are labelled on the same texts: they share the moments, which are the most expensive part."""

    keys: list[QuestionKey]
    index_N: NDArray[np.intp]
    targets_NK: Floats
    columns: dict[QuestionKey, slice]


def fit_heads(
    features: Features,
    labelled: LabelledText,
    tasks: Sequence[Task],
    *,
    feature_specs: Sequence[FeatureSpec] | None = None,
    on_try: Callable[[str, float], None] = lambda _feature_specs, _explained: None,
    device: str | None = None,
    num_threads: int = 1,
) -> FittedHeads:
    """Fit a head for every question of `tasks` that has labels.

    `features` holds [N, D] for each feature that may be chosen, or at least for `feature_specs`, which are then
    taken as they are. `device` is where moments and Cholesky factors are computed, in float64; None: by NumPy on
    `num_threads` threads, of cores that nobody else uses: on busy ones BLAS's threads spin while they wait for each
    other (LOG.md). Raises DataError where a question has too few labelled texts to hold some out.
    """
    with threadpool_limits(num_threads, user_api="blas"), computing_on(device):
        return _fit_heads(features, labelled, tasks, feature_specs, on_try)


def _fit_heads(
    features: Features, labelled: LabelledText, tasks: Sequence[Task], feature_specs: Sequence[FeatureSpec] | None,
    on_try: Callable[[str, float], None],
) -> FittedHeads:  # fmt: skip
    by_name = {task.name: task for task in tasks}
    groups = _groups(labelled, by_name)
    tried: dict[str, float] = {}
    if feature_specs is None:
        feature_specs = _choose(features, labelled, groups, tried, on_try)
    scale = scale_of(features, feature_specs)
    firsts: dict[QuestionKey, First] = {}
    for group in groups:
        firsts |= _first_fits(features, feature_specs, scale, labelled, group)
    seconds = borrowed(firsts, labelled.fold_N)
    borrows = is_better(firsts, seconds)
    heads: list[Head] = []
    scores: dict[QuestionKey, Floats] = {}
    weights: list[Floats] = []
    for key, first in firsts.items():
        scores[key] = seconds[key].held_out_NK if borrows else first.held_out_NK[first.index_N]
        heads.append(_calibrated(by_name[key.task], key, scores[key], labelled, first.index_N, len(weights)))
        weights += list(seconds[key].weights_KF if borrows else first.weights_KF)
    heads = _tied(heads, scores, labelled, by_name)
    head_weights, heads = packed(weights, heads)
    return FittedHeads(head_weights, tuple(in_order(heads, tasks)), tuple(feature_specs), scale, tried, borrows)


def _first_fits(
    features: Features, feature_specs: Sequence[FeatureSpec], scale: Scale, labelled: LabelledText, group: _Group
) -> dict[QuestionKey, First]:
    """Each question of a group by itself, with its own regularisation."""
    mine = labelled.fold_N[group.index_N]
    moments = fold_moments(features, feature_specs, scale, group.index_N, group.targets_NK, mine)
    total = sum(moments[1:], start=moments[0])
    explained_SK = explained_variance(moments)
    best = {key: explained_SK[:, columns].mean(axis=1) for key, columns in group.columns.items()}
    strengths = [(group.columns[key], STRENGTHS[int(best[key].argmax())]) for key in group.keys]
    without = [_solved(total - part, strengths) for part in moments]
    everyone = np.arange(len(labelled.texts))
    held_out_NK = held_out_scores(features, feature_specs, scale, everyone, labelled.fold_N, without)
    weights_KF = np.stack(_unscaled(_solved(total, strengths), scale))
    return {
        key: First(
            group.index_N,
            group.targets_NK[:, columns],
            held_out_NK[:, columns],
            weights_KF[columns],
            float(best[key].max()),
        )
        for key, columns in group.columns.items()
    }


def _solved(moments: SufficientStats, strengths: Sequence[tuple[slice, float]]) -> Linear:
    """The outputs of a group, concatenated, each question's with its own regularisation."""
    fits = [solve(_columns(moments, columns), strength) for columns, strength in strengths]
    return Linear(np.concatenate([fit.weight_FK for fit in fits], axis=1), np.concatenate([fit.bias_K for fit in fits]))


def _groups(labelled: LabelledText, by_name: dict[str, Task]) -> list[_Group]:
    by_texts: dict[bytes, list[QuestionKey]] = {}
    for key in labelled.golds:
        index_N = labelled.known(key)
        if len(index_N) < head_calibration.LEAST_TEXTS:
            raise DataError(
                f"{key} has {len(index_N)} labelled texts, too few to hold some out; give more data, or leave "
                "the task out with --tasks"
            )
        if not np.ptp(labelled.golds[key][index_N], axis=0).any():
            raise DataError(
                f"all {len(index_N)} labelled texts of {key} have the same answer, so there is nothing to learn; give "
                "more data, or leave the task out with --tasks"
            )
        by_texts.setdefault(index_N.tobytes(), []).append(key)
    groups = []
    for keys in by_texts.values():
        index_N = labelled.known(keys[0])
        columns, targets, start = {}, [], 0
        for key in keys:
            target = _regressed(by_name[key.task], labelled.golds[key][index_N])
            columns[key] = slice(start, start + target.shape[1])
            start += target.shape[1]
            targets.append(target)
        groups.append(_Group(keys, index_N, np.concatenate(targets, axis=1), columns))
    return groups


def _regressed(task: Task, golds_NK: Floats) -> Floats:
    """The targets of a linear score: for ordinals the expected rank, else the golds themselves."""
    if task.kind is Kind.ORDINAL:
        return golds_NK @ np.arange(golds_NK.shape[1], dtype=float)[:, None]
    return golds_NK


def _choose(
    features: Features, labelled: LabelledText, groups: Sequence[_Group], tried: dict[str, float],
    on_try: Callable[[str, float], None],
) -> tuple[FeatureSpec, ...]:  # fmt: skip
    """Forward selection of features: each is the one that explains most in addition to those before it."""
    chosen: tuple[FeatureSpec, ...] = ()
    best = -np.inf
    candidates: list[FeatureSpec] = list(features)
    while len(chosen) < MAX_READINGS:
        found: dict[FeatureSpec, float] = {}
        for candidate in candidates:
            if candidate in chosen:
                continue
            feature_specs = (*chosen, candidate)
            found[candidate] = _explained(features, labelled, groups, feature_specs)
            name = " + ".join(f"{r.pooling} {r.layer}" for r in feature_specs)
            tried[name] = found[candidate]
            on_try(name, found[candidate])
        most = max(found.values(), default=-np.inf)
        if most < best + LEAST_GAIN:
            break
        depth = max((r.layer for r in chosen), default=0)
        enough = max(most - WORTH_DEPTH, best + LEAST_GAIN)
        winner = min((r for r in found if found[r] >= enough), key=lambda r: (max(depth, r.layer), -found[r]))
        best, chosen = found[winner], (*chosen, winner)
        # After the first, only features that did well alone are tried: each try costs as much as all first ones.
        candidates = sorted(found, key=lambda r: -found[r])[:MOST_BESIDE]
    return chosen


def _explained(
    features: Features, labelled: LabelledText, groups: Sequence[_Group], feature_specs: Sequence[FeatureSpec]
) -> float:
    """Held-out variance explained, averaged over emotions and then over tasks."""
    scale = scale_of(features, feature_specs)
    explained: dict[QuestionKey, float] = {}
    for group in groups:
        moments = fold_moments(
            features, feature_specs, scale, group.index_N, group.targets_NK, labelled.fold_N[group.index_N]
        )
        explained_SK = explained_variance(moments)
        for key in group.keys:
            explained[key] = float(explained_SK[:, group.columns[key]].mean(axis=1).max())
    return per_task(explained)


def _columns(moments: SufficientStats, columns: slice) -> SufficientStats:
    m = moments
    return SufficientStats(m.n, m.x_F, m.y_K[columns], m.xx_FF, m.xy_FK[:, columns], m.yy_K[columns])


def _calibrated(
    task: Task, key: QuestionKey, scores_NK: Floats, labelled: LabelledText, index_N: NDArray[np.intp],
    first_output: int,
) -> Head:  # fmt: skip
    golds_NK = labelled.golds[key][index_N]
    # Calibrate on human labels; if a teacher labelled all texts, on the teacher's.
    gold_N = labelled.is_gold_N[index_N]
    variance_N = labelled.variance[key][index_N] if key in labelled.variance else None
    if gold_N.sum() >= head_calibration.LEAST_TEXTS:
        scores_NK, golds_NK = scores_NK[gold_N], golds_NK[gold_N]
        variance_N = None if variance_N is None else variance_N[gold_N]
    head = Head.model_validate(
        {
            "task": key.task,
            "emotion": key.emotion,
            "origin": "trained" if gold_N.sum() >= head_calibration.LEAST_TEXTS else "distilled",
            "outputs": tuple(range(first_output, first_output + scores_NK.shape[1])),
            "rows": len(index_N),
        }
    )
    fitted = head_calibration.calibrated(task, head, scores_NK, golds_NK, variance_N)
    return fitted.model_copy(update={"metrics": head_calibration.held_out_metrics(task, fitted, scores_NK, golds_NK)})


def _unscaled(fit: Linear, scale: Scale) -> list[Floats]:
    """One row [F + 1] per output: weights of the unscaled features, then the bias."""
    weight_FK = fit.weight_FK / scale.std_F[:, None]
    bias_K = fit.bias_K - scale.mean_F @ weight_FK
    return [np.append(weight_FK[:, k], bias_K[k]) for k in range(len(bias_K))]


def _tied(
    heads: list[Head], scores: dict[QuestionKey, Floats], labelled: LabelledText, by_name: dict[str, Task]
) -> list[Head]:
    """Ordinals use a regression's output instead of their own if it ranks held-out texts better.

    EI-oc is EI-reg divided into classes: its four classes say less about a text than the number does.
    """
    numbers = [head for head in heads if by_name[head.task].kind is Kind.REGRESSION]
    tied = []
    for head in heads:
        best, key = head, head.key
        if by_name[head.task].kind is Kind.ORDINAL:
            golds_NK = labelled.golds[key][labelled.known(key)]
            rank_N = golds_NK @ np.arange(golds_NK.shape[1], dtype=float)
            most = head_calibration.correlation(scores[key][:, 0], rank_N)
            for number in numbers:
                other = number.key
                if other.emotion != key.emotion or not np.array_equal(labelled.known(other), labelled.known(key)):
                    continue
                found = head_calibration.correlation(scores[other][:, 0], rank_N)
                if found > most:
                    most = found
                    index_N = labelled.known(key)
                    best = _calibrated(by_name[key.task], key, scores[other], labelled, index_N, number.outputs[0])
        tied.append(best)
    return tied


def packed(weights: Sequence[Floats], heads: Sequence[Head]) -> tuple[HeadWeights, list[Head]]:
    """The rows that some head uses, and the heads with the rows' new indices."""
    used = sorted({output for head in heads for output in head.outputs})
    place = {output: i for i, output in enumerate(used)}
    rows = np.stack([weights[output] for output in used]).astype(np.float32)
    moved = [head.model_copy(update={"outputs": tuple(place[o] for o in head.outputs)}) for head in heads]
    return HeadWeights(np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, -1])), moved


def in_order(heads: Sequence[Any], tasks: Sequence[Task]) -> list[Head]:
    order = {key: place for place, key in enumerate(key for task in tasks for key in task.keys)}
    return sorted(heads, key=lambda head: order[head.key])
