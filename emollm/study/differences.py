"""Which differences between groups or periods hold: tests, effect sizes, and Holm over all that were looked at.

The test asks how many standard errors a difference is from 0, the standard error being that of the bootstrap over
authors and, where estimates are corrected, over labelled rows: a t-test with as many degrees of freedom as there are
buckets of authors less one, in the smaller side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from emollm.metrics.multiplicity import holm
from emollm.study.cells import Sums
from emollm.study.correction import all_but
from emollm.study.estimates import LEVEL, Estimator
from emollm.study.source import Floats, Measure

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure in two sides; values are the corrected ones where `corrected` says so."""

    measure: Measure
    first: str
    second: str
    first_posts: int
    second_posts: int
    first_value: float
    second_value: float
    difference: float
    """First minus second."""
    low: float
    high: float
    effect: float
    """Of shares Cohen's h, of means Cohen's d by the pooled standard deviation of posts."""
    p_value: float
    p_holm: float = math.nan
    corrected: bool = False
    raw_difference: float = math.nan
    """Without the correction."""
    bias: float = math.nan
    """The largest difference that the fairness audit found for this question, in its range; NaN where it is unknown."""

    @property
    def holds(self) -> bool:
        return self.p_holm < ALPHA

    @property
    def within_bias(self) -> bool:
        return not math.isnan(self.bias) and abs(self.difference) <= self.bias


Side = tuple[str, Sums, int]
"""Its name, its sums as one cell, and its place among the cells of labelled rows, or `all_but` one of them."""


def differences(
    pairs: Sequence[tuple[Side, Side]], estimator: Estimator, bias: Mapping[str, float], answers: Sequence[str] = ()
) -> list[Difference]:
    """Every measure of `answers` between the sides of each pair; p-values corrected over all of these together."""
    every = [one for first, second in pairs for one in _pair(first, second, estimator, bias)]
    found = [one for one in every if is_asked(one.measure, answers)]
    corrected = holm([one.p_value for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def is_asked(measure: Measure, answers: Sequence[str]) -> bool:
    """Whether a measure or its question is among these names; all are where there are none."""
    return not answers or measure.name in answers or measure.question in answers


def _pair(first: Side, second: Side, estimator: Estimator, bias: Mapping[str, float]) -> Iterator[Difference]:
    both = Sums(*(np.concatenate([getattr(side[1], name) for side in (first, second)]) for name in Sums.__slots__))
    cells = np.array([first[2], second[2]], np.intp)
    value, expected, value_R, expected_R = estimator.means(both)
    answered = both.answered_CKM
    posts, filled = answered.sum(axis=1), (answered > 0).sum(axis=1)
    for m, measure in enumerate(estimator.measures):
        fixed = estimator.corrected(
            m, (value[:, m], expected[:, m]), (value_R[:, :, m], expected_R[:, :, m]), posts[:, m], cells
        )
        sides, draws = (value[:, m], value_R[:, :, m]) if fixed is None else (fixed.estimate_C, fixed.draws_RC)
        yield Difference(
            measure=measure, first=first[0], second=second[0], first_posts=int(posts[0, m]),
            second_posts=int(posts[1, m]), first_value=float(sides[0]), second_value=float(sides[1]),
            **_tested(sides, draws, int(filled[:, m].min())),
            effect=_effect(measure, sides, both.squares_CM[:, m], value[:, m], posts[:, m]),
            corrected=fixed is not None, raw_difference=float(value[0, m] - value[1, m]),
            bias=bias.get(measure.question, math.nan) * (measure.high - measure.low),
        )  # fmt: skip


def _tested(sides: Floats, draws_R2: Floats, filled: int) -> dict[str, float]:
    apart = float(sides[0] - sides[1])
    drawn = draws_R2[:, 0] - draws_R2[:, 1]
    drawn = drawn[~np.isnan(drawn)]
    error = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
    if filled < 2 or math.isnan(apart):
        return {"difference": apart, "low": math.nan, "high": math.nan, "p_value": math.nan}
    if error == 0:
        return {"difference": apart, "low": apart, "high": apart, "p_value": 1.0 if apart == 0 else math.nan}
    # As the intervals of estimates are widened: a variance over few buckets is too small by this.
    error *= math.sqrt(filled / (filled - 1))
    wide = float(stats.t.ppf((1 + LEVEL) / 2, filled - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(apart) / error, filled - 1))
    return {"difference": apart, "low": apart - wide, "high": apart + wide, "p_value": p_value}


def _effect(measure: Measure, sides: Floats, squares: Floats, value: Floats, posts: Floats) -> float:
    if np.isnan(sides).any():
        return math.nan
    if measure.is_share:
        first, second = (2 * math.asin(math.sqrt(min(max(float(side), 0.0), 1.0))) for side in sides)
        return first - second
    within = float((squares - posts * value**2).sum()) / max(float(posts.sum()) - 2, 1.0)
    return float(sides[0] - sides[1]) / math.sqrt(within) if within > 0 else math.nan


def pairs_of_groups(names: Sequence[str], sums: Sums, compare: Sequence[str]) -> list[tuple[Side, Side]]:
    """The two that are named; else two groups with each other, or each of several with all others together."""
    shown: NDArray[np.intp] = np.flatnonzero(sums.rows_CK.sum(axis=1) > 0)
    sides: list[Side] = [(names[c], sums.cell(int(c)), int(c)) for c in shown]
    if compare:
        chosen = {side[0]: side for side in sides}
        return [(chosen[compare[0]], chosen[compare[1]])]
    if len(sides) == 2:
        return [(sides[0], sides[1])]
    if len(sides) < 2:
        return []
    return [(side, ("all others", sums.total(shown[shown != side[2]]), all_but(side[2]))) for side in sides]
