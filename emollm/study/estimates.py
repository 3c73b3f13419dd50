"""Shares and means of cells with their intervals, as they are and corrected.

Buckets of authors are drawn with replacement; the quantiles are those of the expanded percentile interval, wider for
few authors (Hesterberg, Am. Stat. 69, 2015). A share of 0 or 1, whose resamples are all alike, gets the exact interval
of Clopper and Pearson.

Shapes: C cells, K buckets, M measures, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from emollm.study.cells import Sums
from emollm.study.correction import Corrected, LabelledMeasure, Method, correct, draw_labelled
from emollm.study.source import Floats, Measure

LEVEL = 0.95
_DRAWN_AT_ONCE = 1 << 22
"""Numbers in memory while cells are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One measure in one cell; NaN where there is nothing to say."""

    posts: int
    """Posts with an answer."""
    value: float
    low: float
    high: float
    spread: float
    """Standard deviation of the posts' values."""
    corrected: float = float("nan")
    corrected_low: float = float("nan")
    corrected_high: float = float("nan")


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled rows, and how they correct."""

    method: Method
    measures: dict[str, LabelledMeasure]
    """By measure; those without golds are left out."""


class Estimator:
    """Draws once, so that all cells are drawn alike: what they share cancels in their differences."""

    def __init__(
        self, measures: Sequence[Measure], buckets: int, *, resamples: int, seed: int, labels: Labels | None = None,
        posts_per_author: float = 1.0,
    ) -> None:  # fmt: skip
        self.measures = list(measures)
        self.labels = labels
        rng = np.random.default_rng([seed, 0])
        self.draws_RK = rng.multinomial(buckets, np.full(buckets, 1 / buckets), resamples).astype(np.float64)
        self._weights: dict[int, Floats] = {}
        self._resamples, self._seed = resamples, seed
        self._posts_per_author = posts_per_author
        self.refusals: dict[str, str] = {}
        """Of measures that could not be corrected, why."""

    def estimates(self, sums: Sums, cells: NDArray[np.intp] | None = None) -> list[list[Estimate]]:
        """Of each cell, one per measure. `cells`: their places in the labelled rows; None: the whole corpus."""
        count = len(sums.rows_CK)
        per_cell = self.draws_RK.size // self.draws_RK.shape[1] * len(self.measures) * 3
        step = max(1, _DRAWN_AT_ONCE // per_cell)
        found: list[list[Estimate]] = []
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            found += self._part(sums, part, None if cells is None else cells[part])
        return found

    def means(self, sums: Sums, part: slice = slice(None)) -> tuple[Floats, Floats, Floats, Floats]:
        """Share and mean probability [C, M], then those of their resamples [R, C, M]; NaN without answers."""
        answered = sums.answered_CKM[part]
        value, expected = sums.values_CKM[part], sums.expected_CKM[part]
        with np.errstate(invalid="ignore", divide="ignore"):
            n_CM, n_RCM = answered.sum(axis=1), self._drawn(answered)
            return (
                value.sum(axis=1) / n_CM, expected.sum(axis=1) / n_CM,
                self._drawn(value) / n_RCM, self._drawn(expected) / n_RCM,
            )  # fmt: skip

    def _drawn(self, part_CKM: Floats) -> Floats:
        drawn = np.tensordot(self.draws_RK, part_CKM, axes=([1], [1]))
        return np.asarray(drawn, np.float64)

    def corrected(
        self, m: int, given: tuple[Floats, Floats], drawn: tuple[Floats, Floats], answered_C: Floats,
        cells: NDArray[np.intp] | None,
    ) -> Corrected | None:  # fmt: skip
        """Measure `m` of some cells, where there are labelled rows for it."""
        measure = self.measures[m]
        rows = self.labels.measures.get(measure.name) if self.labels else None
        if rows is None or self.labels is None:
            return None
        size = len(rows.gold_L)
        if size and size not in self._weights:
            self._weights[size] = draw_labelled(size, self._resamples, self._seed)
        weights = self._weights.get(size, np.zeros((self._resamples, 0)))
        found = correct(
            self.labels.method, rows, given, drawn, answered_C, cells, is_share=measure.is_share, weights_RL=weights
        )
        if found.why_not:
            self.refusals[measure.name] = found.why_not
            return None
        return found

    def _part(self, sums: Sums, part: slice, cells: NDArray[np.intp] | None) -> list[list[Estimate]]:
        value, expected, value_R, expected_R = self.means(sums, part)
        answered = sums.answered_CKM[part]
        n_CM, filled_CM = answered.sum(axis=1), (answered > 0).sum(axis=1)
        low, high = intervals(value_R, filled_CM)
        columns = []
        for m, measure in enumerate(self.measures):
            if measure.is_share:
                authors_C = np.maximum(n_CM[:, m] / self._posts_per_author, filled_CM[:, m])
                _mend_ends(value[:, m], low[:, m], high[:, m], authors_C)
            fixed = self.corrected(m, (value[:, m], expected[:, m]), (value_R[:, :, m], expected_R[:, :, m]),
                                   n_CM[:, m], cells)  # fmt: skip
            spread = np.sqrt(np.maximum(sums.squares_CM[part, m] / np.maximum(n_CM[:, m], 1) - value[:, m] ** 2, 0))
            if fixed is None:
                nothing = np.full(len(value), np.nan)
                columns.append((n_CM[:, m], value[:, m], low[:, m], high[:, m], spread, nothing, nothing, nothing))
            else:
                ends = intervals(fixed.draws_RC[:, :, None], filled_CM[:, [m]])
                inside = (
                    np.clip(c, measure.low, measure.high) for c in (fixed.estimate_C, ends[0][:, 0], ends[1][:, 0])
                )
                columns.append((n_CM[:, m], value[:, m], low[:, m], high[:, m], spread, *inside))
        names = ("value", "low", "high", "spread", "corrected", "corrected_low", "corrected_high")
        return [
            [
                Estimate(posts=int(column[0][c]), **{k: float(v[c]) for k, v in zip(names, column[1:], strict=True)})
                for column in columns
            ]
            for c in range(len(value))
        ]


def intervals(draws_RCM: Floats, filled_CM: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """[C, M] ends of the expanded percentile interval; NaN where fewer than two buckets hold answers."""
    some = np.maximum(filled_CM, 2)
    wide = np.sqrt(some / (some - 1)) * stats.t.ppf((1 + LEVEL) / 2, some - 1)
    ranks = np.sort(draws_RCM, axis=0)  # NaN goes last
    defined = (~np.isnan(ranks)).sum(axis=0)
    ends = []
    for level in (stats.norm.cdf(-wide), stats.norm.cdf(wide)):
        place = np.clip(level * (defined - 1), 0, np.maximum(defined - 1, 0))
        below = np.floor(place).astype(np.intp)
        above = np.minimum(below + 1, np.maximum(defined - 1, 0))
        at = [np.take_along_axis(ranks, where[None], axis=0)[0] for where in (below, above)]
        end = at[0] + (at[1] - at[0]) * (place - below)
        ends.append(np.where((filled_CM < 2) | (defined == 0), np.nan, end))
    return ends[0], ends[1]


def _mend_ends(value_C: Floats, low_C: Floats, high_C: Floats, authors_C: Floats) -> None:
    """Exact intervals for shares of 0 and 1, by the number of authors, which is estimated where they are many."""
    for c in np.flatnonzero((authors_C >= 2) & ((value_C == 0) | (value_C == 1))):
        width = float(1 - ((1 - LEVEL) / 2) ** (1 / authors_C[c]))
        low_C[c], high_C[c] = (0.0, width) if value_C[c] == 0 else (1 - width, 1.0)
