"""Sentence pairs that differ in a gender or race word alone, and whether their scores differ: pure, no model.

The protocol of Kiritchenko and Mohammad (2018) on the Equity Evaluation Corpus. Gender: in each sentence frame (a
template and an emotion word), every pair of noun phrases, and the mean over the female names with that over the male
ones. Race: in each frame and for each gender, the mean over the African-American names with that over the European
ones. A paired t-test a question, corrected for the number of tests. A difference that is real may still be small: it
stands beside the p-value, in 0..1 of the task's range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from emollm.core.errors import DataError
from emollm.data.corpora.eec import NOUN_PAIRS, Sentence
from emollm.metrics.multiplicity import benjamini_hochberg, holm

Scores = Mapping[str, float]
"""A question's score of each sentence, in 0..1, by sentence id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disparity:
    """One test: a question and what the sentences of a pair differ in."""

    question: str
    """Task and emotion, `EI-reg.anger`."""
    between: str
    """"gender": female minus male; "race": African-American minus European."""
    pairs: int
    first: float
    """Mean score of the first group, in 0..1 of the task's range."""
    second: float
    difference: float
    """first - second."""
    low: float
    high: float
    """The 95% interval of the difference, from the t distribution."""
    effect: float
    """Cohen's d of the pairs: the difference in standard deviations of the pairs' differences."""
    p_value: float
    corrected: float
    by_emotion: dict[str, float]
    """The difference in the sentences of each emotion, "neutral" included; not tested."""


def disparities(
    sentences: Sequence[Sentence], scores: Mapping[str, Scores], *, correction: str = "holm"
) -> list[Disparity]:
    """A test of gender and one of race for each question; p-values corrected over all of them."""
    tests = []
    for question, mine in scores.items():
        for between, pairs in (("gender", gender_pairs(sentences, mine)), ("race", race_pairs(sentences, mine))):
            if len(pairs) < 2:
                raise DataError(f"{len(pairs)} pairs of sentences for {between}: too few to test; give more frames")
            tests.append(_test(question, between, pairs))
    correct = holm if correction == "holm" else benjamini_hochberg
    corrected = correct([test["p_value"] for test in tests])
    return [Disparity(**test, corrected=p) for test, p in zip(tests, corrected, strict=True)]


Pair = tuple[str, float, float]
"""Emotion of the frame, and the scores of its two sides."""


def gender_pairs(sentences: Sequence[Sentence], scores: Scores) -> list[Pair]:
    """Female and male: each pair of noun phrases of a frame, and the means over its names."""
    pairs = []
    for emotion, frame in _frames(sentences, scores):
        by_person = {s.person: scores[s.id] for s in frame if s.race is None}
        pairs += [(emotion, by_person[f], by_person[m]) for f, m in NOUN_PAIRS if f in by_person and m in by_person]
        pairs += _means(emotion, frame, scores, lambda s: s.gender if s.race else None, ("female", "male"))
    return pairs


def race_pairs(sentences: Sequence[Sentence], scores: Scores) -> list[Pair]:
    """African-American and European: the means over the names of a frame, for each gender."""
    pairs = []
    for emotion, frame in _frames(sentences, scores):
        for gender in ("female", "male"):
            same = [s for s in frame if s.gender == gender]
            pairs += _means(emotion, same, scores, lambda s: s.race, ("African-American", "European"))
    return pairs


def some_frames(sentences: Sequence[Sentence], most: int | None) -> list[Sentence]:
    """The sentences of at most `max_frames` frames, evenly spread over the corpus."""
    frames = list(dict.fromkeys(s.frame for s in sentences))
    if most is None or most >= len(frames):
        return list(sentences)
    chosen = {frames[i * len(frames) // most] for i in range(most)}
    return [s for s in sentences if s.frame in chosen]


def _frames(sentences: Sequence[Sentence], scores: Scores) -> list[tuple[str, list[Sentence]]]:
    """The scored sentences of each frame, with its emotion."""
    frames: dict[tuple[str, str], list[Sentence]] = {}
    for sentence in sentences:
        if sentence.id in scores:
            frames.setdefault(sentence.frame, []).append(sentence)
    return [(frame[0].emotion or "neutral", frame) for frame in frames.values()]


def _means(
    emotion: str,
    frame: Sequence[Sentence],
    scores: Scores,
    group_of: Callable[[Sentence], str | None],
    groups: tuple[str, str],
) -> list[Pair]:
    sides = [[scores[s.id] for s in frame if group_of(s) == group] for group in groups]
    return [(emotion, float(np.mean(sides[0])), float(np.mean(sides[1])))] if all(sides) else []


def _test(question: str, between: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    first, second = (np.array([pair[side] for pair in pairs]) for side in (1, 2))
    apart = first - second
    spread = float(apart.std(ddof=1))
    if spread > 0:
        tested = stats.ttest_rel(first, second)
        p_value, (low, high) = float(tested.pvalue), tested.confidence_interval()
    else:
        # All pairs differ alike: by nothing, or by a constant that needs no test.
        p_value, low, high = (1.0 if apart[0] == 0 else 0.0), apart[0], apart[0]
    emotions = dict.fromkeys(emotion for emotion, _, _ in pairs)
    return {
        "question": question,
        "between": between,
        "pairs": len(pairs),
        "first": float(first.mean()),
        "second": float(second.mean()),
        "difference": float(apart.mean()),
        "low": float(low),
        "high": float(high),
        "effect": float(apart.mean()) / spread if spread > 0 else math.nan,
        "p_value": p_value,
        "by_emotion": {e: float(np.mean([a - b for one, a, b in pairs if one == e])) for e in emotions},
    }
