"""Scores of the heads to answers with distributions, always in range.

A number has a normal distribution around its score, censored at both ends of the range: probability beyond an end
counts as the end. Value, std, tenths and confidence are those of this distribution. Ordinals follow the
proportional-odds model (McCullagh 1980), with thresholds on a logistic distribution. Labels of a set are independent.

Shapes: N posts, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, softmax

from emollm.core.heads_card import Head
from emollm.core.tasks import Task
from emollm.scoring.arrays import AnswerArrays, Floats

_NEAR = 0.1
"""The confidence of a number is the probability of a number within this distance, as in the other engines."""


class Numbers(NamedTuple):
    """Numbers in 0..1 before censoring: normal, with these means and standard deviations."""

    mean_N: Floats
    std_N: Floats

    def below(self, x: float | Floats) -> Floats:
        """Probability of less than x, where -inf < x <= 1."""
        below: Floats = ndtr((x - self.mean_N) / self.std_N)
        return below

    def bins(self, edges: Sequence[float]) -> Floats:
        """[N, bins] probabilities of the bins between these inner edges."""
        cumulative = np.stack([self.below(edge) for edge in edges], axis=1)
        return np.diff(cumulative, axis=1, prepend=0.0, append=1.0)

    def moments(self) -> tuple[Floats, Floats]:
        """Expected value and standard deviation of the normal distribution censored at 0 and 1."""
        a, b = -self.mean_N / self.std_N, (1 - self.mean_N) / self.std_N
        inside, above = ndtr(b) - ndtr(a), ndtr(-b)
        phi_a, phi_b = np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi), np.exp(-(b**2) / 2) / np.sqrt(2 * np.pi)
        first = self.mean_N * inside + self.std_N * (phi_a - phi_b) + above
        second = (
            (self.mean_N**2 + self.std_N**2) * inside
            + 2 * self.mean_N * self.std_N * (phi_a - phi_b)
            + self.std_N**2 * (a * phi_a - b * phi_b)
            + above
        )
        return np.clip(first, 0.0, 1.0), np.sqrt(np.maximum(second - first**2, 0.0))


class Gated(NamedTuple):
    """A number that is 0 unless something is present, with this probability: a mixture of 0 and `inner`."""

    inner: Numbers
    present_N: Floats

    @property
    def mean_N(self) -> Floats:  # noqa: N802
        """The likelier of the two."""
        return np.where(self.present_N > 0.5, self.inner.mean_N, 0.0)

    def below(self, x: float | Floats) -> Floats:
        """Probability of less than x, where 0 < x <= 1."""
        return 1 - self.present_N + self.present_N * self.inner.below(x)

    def bins(self, edges: Sequence[float]) -> Floats:
        bins_NB = self.present_N[:, None] * self.inner.bins(edges)
        bins_NB[:, 0] += 1 - self.present_N
        return bins_NB

    def moments(self) -> tuple[Floats, Floats]:
        """Expected value and standard deviation."""
        unit_N, std_N = self.inner.moments()
        first = self.present_N * unit_N
        return first, np.sqrt(np.maximum(self.present_N * (std_N**2 + unit_N**2) - first**2, 0.0))


def numbers(head: Head, scores_N1: Floats) -> Numbers:
    mean_N = scores_N1[:, 0] * head.slope[0] + head.offset[0]
    at, std = np.array(head.spread).T
    return Numbers(mean_N, np.interp(mean_N, at, std))


def class_probabilities(head: Head, scores_N1: Floats) -> Floats:
    """[N, K] for an ordinal: P(class <= k) = logistic(threshold_k - slope * score)."""
    below = expit(np.array(head.offset)[None, :] - head.slope[0] * scores_N1)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


def label_probabilities(head: Head, scores_NK: Floats, *, exclusive: bool) -> Floats:
    """[N, K]: for a single label they sum to 1, for a set each is independent."""
    logits = scores_NK * np.array(head.slope) + np.array(head.offset)
    found: Floats = softmax(logits, axis=1) if exclusive else expit(logits)
    return found


def number_answers(task: Task, found: Numbers | Gated) -> AnswerArrays:
    assert task.low is not None and task.high is not None
    unit_N, std_N = found.moments()
    mode_N, width = np.clip(found.mean_N, 0.0, 1.0), task.high - task.low
    return AnswerArrays(
        task=task,
        value=task.low + unit_N * width,
        mode=task.low + mode_N * width,
        unit_N=unit_N,
        std_N=std_N * width,
        confidence_N=_mass_near(found, unit_N),
        probabilities_NK=found.bins([i / 10 for i in range(1, 11)]),
    )


def _mass_near(found: Numbers | Gated, unit_N: Floats) -> Floats:
    # Probability beyond an end counts as the end.
    low = np.where(unit_N - _NEAR <= 0, 0.0, found.below(unit_N - _NEAR))
    high = np.where(unit_N + _NEAR >= 1, 1.0, found.below(unit_N + _NEAR))
    return high - low


def given_classes(task: Task, probabilities_NK: Floats, decision: str) -> NDArray[np.intp]:
    """[N]: the index of the answer, the most likely class or label, or the class nearest to the expected value."""
    apart_NK = -probabilities_NK
    if decision == "expected":
        value_K = class_values(task)
        apart_NK = np.abs((probabilities_NK @ value_K)[:, None] - value_K)
    nearest_N: NDArray[np.intp] = apart_NK.argmin(axis=1)
    return nearest_N


def class_values(task: Task) -> Floats:
    """[K] values of an ordinal; they need not be evenly spaced."""
    return np.array(task.answer_values, dtype=float)


def class_answers(task: Task, probabilities_NK: Floats, decision: str) -> AnswerArrays:
    """Ordinals and single labels."""
    chosen_N = given_classes(task, probabilities_NK, decision)
    return AnswerArrays(
        task=task,
        value=chosen_N,
        mode=probabilities_NK.argmax(axis=1),
        confidence_N=np.take_along_axis(probabilities_NK, chosen_N[:, None], axis=1)[:, 0],
        probabilities_NK=probabilities_NK,
    )


def given_labels(head: Head, probabilities_NK: Floats) -> NDArray[np.bool_]:
    """[N, K]: the labels answered by the head's decision rule."""
    if head.decision == "jaccard":
        return best_jaccard(lifted(probabilities_NK, head.lift) if head.lift else probabilities_NK)
    return probabilities_NK >= np.array(head.thresholds)


