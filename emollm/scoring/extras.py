"""Optional additions to an answer: abstention, the second answer, conformal sets, influential words.

All interfaces share the same columns: a corpus has them directly, the API and the endpoint convert them to values.

Shapes: N posts, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from emollm.core.answers import Answer, WordEffect
from emollm.core.calibration import Calibration
from emollm.core.card import AffectCard
from emollm.core.conformal import Floats, in_set, interval
from emollm.core.errors import ConfigError
from emollm.core.indicators import indicators
from emollm.core.prompts import Question, column_name
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.scoring.options import ExtrasConfig

VALUE_TYPES = {
    Kind.REGRESSION: pa.float64(),
    Kind.ORDINAL: pa.int32(),
    Kind.SINGLE_LABEL: pa.string(),
    Kind.LABEL_SET: pa.list_(pa.string()),
}
WORDS = pa.list_(
    pa.struct(
        [
            pa.field("about", pa.string()),
            pa.field("base", pa.float32()),
            pa.field("word", pa.string()),
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("effect", pa.float32()),
        ]
    )
)
_NEVER = 2.0
"""A threshold above every confidence."""


class _Set(NamedTuple):
    score: str
    quantile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """The options, looked up in a model's card; it travels to the actors."""

    below: Mapping[str, float] | None = None
    """The abstention threshold of each task."""
    second: bool = False
    sets: Mapping[QuestionKey, _Set] | None = None
    explain: bool = False
    never: tuple[str, ...] = ()
    """Tasks for which no threshold reaches the requested precision, so that no answer is given."""

    @classmethod
    def of(
        cls, card: AffectCard | None, engine: str, tasks: Sequence[Task], *,
        abstain: str | float | None = None, second: bool = False, sets: float | None = None, explain: bool = False,
    ) -> Self:  # fmt: skip
        """Raises ConfigError, naming the tasks, if the card was not fitted for an option."""
        try:
            asked = ExtrasConfig(abstain=None if abstain is None else str(abstain), sets=sets)
        except ValidationError as error:
            first = error.errors()[0]
            reason = str(first["msg"]).removeprefix("Value error, ")
            raise ConfigError(f"{first['loc'][0]} {first['input']!r}: {reason}") from None
        if explain and engine == "server":
            raise ConfigError(
                "--explain asks once per word; it is for engines that run here, and a server may cost money"
            )
        fitted = card.calibration.get(engine) if card else None
        below, never = _thresholds(asked.abstain, fitted, tasks) if asked.abstain else (None, ())
        found = _sets(asked.sets, fitted, tasks) if asked.sets else None
        return cls(below=below, second=second, sets=found, explain=explain, never=never)

    def refuse_windows(self) -> None:
        """Raise ConfigError if any option is set: they apply only to posts that the model reads in one pass."""
        if self != NO_EXTRAS:
            raise ConfigError(
                "abstain, second, sets and explain are for posts that are read at once; leave long at cut, or ask by "
                "sentences"
            )

    def never_line(self, abstain: str | float | None) -> str:
        """The message for the user about `never`."""
        return (
            f"--abstain {abstain}: no threshold reaches this precision for {', '.join(self.never)}, so these have "
            "no answers; `_best` has the guesses"
        )

    def fields(self, question: Question) -> list[pa.Field]:
        """The columns of a question, in the order of `columns`."""
        name, kind = column_name(question), question.task.kind
        value = VALUE_TYPES[kind]
        found = []
        if self.below is not None:
            found += [pa.field(f"{name}_abstained", pa.bool_()), pa.field(f"{name}_best", value)]
        if self.second and kind is not Kind.REGRESSION:
            found.append(pa.field(f"{name}_second", value))
        if self.sets is not None and kind is Kind.REGRESSION:
            found += [pa.field(f"{name}_low", pa.float64()), pa.field(f"{name}_high", pa.float64())]
        elif self.sets is not None:
            of = pa.int32() if kind is Kind.ORDINAL else pa.string()
            found.append(pa.field(f"{name}_set", pa.list_(of)))
        if self.explain:
            found.append(pa.field(f"{name}_words", WORDS))
        return found

    def columns(
        self, question: Question, value: pa.Array, more: pa.Array, confidence: pa.Array,
        words: Sequence[Sequence[WordEffect] | None] = (),
    ) -> tuple[pa.Array, list[pa.Array]]:  # fmt: skip
        """The value, null if abstained, and the columns of `fields`.

        `more` is the standard deviation of a regression, else the probabilities.
        """
        task = question.task
        found = []
        given = value
        if self.below is not None:
            sure = pc.fill_null(pc.greater_equal(confidence, self.below[task.name] - 1e-6), False)
            abstained = pc.and_(pc.is_valid(value), pc.invert(sure))
            found += [abstained, value]
            given = pc.if_else(abstained, pa.scalar(None, value.type), value)
        if self.second and task.kind is not Kind.REGRESSION:
            found.append(_second(task, value, more))
        if self.sets is not None:
            found += _set_columns(task, self.sets[question.key], value, more)
        if self.explain:
            found.append(pa.array([None if w is None else [one._asdict() for one in w] for w in words], WORDS))
        return given, found

    def beside(self, question: Question, answers: Sequence[Answer]) -> tuple[list[Any], dict[str, list[Any]]]:
        """The same for objects: values, None if abstained, and the additions by column name."""
        value, more, confidence, _ = columns_of_answers(question.task, answers)
        words = [None if answer.error else answer.words for answer in answers]
        given, found = self.columns(question, value, more, confidence, words)
        # The arrays have lists, an answer has a tuple.
        values = [a.value if kept else None for a, kept in zip(answers, pc.is_valid(given).to_pylist(), strict=True)]
        names = [field.name for field in self.fields(question)]
        return values, {
            name: [tuple(v) if isinstance(v, list) and not name.endswith("_words") else v for v in column.to_pylist()]
            for name, column in zip(names, found, strict=True)
        }


