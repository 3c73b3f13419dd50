"""Which posts a person should look at first: uncertain, atypical, or where annotators disagree.

Uncertain: how unsure the answers are (`annotated.doubt`), in standard deviations of the corpus, as a mean over
questions. Atypical: how unusual a post's answers, doubts and length are together (Mahalanobis distance), which finds
what the model was not made for even where it is sure. Disagreement: the mean distance of two annotators' answers, 0..1.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.core.prompts import column_name
from emollm.core.tasks import Value, as_number
from emollm.data.raters import distance
from emollm.review.annotated import Annotated

Floats = NDArray[np.float64]
By = Literal["mixed", "uncertain", "atypical", "disagreement", "random"]


class Picked(NamedTuple):
    row: int
    why: str
    """`uncertain`, `atypical`, `disagreement` or `random`."""
    score: float
    """How uncertain, atypical or far apart it is, in the units above."""


def pick(
    posts: Annotated, count: int, *, by: By = "mixed", others: Sequence[Annotated] = (), seed: int = 0
) -> list[Picked]:
    """At most `count` posts, the most useful first, each text once; `mixed` takes the first of each reason in turn.

    Raises DataError where what is asked for cannot be told from the columns.
    """
    reasons: dict[str, Floats] = {}
    if by in ("mixed", "uncertain") and posts.doubts:
        reasons["uncertain"] = uncertainty(posts)
    if by in ("mixed", "disagreement") and others:
        reasons["disagreement"] = disagreement([posts, *others])
    if by in ("mixed", "atypical"):
        reasons["atypical"] = atypicality(posts)
    if by == "random":
        reasons["random"] = np.random.default_rng(seed).random(len(posts.ids))
    if not reasons:
        columns = "columns named _probabilities, _std or _confidence"
        need = columns if by == "uncertain" else "other annotations of the same posts (--against)"
        raise DataError(f"--by {by} needs {need}; {posts.name} alone does not tell")
    orders = {why: iter(np.argsort(-score, kind="stable").tolist()) for why, score in reasons.items()}
    seen: set[str] = set()
    found: list[Picked] = []
    while orders and len(found) < count:
        for why in list(orders):
            row = next((n for n in orders[why] if posts.texts[n].strip() and posts.texts[n] not in seen), None)
            if row is None:
                del orders[why]
            elif len(found) < count:
                seen.add(posts.texts[row])
                found.append(Picked(row, why, float(reasons[why][row])))
    return found


def uncertainty(posts: Annotated) -> Floats:
    """[N], higher is less sure. A post without an answer counts as the corpus's mean."""
    scores = []
    for column in posts.doubts.values():
        doubt_N = np.array([np.nan if d is None else d for d in column], dtype=float)
        spread = float(np.nanstd(doubt_N)) if not np.isnan(doubt_N).all() else 0.0
        # A column kept as float32 differs by its rounding alone where all its values are the same.
        known = spread > 1e-6
        scores.append(np.nan_to_num((doubt_N - np.nanmean(doubt_N)) / spread) if known else np.zeros(len(doubt_N)))
    mean_N: Floats = np.mean(scores, axis=0)
    return mean_N


def atypicality(posts: Annotated) -> Floats:
    """[N]: the Mahalanobis distance of numbers, set sizes, doubts and log length, in standard deviations."""
    columns: list[Floats] = [np.log1p([len(text) for text in posts.texts])]
    for values in posts.values.values():
        columns.append(np.array([_as_number(value) for value in values]))
    for doubts in posts.doubts.values():
        columns.append(np.array([np.nan if d is None else d for d in doubts], dtype=float))
    x_NF = np.stack(columns, axis=1)
    x_NF = np.where(np.isnan(x_NF), np.nan_to_num(np.nanmean(x_NF, axis=0)), x_NF)
    spread_F = x_NF.std(axis=0)
    x_NF = (x_NF - x_NF.mean(axis=0))[:, spread_F > 0] / spread_F[spread_F > 0]
    if not x_NF.size:
        return np.zeros(len(posts.ids))
    # A tenth of the identity: columns that say the same would otherwise divide by nothing.
    covariance = 0.9 * np.cov(x_NF, rowvar=False).reshape(x_NF.shape[1], -1) + 0.1 * np.eye(x_NF.shape[1])
    squared_N = np.einsum("nf,nf->n", x_NF, np.linalg.solve(covariance, x_NF.T).T)
    distance_N: Floats = np.sqrt(squared_N / x_NF.shape[1])
    return distance_N


def disagreement(annotators: Sequence[Annotated]) -> Floats:
    """[N] for the first one's posts: the mean distance of any two annotators over the questions both answered."""
    first = annotators[0]
    by_id: list[Mapping[str, int]] = [{one: n for n, one in enumerate(a.ids)} for a in annotators]
    found = np.zeros(len(first.ids))
    for n, one in enumerate(first.ids):
        rows = [places.get(one) for places in by_id]
        apart = [
            distance(question.task, a, b)
            for question in first.questions
            for i, j in itertools.combinations(range(len(annotators)), 2)
            if (a := _at(annotators[i], question, rows[i])) is not None
            and (b := _at(annotators[j], question, rows[j])) is not None
        ]
        found[n] = np.mean(apart) if apart else 0.0
    return found


def _at(annotator: Annotated, question: Any, row: int | None) -> Value | None:
    column = annotator.values.get(column_name(question))
    return None if column is None or row is None else column[row]


def _as_number(value: Value | None) -> float:
    if isinstance(value, tuple):
        return float(len(value))
    number = None if value is None else as_number(value)
    return np.nan if number is None else number
