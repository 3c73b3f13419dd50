"""Agreement of two annotators of the same posts, with a measure per kind of task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emollm.core.tasks import Kind, Task, Value
from emollm.data.raters import distance
from emollm.metrics import metrics

MEASURES = {
    Kind.REGRESSION: "pearson",
    Kind.ORDINAL: "quadratic kappa",
    Kind.SINGLE_LABEL: "equal",
    Kind.LABEL_SET: "jaccard",
}


def agreement(task: Task, first: Sequence[Value], second: Sequence[Value]) -> float:
    """Pearson of numbers, quadratic kappa of classes, the share of equal labels, the mean Jaccard index of label sets;
    NaN where it is undefined.
    """
    match task.kind:
        case Kind.REGRESSION:
            return metrics.pearson(first, second)  # type: ignore[arg-type]
        case Kind.ORDINAL:
            return float(metrics.kappa_of(first, second)(np.ones((1, len(first))))[0])  # type: ignore[arg-type]
        case _:
            return 1 - float(np.mean([distance(task, a, b) for a, b in zip(first, second, strict=True)]))