NO_EXTRAS = Extras()


def _thresholds(
    abstain: str, fitted: Calibration | None, tasks: Sequence[Task]
) -> tuple[dict[str, float], tuple[str, ...]]:
    share = float(abstain.removeprefix("precision="))
    if not abstain.startswith("precision="):
        return {task.name: share for task in tasks}, ()
    kept = fitted.abstain if fitted else {}
    if unknown := [task.name for task in tasks if task.name not in kept]:
        raise ConfigError(
            f"--abstain {abstain}: the model's card has no thresholds for {', '.join(unknown)}; fit them with emollm "
            "calibrate, choose other --tasks, or give a confidence such as --abstain 0.6"
        )
    below = {}
    for task in tasks:
        enough = [one.confidence for one in kept[task.name] if one.right_share >= share - 1e-9]
        below[task.name] = min(enough) if enough else _NEVER
    return below, tuple(name for name, confidence in below.items() if confidence == _NEVER)


def _sets(level: float, fitted: Calibration | None, tasks: Sequence[Task]) -> dict[QuestionKey, _Set]:
    found, unknown = {}, []
    for key in (key for task in tasks for key in task.keys):
        one = fitted.set_of(key) if fitted else None
        q = one.quantiles.get(f"{level:g}") if one else None
        if one is None or q is None:
            unknown.append(str(key))
        else:
            found[key] = _Set(one.score, q)
    if unknown:
        raise ConfigError(
            f"--sets {level:g}: the model's card has no sets for {', '.join(unknown)}; fit them with emollm calibrate, "
            "or choose other --tasks"
        )
    return found


def _set_columns(task: Task, fitted: _Set, value: pa.Array, more: pa.Array) -> list[pa.Array]:
    if task.kind is Kind.REGRESSION:
        assert task.low is not None and task.high is not None
        unit_N = _numbers(more) if fitted.score == "std" else np.ones(len(value))
        ends = interval(_numbers(value), unit_N, fitted.quantile, low=task.low, high=task.high)
        return [pa.array(end, from_pandas=True) for end in ends]
    probabilities_NK, missing_N = _probabilities(more)
    held_NK = in_set(probabilities_NK, fitted.quantile, exclusive=task.kind is not Kind.LABEL_SET)
    return [list_column(_space(task), held_NK, missing_N)]


def _second(task: Task, value: pa.Array, more: pa.Array) -> pa.Array:
    """The second most likely answer. Labels are independent, so for a set it is the cheapest change of one label."""
    p_NK, missing_N = _probabilities(more)
    rows = np.arange(len(p_NK))
    if task.kind is Kind.LABEL_SET:
        held_NK = indicators(value, task.labels)
        odds_NK = np.clip(p_NK, 1e-9, 1 - 1e-9) / np.clip(1 - p_NK, 1e-9, 1)
        flipped_N = np.where(held_NK, 1 / odds_NK, odds_NK).argmax(axis=1)
        held_NK[rows, flipped_N] ^= True
        return list_column(_space(task), held_NK, missing_N)
    chosen_N = pc.fill_null(pc.index_in(value, _space(task)), 0).to_numpy(zero_copy_only=False)
    p_NK[rows, chosen_N] = -1.0
    return _space(task).take(pa.array(p_NK.argmax(axis=1), mask=missing_N))


def columns_of_answers(task: Task, answers: Sequence[Answer]) -> list[pa.Array]:
    """The same four columns from objects."""
    values = [list(a.value) if isinstance(a.value, tuple) else a.value for a in answers]
    return [
        pa.array(values, VALUE_TYPES[task.kind]),
        pa.array([a.std for a in answers], pa.float32())
        if task.kind is Kind.REGRESSION
        else pa.array([a.probabilities or None for a in answers], probabilities_type(task)),
        pa.array([a.confidence for a in answers], pa.float32()),
        pa.array([a.error for a in answers], pa.string()),
    ]


def probabilities_type(task: Task) -> pa.DataType:
    return pa.struct([pa.field(name, pa.float32()) for name in task.answer_names])


def list_column(space: pa.Array, held_NK: NDArray[np.bool_], missing_N: NDArray[np.bool_] | None) -> pa.Array:
    """For each row the list of its elements of `space`; null if missing."""
    if missing_N is not None:
        held_NK = held_NK & ~missing_N[:, None]
    ends = np.concatenate([[0], held_NK.sum(axis=1).cumsum()]).astype(np.int32)
    nulls = None if missing_N is None else pa.array(missing_N)
    return pa.ListArray.from_arrays(pa.array(ends), space.take(pa.array(np.nonzero(held_NK)[1])), mask=nulls)


def _space(task: Task) -> pa.Array:
    return pa.array(task.answer_values, pa.int32() if task.kind is Kind.ORDINAL else pa.string())


def _numbers(column: pa.Array) -> Floats:
    """[N], NaN for null."""
    return np.array(column.to_numpy(zero_copy_only=False), dtype=float)


def _probabilities(column: pa.StructArray) -> tuple[Floats, NDArray[np.bool_]]:
    """[N, K], 0 in rows without probabilities, and which rows these are."""
    p_NK = np.stack([_numbers(part) for part in column.flatten()], axis=1)
    missing_N: NDArray[np.bool_] = np.asarray(np.isnan(p_NK).any(axis=1))
    p_NK[missing_N] = 0.0
    return p_NK, missing_N
