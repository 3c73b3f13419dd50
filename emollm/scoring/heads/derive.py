"""Derives answers to tasks without labels from those of other tasks. They are marked `derived` in the card.

A derivation is a fixed map from one scale to another, without fitted parameters: valence is the same quantity in all
tasks. The corpora were rated by other people on other texts, so a derived answer ranks posts, but its level may be
off. If the data has labels of the task, a head trained on them is used instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emollm.core.heads_card import Derivation, Head
from emollm.core.tasks import TASKS, Kind, Task
from emollm.scoring.arrays import Floats
from emollm.scoring.heads.readout import Numbers

_VALENCE = Derivation(source="V-reg", rule="scale")

DERIVATIONS: Mapping[str, Derivation] = {
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
    """A derived head for each task of `DERIVATIONS` that has none and whose source has one."""
    have = {head.task for head in trained}
    return [
        Head(
            task=name,
            origin="derived",
            derivation=derivation,
            thresholds=(0.5,) * len(TASKS[name].labels),
            decision="jaccard" if TASKS[name].metric == "jaccard" else "likeliest",
        )
        for name, derivation in DERIVATIONS.items()
        if name not in have and derivation.source in have
    ]


def with_derived(tasks: Sequence[Task], heads: Sequence[Head]) -> tuple[Task, ...]:
    """The tasks, and behind them those of the derived heads."""
    names = {task.name for task in tasks}
    return (*tasks, *(TASKS[head.task] for head in heads if head.origin == "derived" and head.task not in names))


def scaled(derivation: Derivation, found: Numbers) -> Numbers:
    return Numbers(found.mean_N * derivation.slope + derivation.offset, found.std_N * abs(derivation.slope))


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
