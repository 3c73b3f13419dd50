"""The best constant answer: what any system has to beat.

Taken from the golds of the very rows it is measured on, so no constant from elsewhere does better. A correlation
with it is undefined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from emollm.core.tasks import Kind, QuestionKey, Value
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion


def predict_constant(questions: Sequence[GoldQuestion]) -> list[Prediction]:
    """The mean of a regression, the most frequent class, label or label set: of each task and emotion."""
    golds: dict[QuestionKey, list[Value]] = {}
    for question in questions:
        golds.setdefault(question.key, []).append(question.gold)
    kinds = {question.task.name: question.task.kind for question in questions}
    constants = {
        key: float(np.mean(values)) if kinds[key.task] is Kind.REGRESSION else Counter(values).most_common(1)[0][0]  # type: ignore[arg-type]
        for key, values in golds.items()
    }
    return [Prediction(question=q, value=constants[q.key]) for q in questions]