def lifted(probabilities_NK: Floats, lift_K: Sequence[float]) -> Floats:
    """[N, K] with `lift_K` added to each label's log-odds."""
    moved: Floats = expit(logit(probabilities_NK) + np.array(lift_K))
    return moved


def best_jaccard(probabilities_NK: Floats) -> NDArray[np.bool_]:
    """[N, K]: for each text the set S with the largest expected Jaccard index |S and Y| / |S or Y|.

    Since labels are independent, S is one of the sets of the k most likely labels, and its expectation is exact: the
    sum of their probabilities times E[1 / (k + B)], where B counts true labels outside S (a Poisson-binomial variable).
    """
    count, labels = probabilities_NK.shape
    order_NK = np.argsort(-probabilities_NK, axis=1, kind="stable")
    sorted_NK = np.take_along_axis(probabilities_NK, order_NK, axis=1)
    # From the empty tail forward: the distribution of the number of true labels after the first k.
    behind_NB = np.zeros((count, labels + 1))
    behind_NB[:, 0] = 1.0
    expected_NK = np.zeros((count, labels + 1))
    numbers_B = np.arange(labels + 1)
    for k in range(labels, 0, -1):
        expected_NK[:, k] = sorted_NK[:, :k].sum(axis=1) * (behind_NB / (k + numbers_B)).sum(axis=1)
        p_N1 = sorted_NK[:, k - 1 : k]
        shifted_NB = np.concatenate([np.zeros((count, 1)), behind_NB[:, :-1]], axis=1)
        behind_NB = behind_NB * (1 - p_N1) + shifted_NB * p_N1
    expected_NK[:, 0] = behind_NB[:, 0]  # an empty answer to an empty set counts 1
    size_N1 = expected_NK.argmax(axis=1)[:, None]
    given_NK = np.zeros(probabilities_NK.shape, dtype=bool)
    np.put_along_axis(given_NK, order_NK, numbers_B[None, :-1] < size_N1, axis=1)
    return given_NK


def set_answers(task: Task, probabilities_NK: Floats, given_NK: NDArray[np.bool_]) -> AnswerArrays:
    """Sets of the answered labels; the confidence is the probability of exactly this set."""
    return AnswerArrays(
        task=task,
        value=given_NK,
        mode=probabilities_NK > 0.5,
        confidence_N=np.where(given_NK, probabilities_NK, 1 - probabilities_NK).prod(axis=1),
        probabilities_NK=probabilities_NK,
    )
