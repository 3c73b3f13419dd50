"""Scores to answers: distributions that hang together, against numbers worked out by hand or drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from emollm.core.heads_card import Head
from emollm.core.tasks import TASKS, OrdinalClass
from emollm.scoring.heads import readout
from emollm.scoring.heads.derive import DERIVATIONS, binned, derived_task, grouped
from emollm.scoring.heads.readout import Gated, Numbers


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.1), (0.02, 0.2), (1.3, 0.3), (-0.5, 0.1)])
def test_a_number_has_a_normal_distribution_censored_at_the_ends(mean: float, std: float) -> None:
    drawn = np.clip(np.random.default_rng(0).normal(mean, std, 1_000_000), 0, 1)
    [answer] = readout.number_answers(TASKS["V-reg"], Numbers(np.array([mean]), np.array([std]))).answers()
    assert answer.value == pytest.approx(drawn.mean(), abs=2e-3)
    assert answer.std == pytest.approx(drawn.std(), abs=2e-3)
    assert answer.confidence == pytest.approx(np.mean(np.abs(drawn - answer.unit) <= 0.1), abs=3e-3)
    assert answer.probabilities["1"] == pytest.approx(np.mean(drawn >= 1), abs=2e-3)
    assert answer.probabilities["0.0"] == pytest.approx(np.mean(drawn < 0.1), abs=2e-3)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert len(answer.probabilities) == 11
    assert 0 <= answer.value <= 1 and 0 <= answer.mode <= 1  # type: ignore[operator]


def test_a_number_is_given_in_the_range_of_its_task() -> None:
    [answer] = readout.number_answers(TASKS["VADER-Tweets"], Numbers(np.array([0.75]), np.array([0.05]))).answers()
    assert answer.value == pytest.approx(2.0, abs=1e-6)  # -4..4
    assert answer.unit == pytest.approx(0.75) and answer.std == pytest.approx(0.4)


def test_classes_are_cut_out_of_a_logistic() -> None:
    head = Head(task="EI-oc", emotion="joy", origin="trained", outputs=(0,), slope=(2.0,), offset=(-1.0, 1.0, 3.0))
    probabilities = readout.class_probabilities(head, np.array([[0.5]]))
    below = [1 / (1 + np.exp(-(cut - 1.0))) for cut in (-1.0, 1.0, 3.0)]
    expected = [below[0], below[1] - below[0], below[2] - below[1], 1 - below[2]]
    assert probabilities[0] == pytest.approx(expected)
    [likeliest] = readout.class_answers(TASKS["EI-oc"], probabilities, "likeliest").answers()
    assert (likeliest.value, likeliest.confidence) == (1, pytest.approx(expected[1]))
    # Expected rank .119*0 + .381*1 + .381*2 + .119*3 = 1.5: of two classes as near, the lower.
    [nearest] = readout.class_answers(TASKS["EI-oc"], np.array([[0.5, 0.0, 0.0, 0.5]]), "expected").answers()
    assert (nearest.value, nearest.mode, nearest.confidence) == (1, 0, 0.0)


def test_the_expected_class_is_that_of_values_not_of_ranks() -> None:
    classes = tuple(OrdinalClass(value=value, phrase="") for value in (1, 2, 5))
    task = TASKS["EI-oc"].model_copy(update={"classes": classes})
    # Expected values 3.8 and 1.75, nearest to 5 and 2; the expected ranks, 1.4 and .45, would be 2 and 1.
    each = np.array([[0.3, 0.0, 0.7], [0.7, 0.15, 0.15]])
    assert [a.value for a in readout.class_answers(task, each, "expected").answers()] == [5, 2]


def test_a_set_holds_the_labels_at_or_above_their_thresholds() -> None:
    task = TASKS["E-c"]
    each = np.full((2, 11), 0.1)
    each[0, [0, 4]] = 0.4, 0.9
    some, none = readout.set_answers(task, each, each >= 0.4).answers()
    assert some.value == ("anger", "joy") and some.mode == ("joy",)
    assert some.confidence == pytest.approx(0.4 * 0.9 * 0.9**9)
    assert some.probabilities["joy"] == 0.9
    assert none.value == () and none.confidence == pytest.approx(0.9**11)


def test_every_derivation_fits_its_tasks() -> None:
    for name, derivation in DERIVATIONS.items():
        task, source = TASKS[name], TASKS[derivation.source]
        wanted = {str(c.value) for c in task.classes} or set(task.labels)
        have = {str(c.value) for c in source.classes} or set(source.labels)
        if derivation.groups:
            assert set(derivation.groups) == wanted
            assert {one for group in derivation.groups.values() for one in group} <= have


def test_derived_classes_and_labels_are_worked_out_from_their_source() -> None:
    tdt, go = DERIVATIONS["TDT"], DERIVATIONS["GoEmotions"]
    classes = grouped(TASKS["TDT"], tdt, TASKS["V-oc"], np.array([[0.1, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1]]))
    assert classes[0] == pytest.approx([0.3, 0.3, 0.4])
    each = np.zeros((1, 11))
    each[0, 4], each[0, 5] = 0.5, 0.5  # joy and love
    [labels] = grouped(TASKS["GoEmotions"], go, TASKS["E-c"], each)
    by_name = dict(zip(TASKS["GoEmotions"].labels, labels, strict=True))
    assert by_name["joy"] == 0.75 and by_name["neutral"] == 0.25 and by_name["anger"] == 0
    # Five equal bins: a valence of .5 that is all but sure is the middle class.
    [bins] = binned(TASKS["SST5"], Numbers(np.array([0.5]), np.array([0.02])))
    assert bins[2] == pytest.approx(1, abs=1e-5)


def test_a_gated_number_is_the_mixture_of_none_and_the_number() -> None:
    inner = Numbers(np.array([0.6, 0.6, 0.6]), np.array([0.15, 0.15, 0.15]))
    found = Gated(inner, np.array([0.0, 0.3, 1.0]))
    draws = np.clip(np.random.default_rng(0).normal(0.6, 0.15, 200_000), 0, 1)
    draws[: int(0.7 * len(draws))] = 0
    unit, std = found.moments()
    assert unit[1] == pytest.approx(draws.mean(), abs=2e-3) and std[1] == pytest.approx(draws.std(), abs=2e-3)
    absent, unsure, present = readout.number_answers(TASKS["Intensity"], found).answers()
    assert absent.value == absent.std == absent.mode == unsure.mode == 0 and absent.confidence == 1
    assert unsure.probabilities["0.0"] == pytest.approx(0.7, abs=1e-3)
    assert sum(unsure.probabilities.values()) == pytest.approx(1)
    [plain] = readout.number_answers(TASKS["Intensity"], Numbers(np.array([0.6]), np.array([0.15]))).answers()
    assert present.value == pytest.approx(plain.value) and present.probabilities == pytest.approx(plain.probabilities)


def test_a_derivation_is_made_where_all_its_sources_are() -> None:
    labels = Head(task="E-c", origin="trained")
    intensities = [Head(task="EI-reg", emotion=e, origin="trained") for e in TASKS["EI-reg"].emotions]
    assert [head.emotion for head in derived_task("Intensity", [labels, *intensities])] == list(
        TASKS["EI-reg"].emotions
    )
    assert derived_task("Intensity", [labels, *intensities[1:]]) == derived_task("Intensity", intensities) == []


def test_a_lift_gives_rare_labels_sooner_and_leaves_probabilities() -> None:
    each = np.array([[0.6, 0.3, 0.1]])
    plain = Head(task="E-c", origin="trained", decision="jaccard")
    assert readout.given_labels(plain, each).tolist() == [[True, False, False]]
    lifted = plain.model_copy(update={"lift": (0.0, 2.0, 0.0)})
    assert readout.given_labels(lifted, each).tolist() == [[True, True, False]]


def test_the_answered_set_has_the_largest_expected_jaccard_of_all_sets() -> None:
    each = np.random.default_rng(0).random((30, 5)) ** 2
    each[0] = 0.01  # nearly surely none
    sets = np.array(list(itertools.product([False, True], repeat=5)))
    held = np.where(sets[None], each[:, None], 1 - each[:, None]).prod(axis=2)  # [texts, sets]
    both, either = (sets[:, None] & sets[None]).sum(-1), (sets[:, None] | sets[None]).sum(-1)
    index = np.where(either > 0, both / np.maximum(either, 1), 1.0)  # [given, held]
    expected = held @ index.T
    given = readout.best_jaccard(each)
    assert not given[0].any()
    for row, mine, all_sets in zip(given, expected, [sets] * 30, strict=True):
        chosen = int(np.flatnonzero((all_sets == row).all(axis=1))[0])
        assert mine[chosen] == pytest.approx(mine.max())
