"""What others use beside the model: a lexicon's polarity of each post, and how far conclusions differ.

Shapes: N rows, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from emollm.study.differences import Difference
from emollm.study.source import Floats, QuestionColumn, Values

VALENCE_COLUMNS = (
    "v_reg", "v_oc", "emobank_v", "sst", "sst5", "tdt", "vader_tweets", "vader_movie", "vader_nyt", "vader_amazon",
)  # fmt: skip
"""Answers that say how positive a text is, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A lexicon against the model's valence."""

    lexicon: str
    question: str
    correlation: float
    """Pearson's, over posts."""
    compared: int
    """Differences that both speak of."""
    same_sign: int
    same_verdict: int
    """Both hold with the same sign, or neither holds."""


class Beside:
    """Adds a column per lexicon to each batch, and sums up how the lexicons go with the model."""

    def __init__(self, lexicons: Mapping[str, Callable[[str], float]], questions: Sequence[QuestionColumn]) -> None:
        self._lexicons = lexicons
        self.columns = [QuestionColumn(name, "number", low=-1.0, high=1.0) for name in lexicons]
        known = {q.name: sum(len(p.measures) for p in questions[:i]) for i, q in enumerate(questions)}
        self._valence = next((name for name in VALENCE_COLUMNS if name in known), None)
        self._place = known[self._valence] if self._valence else 0
        self._question = [q.name for q in questions].index(self._valence) if self._valence else 0
        self._sums: Floats = np.zeros((len(lexicons), 6))

    def add(self, batch: Any) -> Any:
        """The batch with a number in -1..1 per lexicon; null where there is no text."""
        if not self._lexicons:
            return batch
        texts = batch.column("text").to_pylist()
        for name, polarity in self._lexicons.items():
            scores = [polarity(text) if text and not text.isspace() else None for text in texts]
            batch = batch.append_column(name, pa.array(scores, pa.float64()))
        return batch

    def look(self, values: Values) -> None:
        """Sums for the correlations."""
        if not self._lexicons or self._valence is None:
            return
        count, width = len(self._lexicons), values.values_NM.shape[1]
        for i in range(count):
            both = values.valid_NQ[:, self._question] & values.valid_NQ[:, -count + i]
            x, y = values.values_NM[both, self._place], values.values_NM[both, width - count + i]
            self._sums[i] += [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def agreements(self, found: Sequence[Difference]) -> list[Agreement]:
        if self._valence is None:
            return []
        return [self._agreement(i, name, found) for i, name in enumerate(self._lexicons)]

    def _agreement(self, i: int, name: str, found: Sequence[Difference]) -> Agreement:
        n, x, y, xx, yy, xy = self._sums[i]
        spread = np.sqrt(max(n * xx - x * x, 0.0) * max(n * yy - y * y, 0.0))
        by_name = {q: {(d.first, d.second): d for d in found if d.measure.question == q} for q in (self._valence, name)}
        mine, theirs = by_name.values()
        pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
        same = [np.sign(a.difference) == np.sign(b.difference) for a, b in pairs]
        verdict = [a.holds == b.holds and (s or not a.holds) for (a, b), s in zip(pairs, same, strict=True)]
        assert self._valence is not None
        return Agreement(
            lexicon=name, question=self._valence, correlation=float((n * xy - x * y) / spread) if spread else np.nan,
            compared=len(pairs), same_sign=sum(map(bool, same)), same_verdict=sum(map(bool, verdict)),
        )  # fmt: skip
