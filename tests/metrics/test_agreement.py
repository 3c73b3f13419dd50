"""Agreement, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.data.raters import aggregate, alpha, ceiling, decode, distance, encode, label_shares
from emollm.metrics.agreement import agreement

LABELS = Task(
    name="L", kind=Kind.SINGLE_LABEL, title="l", source="s", metric="accuracy", labels=("a", "b", "c"), question="L: ",
    templates=("which {labels}",),
)  # fmt: skip


def test_alpha_of_labels_by_hand() -> None:
    # Four posts by two: aa, aa, bb, ab. Of 8 values 5 are a and 3 b: 30 of the 56 ordered pairs differ by chance.
    # One post of four differs: 2 of its ordered pairs, over 8 values. Alpha = 1 - (2/8) / (30/56) = 8/15.
    rows: list[list[Value | None]] = [["a", "a"], ["a", "a"], ["b", "b"], ["a", "b"]]
    assert alpha(LABELS, rows) == pytest.approx(8 / 15)
    # A post that one person rated says nothing.
    assert alpha(LABELS, [*rows, ["c", None]]) == pytest.approx(8 / 15)


def test_alpha_of_numbers_by_hand() -> None:
    # Values 0, 0, 1, 1, 0, 1: observed (0 + 0 + 2) / 6. Of 30 ordered pairs 18 differ by 1: expected 18/30.
    assert alpha(TASKS["V-reg"], [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) == pytest.approx(1 - (2 / 6) / (18 / 30))
    assert alpha(TASKS["V-reg"], [[0.2, 0.2], [0.9, 0.9]]) == 1.0


def test_alpha_of_classes_squares_the_ranks_between() -> None:
    # Two each of 0, 1 and 2: ranks 1, 3, 5. Post 0-2: (5 - 1)^2 = 16, twice over 6 values. Expected: each class pair
    # has 2 x 2 x 2 ordered pairs: 8 x (4 + 4 + 16) / 30.
    rows: list[list[Value | None]] = [[0, 2], [1, 1], [0, 2]]
    observed, expected = (2 * 16 + 0 + 2 * 16) / 6, 8 * (4 + 4 + 16) / 30
    assert alpha(TASKS["SST5"], rows) == pytest.approx(1 - observed / expected)


def test_alpha_is_undefined_without_variety() -> None:
    assert math.isnan(alpha(LABELS, [["a", "a"], ["a", "a"]])) and math.isnan(alpha(LABELS, [["a", "b"]]))


def test_alpha_of_sets_uses_their_jaccard_index() -> None:
    rows: list[list[Value | None]] = [[("joy",), ("joy", "love")], [("anger",), ("anger",)]]
    # Distances: joy ~ joy+love 1/2, each of these ~ anger 1. Observed 2 x 1/2 / 4. Expected: 2 x 1/2 + 2 x 2 x (1 + 1)
    # over the 12 ordered pairs.
    assert alpha(TASKS["E-c"], rows) == pytest.approx(1 - (1 / 4) / (9 / 12))


def test_pairs() -> None:
    assert agreement(TASKS["V-reg"], [0.1, 0.2, 0.4], [0.2, 0.3, 0.5]) == pytest.approx(1.0)
    assert agreement(TASKS["SST5"], [0, 2, 4], [0, 2, 4]) == pytest.approx(1.0)
    assert agreement(TASKS["E-c"], [("joy",), ()], [("joy", "love"), ()]) == 0.75
    assert agreement(LABELS, ["a", "b"], ["a", "c"]) == 0.5
    assert distance(TASKS["EmoBank-V"], 1.0, 3.0) == 0.5 and distance(TASKS["V-oc"], -3, 0) == 0.5
    assert distance(TASKS["E-c"], (), ()) == 0.0 and distance(LABELS, "a", "b") == 1.0


def test_one_value_of_several_raters() -> None:
    assert aggregate(TASKS["V-reg"], [0.2, 0.4, 0.9]) == pytest.approx(0.5)
    assert aggregate(TASKS["SST5"], [0, 4, 3]) == 2
    assert aggregate(LABELS, ["b", "c", "c"]) == "c" and aggregate(LABELS, ["c", "b"]) == "b"
    rated: list[Value] = [("joy",), ("joy", "love"), ("love",), ()]
    assert aggregate(TASKS["E-c"], rated) == ("joy", "love")
    assert label_shares(TASKS["E-c"], rated)["joy"] == 0.5 and label_shares(LABELS, ["b", "c", "c"])["c"] == 2 / 3
    assert decode(encode(rated)) == tuple(rated) and decode(encode([2, 0.5, "a"])) == (2, 0.5, "a")


def test_one_rater_against_the_rest() -> None:
    # Whoever is drawn, the others say the same, but for the last post, where the other says the opposite.
    assert ceiling(LABELS, [["a", "a"], ["b", "b"], ["c"], ["a", "b"]]) == pytest.approx(2 / 3)
    assert ceiling(TASKS["V-reg"], [[0.1, 0.1, 0.1], [0.6, 0.6]]) == pytest.approx(1.0)
    assert math.isnan(ceiling(TASKS["V-reg"], [[0.1], [0.6]]))
