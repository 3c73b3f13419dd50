"""The columns of an annotated table: which ones there are, and arrays of answers as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emollm.core.answers import Answer
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.tasks import Kind, Task
from emollm.scoring.arrays import AnswerArrays, Floats
from emollm.scoring.extras import NO_EXTRAS, VALUE_TYPES, Extras, list_column, probabilities_type
from emollm.scoring.long import long_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumns:
    """Which columns an annotated table has beside the four of each question."""

    engine: str = "auto"
    windows: bool = False
    """Long texts are read in windows."""
    notes: bool = False
    """Posts have a context or a target."""
    extras: Extras = NO_EXTRAS

    @property
    def distribution(self) -> bool:
        """The server engine marks its distributions, of posts that it reads at once."""
        return self.engine == "server" and not self.windows

    def widths(self, questions: Sequence[Question]) -> list[int]:
        """The number of columns of each question, without those of `extras`."""
        return [4 + self.distribution + 2 * (question.task.way is not None) for question in questions]

    def schema(self, tasks: tuple[Task, ...], carried: Sequence[pa.Field] = ()) -> pa.Schema:
        """The columns of an annotated corpus: `id`, `text`, the carried ones, and `fields`."""
        own = [pa.field("id", pa.string(), nullable=False), pa.field("text", pa.string())]
        return pa.schema([*own, *carried, *self.fields(tasks)])

    def fields(self, tasks: tuple[Task, ...]) -> list[pa.Field]:
        """The fields that annotation adds to a row.

        A question's column is its task and emotion in snake case, `ei_reg_joy`. Beside it stand, of a regression,
        `_std` (standard deviation, in the task's range), of others `_probabilities` (a struct with a field per class or
        label; of a label set each label's own), and of all `_confidence` (the probability of the answer, 0..1) and
        `_error` (null where there is a value); with `distribution` also `_distribution`: `exact`, `truncated` or
        `unknown`. The generate engine knows neither `_std` nor `_probabilities`: they are null. A call-time task
        has `_way`, how it was answered, and `_valid_mass`, the probability that the model left free gives a valid
        answer, null where nothing is written. `notes` says how context and target were read. `truncated` says that the
        post was cut at the model's limit, `error` is the first error of its questions. With `windows` the columns of
        `long.long_fields` follow, then what `extras` asks for beside the answers. Last is `not_english`: the post seems
        to be in another language, which the bundled models did not learn.
        """
        questions = questions_for("", tasks)
        return [
            *(field for question in questions for field in self._of_question(question)),
            *([pa.field("notes", pa.list_(pa.string()))] if self.notes else []),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
            *(long_fields(questions) if self.windows else []),
            *(field for question in questions for field in self.extras.fields(question)),
            pa.field("not_english", pa.bool_(), nullable=False),
        ]

    def _of_question(self, question: Question) -> list[pa.Field]:
        name, task = column_name(question), question.task
        spread = (
            pa.field(f"{name}_std", pa.float32())
            if task.kind is Kind.REGRESSION
            else pa.field(f"{name}_probabilities", probabilities_type(task))
        )
        found = [
            pa.field(name, VALUE_TYPES[task.kind], metadata=_about(task)),
            spread,
            pa.field(f"{name}_confidence", pa.float32()),
            pa.field(f"{name}_error", pa.string()),
        ]
        found += [pa.field(f"{name}_distribution", pa.string())] if self.distribution else []
        if task.way is not None:
            found += [pa.field(f"{name}_way", pa.string()), pa.field(f"{name}_valid_mass", pa.float32())]
        return found


PLAIN = OutputColumns()
"""Nothing beside the answers."""


def _about(task: Task) -> dict[str, str]:
    about = {"task": task.name, "kind": str(task.kind)}
    if task.kind is Kind.REGRESSION:
        about["range"] = f"{task.low:g}..{task.high:g}"
    return about


def asked_columns(answers: Sequence[Answer]) -> list[pa.Array]:
    """How tasks given at call time were answered, and their valid mass."""
    masses = pa.array([a.valid_mass for a in answers], pa.float32())
    return [pa.array([a.way for a in answers], pa.string()), masses]


def columns_of(found: AnswerArrays, errors: Sequence[str | None]) -> list[pa.Array]:
    """The same four columns from arrays; `errors` are those of the posts."""
    task, count = found.task, len(errors)
    failed_N = np.array([error is not None for error in errors], bool) if any(errors) else None
    return [
        _value_column(found, failed_N),
        pa.array(found.std_N, pa.float32(), mask=failed_N)
        if task.kind is Kind.REGRESSION
        else _struct(probabilities_type(task), found.probabilities_NK, failed_N),
        pa.array(found.confidence_N.astype(np.float32), mask=failed_N),
        pa.nulls(count, pa.string()) if failed_N is None else pa.array(errors, pa.string()),
    ]


def _value_column(found: AnswerArrays, failed_N: NDArray[np.bool_] | None) -> pa.Array:
    task = found.task
    match task.kind:
        case Kind.REGRESSION:
            return pa.array(found.value, mask=failed_N)
        case Kind.ORDINAL:
            return pa.array(np.array([c.value for c in task.classes], np.int32)[found.value], mask=failed_N)
        case Kind.SINGLE_LABEL:
            return pa.array(task.labels, pa.string()).take(pa.array(found.value, pa.int32(), mask=failed_N))
        case Kind.LABEL_SET:
            return list_column(pa.array(task.labels, pa.string()), found.value, failed_N)


def _struct(kind: pa.DataType, values_NK: Floats, failed_N: NDArray[np.bool_] | None) -> pa.Array:
    columns_KN = np.ascontiguousarray(values_NK.T, dtype=np.float32)
    arrays = [pa.array(column, mask=failed_N) for column in columns_KN]
    nulls = None if failed_N is None else pa.array(failed_N)
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=nulls)
