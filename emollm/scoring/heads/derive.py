"""Derives answers to tasks without labels from those of other tasks. They are marked `derived` in the card.

A derivation is a fixed map from one scale to another, without fitted parameters: valence is the same quantity in all
tasks. The corpora were rated by other people on other texts, so a derived answer ranks posts, but its level may be
off. If the data has labels of the task, a head trained on them is used instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emollm.core.heads_card import Derivation, Head
from emollm.core.tasks import ANY_POST, TASKS, Kind, Task
from emollm.scoring.arrays import Floats
from emollm.scoring.heads.readout import Gated, Numbers

_VALENCE = Derivation(source="V-reg", rule="scale")

DERIVATIONS: Mapping[str, Derivation] = {
    ANY_POST: Derivation(source="EI-reg", rule="gate", gate="E-c"),
    "SST": _VALENCE,
    "EmoBank-V": _VALENCE,
    "VADER-Amazon": _VALENCE,
    "VADER-Movie": _VALENCE,
    "VADER-NYT": _VALENCE,
    "VADER-Tweets": _VALENCE,
    # The classes of SST-5 are five equal bins of the SST score (docs/data.md).
    "SST5": Derivation(source="V-reg", rule="bins"),
    "TDT": Derivation(
        source="V-oc", rule="classes", groups={"-1": ("-3", "-2", "-1"), "0": ("0",), "1": ("1", "2", "3")}
    ),
    # Ekman's six as GoEmotions groups its labels (Demszky et al. 2020), over the labels that E-c has of each group.
    "GoEmotions": Derivation(
        source="E-c",
        rule="labels",
        groups={
            "anger": ("anger",),
            "disgust": ("disgust",),
            "fear": ("fear",),
            "joy": ("joy", "love", "optimism"),
            "sadness": ("sadness", "pessimism"),
            "surprise": ("surprise",),
            "neutral": (),
        },
    ),
}


def derived_heads(trained: Sequence[Head]) -> list[Head]:
    """The derived heads of each task of `DERIVATIONS` that has none and whose sources have one for each question."""
    have = {head.task for head in trained}
    return [head for name in DERIVATIONS if name not in have for head in derived_task(name, trained)]


def derived_task(name: str, trained: Sequence[Head]) -> list[Head]:
    """The heads of one task by its derivation; none where a source lacks a question of it."""
    derivation, task, have = DERIVATIONS[name], TASKS[name], {head.key for head in trained}
    heads = [
        Head(
            task=name,
            emotion=key.emotion,
            origin="derived",
            derivation=derivation,
            thresholds=(0.5,) * len(task.labels),
            decision="jaccard" if task.metric == "jaccard" else "likeliest",
        )
        for key in task.keys
    ]
    return heads if all(have.issuperset(head.sources) for head in heads) else []


def with_derived(tasks: Sequence[Task], heads: Sequence[Head]) -> tuple[Task, ...]:
    """The tasks, and behind them those of the derived heads."""
    names = {task.name for task in tasks}
    more = dict.fromkeys(head.task for head in heads if head.origin == "derived" and head.task not in names)
    return (*tasks, *(TASKS[name] for name in more))


def scaled(derivation: Derivation, found: Numbers) -> Numbers:
    return Numbers(found.mean_N * derivation.slope + derivation.offset, found.std_N * abs(derivation.slope))


def gated(found: Numbers, gate: Task, emotion: str | None, probabilities_NK: Floats) -> Gated:
    """The number where the emotion is present, by the probability of its label, and 0 where it is not."""
    assert emotion is not None
    return Gated(found, probabilities_NK[:, gate.labels.index(emotion)])


def binned(task: Task, found: Numbers) -> Floats:
    """[N, K] probabilities of K classes that are equal bins of 0..1."""
    count = len(task.classes)
    return found.bins([k / count for k in range(1, count)])


def grouped(task: Task, derivation: Derivation, source: Task, probabilities_NK: Floats) -> Floats:
    """[N, K] for the classes (sums of probabilities) or labels (that any label of a group holds, as independent)."""
    columns = []
    for name in task.answer_names:
        group = [source.answer_names.index(one) for one in derivation.groups[name]]
        if task.kind is Kind.LABEL_SET:
            none_N = (1 - probabilities_NK[:, group or slice(None)]).prod(axis=1)
            columns.append(1 - none_N if group else none_N)
        else:
            columns.append(probabilities_NK[:, group].sum(axis=1))
    return np.stack(columns, axis=1)
