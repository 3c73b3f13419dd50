"""Probabilities of the labels of a task given at call time to its answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from emollm.core.answers import Answer, from_unit
from emollm.core.tasks import Kind, Task
from emollm.scoring.arrays import Floats

WITHOUT_CONTENT = ("N/A", "[MASK]", "...")
"""Texts whose answer is what a model says of any text (Zhao et al. 2021, contextual calibration)."""


def answer_of(
    task: Task, probabilities_K: Floats, *, valid_mass: float | None = None, truncated: bool = False,
    notes: tuple[str, ...] = (),
) -> Answer:  # fmt: skip
    """K are the classes or labels; of a set each label's own probability; of a regression its low and high end."""
    about: dict[str, Any] = {"valid_mass": valid_mass, "truncated": truncated, "notes": notes}
    if task.kind is Kind.REGRESSION:
        # Two sentences say where the ends are, and nothing how sure a place between them is.
        unit = float(probabilities_K[1])
        return Answer(value=from_unit(task, unit), unit=unit, **about)
    named = dict(zip(task.answer_names, probabilities_K.tolist(), strict=True))
    if task.kind is Kind.LABEL_SET:
        held = probabilities_K >= 0.5
        sure = float(np.where(held, probabilities_K, 1 - probabilities_K).prod())
        value = tuple(label for label, is_held in zip(task.labels, held, strict=True) if is_held)
        return Answer(value=value, confidence=sure, probabilities=named, **about)
    best = int(probabilities_K.argmax())
    return Answer(value=task.answer_values[best], confidence=float(probabilities_K[best]), probabilities=named, **about)
