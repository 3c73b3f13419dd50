"""Estimates corrected for what the model gets wrong, by rows whose true answers are known.

Adjusted count: share = (given - f) / (t - f), with t and f the shares of true and of false cases that the model gives
the label to (Gart and Buck, Am. J. Epidemiol. 83, 1966). PACC: the same with mean probabilities (Bella et al., ICDM
2010). Both hold where a label's posts look the same in the corpus as in the labelled rows, however common it is.
PPI: the mean of the predictions plus the mean error on labelled rows drawn from the corpus (Angelopoulos et al.,
Science 382, 2023), with its power tuned over the whole corpus (arXiv 2311.01453).

Shapes: L labelled rows, R resamples, C cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emollm.study.source import Floats

Method = Literal["adjusted", "pacc", "ppi"]
FEWEST_ROWS = 30
"""Labelled rows, of a cell's own for its own PPI."""
_FEWEST_CASES = 5
"""With and without the label each: fewer say nothing of the model's hits and false alarms."""
_LEAST_GAP = 0.1
"""Of hits over false alarms. Dividing by less only multiplies noise."""


@dataclass(frozen=True, slots=True)
class LabelledMeasure:
    """One measure on the labelled rows that have its gold."""

    gold_L: Floats
    value_L: Floats
    expected_L: Floats
    cell_L: NDArray[np.intp]
    """The cell each row lies in, -1 where it lies in none."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """Estimates of C cells, and of their resamples; NaN where they cannot be corrected."""

    estimate_C: Floats
    draws_RC: Floats
    why_not: str | None = None


def all_but(cell: int) -> int:
    """The place of all cells together but this one."""
    return -2 - cell


def _inside(rows: LabelledMeasure, cell: int) -> NDArray[np.bool_]:
    """[L] whether each row lies in a cell, or in none but `all_but` of one."""
    if cell >= 0:
        return np.asarray(rows.cell_L == cell)
    return np.asarray((rows.cell_L >= 0) & (rows.cell_L != -2 - cell))


def draw_labelled(count: int, resamples: int, seed: int) -> Floats:
    """[R, L] how often each labelled row is drawn."""
    return np.random.default_rng([seed, 1]).multinomial(count, np.full(count, 1 / count), resamples).astype(float)


def correct(
    method: Method,
    rows: LabelledMeasure,
    given: tuple[Floats, Floats],
    drawn: tuple[Floats, Floats],
    answered_C: Floats,
    cells: NDArray[np.intp] | None,
    *,
    is_share: bool,
    weights_RL: Floats,
) -> Corrected:
    """`given` are the cells' share and mean probability [C], `drawn` the same of their resamples [R, C].

    `cells` are the places of the C cells in the rows' `cell_L`; None: one cell, the whole corpus.
    """  # fmt: skip
    nothing = np.full(given[0].shape, np.nan), np.full(drawn[0].shape, np.nan)
    if len(rows.gold_L) < FEWEST_ROWS:
        return Corrected(*nothing, f"{len(rows.gold_L)} labelled rows, fewer than {FEWEST_ROWS}")
    if method == "ppi":
        return _ppi(rows, given[1], drawn[1], answered_C, cells, weights_RL)
    if not is_share:
        return Corrected(*nothing, f"{method} corrects shares of labels, not means; ppi does both")
    which = 0 if method == "adjusted" else 1
    predicted_L = rows.value_L if method == "adjusted" else rows.expected_L
    return _adjusted(rows.gold_L, predicted_L, given[which], drawn[which], weights_RL, nothing)


def _adjusted(
    gold_L: Floats, predicted_L: Floats, given_C: Floats, drawn_RC: Floats, weights_RL: Floats,
    nothing: tuple[Floats, Floats],
) -> Corrected:  # fmt: skip
    cases = float(gold_L.sum())
    if min(cases, len(gold_L) - cases) < _FEWEST_CASES:
        return Corrected(*nothing, f"{cases:.0f} of {len(gold_L)} labelled rows have it")
    hits, alarms = predicted_L[gold_L == 1].mean(), predicted_L[gold_L == 0].mean()
    if hits - alarms < _LEAST_GAP:
        return Corrected(*nothing, "the model hardly tells it apart on the labelled rows")
    with np.errstate(invalid="ignore", divide="ignore"):
        hits_R = (weights_RL @ (gold_L * predicted_L)) / (weights_RL @ gold_L)
        alarms_R = (weights_RL @ ((1 - gold_L) * predicted_L)) / (weights_RL @ (1 - gold_L))
    gap_R = np.maximum(hits_R - alarms_R, _LEAST_GAP)
    draws = (drawn_RC - alarms_R[:, None]) / gap_R[:, None]
    return Corrected(np.clip((given_C - alarms) / (hits - alarms), 0, 1), np.clip(draws, 0, 1))


def _ppi(
    rows: LabelledMeasure, mean_C: Floats, drawn_RC: Floats, answered_C: Floats, cells: NDArray[np.intp] | None,
    weights_RL: Floats,
) -> Corrected:  # fmt: skip
    """Cells with enough labelled rows by these, others by all: as if the model erred alike in all of them."""
    power = _power(rows, float(answered_C.sum())) if cells is None else 1.0
    gold, predicted = rows.gold_L, rows.expected_L * power
    error = float((gold - predicted).mean())
    error_R = weights_RL @ (gold - predicted) / np.maximum(weights_RL.sum(axis=1), 1)
    estimate, draws = mean_C * power + error, drawn_RC * power + error_R[:, None]
    for c, cell in enumerate(() if cells is None else cells):
        mine = _inside(rows, int(cell))
        if mine.sum() >= FEWEST_ROWS:
            apart_L = (rows.gold_L - rows.expected_L)[mine]
            weights = weights_RL[:, mine]
            estimate[c] = mean_C[c] + apart_L.mean()
            with np.errstate(invalid="ignore"):
                draws[:, c] = drawn_RC[:, c] + weights @ apart_L / weights.sum(axis=1)
    return Corrected(estimate, draws)


def _power(rows: LabelledMeasure, posts: float) -> float:
    """How much of the predictions to use: 1 is plain PPI, 0 the labelled rows alone."""
    spread = float(rows.expected_L.var())
    if spread == 0:
        return 0.0
    together = float(np.cov(rows.gold_L, rows.expected_L, ddof=0)[0, 1])
    return float(np.clip(together / spread / (1 + len(rows.gold_L) / max(posts, 1.0)), 0, 1))
