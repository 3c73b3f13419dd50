"""Plain callables, table in and table out, that carry a scorer: what runs in actors. No Ray in here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from emollm.core.answers import SCORING_FAILED, Answer
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.tasks import TASKS, Kind, Task, as_labels, as_number, select_tasks
from emollm.scoring.open import open_scorer
from emollm.scoring.scorer import Scorer

_VALUE_TYPES = {
    Kind.REGRESSION: pa.float64(),
    Kind.ORDINAL: pa.int32(),
    Kind.SINGLE_LABEL: pa.string(),
    Kind.LABEL_SET: pa.list_(pa.string()),
}


class _ScorerHolder:
    """Opens its scorer at the first batch: an error there reaches the driver as itself, while an actor that dies
    in its constructor tells only that it died. `opener` stands in for `open_scorer`, with its arguments: benchmarks
    and tests of what is around a scorer put a cheap one there.
    """

    def __init__(
        self,
        *,
        model: str,
        engine: str,
        reports: Any = None,
        opener: Callable[..., Scorer] = open_scorer,
        **options: Any,
    ) -> None:
        self._open = functools.partial(opener, model, engine=engine, **options)
        self._reports = reports

    @functools.cached_property
    def scorer(self) -> Scorer:
        return self._open()

    def _report(self, count: int) -> None:
        if self._reports is not None:
            self._reports.put(count)


class ScoreQuestions(_ScorerHolder):
    """Rows of `index`, `task`, `emotion`, `text` to rows of `index` and the answer.

    Tasks of all kinds share a table, so a value stands in `number` or in `labels`, whichever fits its kind. A task
    that the model's card does not have is asked in the project's own wording: what it knows of it untaught.
    """

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        tasks = {**TASKS, **{task.name: task for task in self.scorer.card.tasks}}
        answers = self.scorer.score([Question(tasks[row["task"]], row["text"], row["emotion"]) for row in rows])
        self._report(len(rows))
        return pa.table(
            {
                "index": pa.array([row["index"] for row in rows], pa.int64()),
                "number": pa.array([as_number(answer.value) for answer in answers], pa.float64()),
                "labels": pa.array([as_labels(answer.value) for answer in answers], pa.list_(pa.string())),
                "confidence": pa.array([answer.confidence for answer in answers], pa.float64()),
                "std": pa.array([answer.std for answer in answers], pa.float64()),
                "probabilities": pa.array(
                    [list(answer.probabilities.items()) for answer in answers], pa.map_(pa.string(), pa.float64())
                ),
                "truncated": pa.array([answer.truncated for answer in answers], pa.bool_()),
                "error": pa.array([answer.error for answer in answers], pa.string()),
                "answer_text": pa.array([answer.text for answer in answers], pa.string()),
            }
        )


class AnnotatePosts(_ScorerHolder):
    """Rows of `id`, `text` and any other columns to the same rows with affect columns; `output_schema` names them.

    A column `problem` says why a row cannot be scored, null where it can: that row gets the problem as its error. A
    scorer that raises costs the rows that make it raise and no other.
    """

    def __init__(self, *, tasks: tuple[str, ...], **options: Any) -> None:
        super().__init__(**options)
        self._task_names = tasks

    def __call__(self, table: pa.Table) -> pa.Table:
        tasks = select_tasks(self._task_names, self.scorer.card.tasks)
        columns = questions_for("", tasks)
        rows = self._answer_rows(table, columns)
        given = table.drop_columns(["problem"]) if "problem" in table.column_names else table
        arrays: list[Any] = list(given.columns)
        for i, question in enumerate(columns):
            arrays += _answer_arrays(question.task, [row[i] for row in rows])
        arrays.append(pa.array([any(a.truncated for a in row) for row in rows], pa.bool_()))
        arrays.append(pa.array([next((a.error for a in row if a.error), None) for row in rows], pa.string()))
        self._report(len(rows))
        return pa.table(arrays, schema=pa.schema([*given.schema, *answer_fields(tasks)]))

    def _answer_rows(self, table: pa.Table, columns: list[Question]) -> list[list[Answer]]:
        """The answers of each row, one a question."""
        texts = [text or "" for text in table["text"].to_pylist()]
        problems = table["problem"].to_pylist() if "problem" in table.column_names else [None] * len(texts)
        good = [text for text, problem in zip(texts, problems, strict=True) if not problem]
        answers = iter(_score_posts(self.scorer, good, columns))
        return [
            [Answer(value=None, error=problem)] * len(columns) if problem else next(answers) for problem in problems
        ]


def _score_posts(scorer: Scorer, texts: Sequence[str], columns: Sequence[Question]) -> list[list[Answer]]:
    """The answers of each text. Engines mind their own errors; should one raise all the same, halves are tried."""
    if not texts:
        return []
    asked = [Question(q.task, text, q.emotion) for text in texts for q in columns]
    try:
        answers = scorer.score(asked)
    except Exception as error:
        if len(texts) == 1:
            return [[Answer(value=None, error=f"{SCORING_FAILED}: {_one_line(error)}")] * len(columns)]
        half = len(texts) // 2
        return [*_score_posts(scorer, texts[:half], columns), *_score_posts(scorer, texts[half:], columns)]
    return [answers[i : i + len(columns)] for i in range(0, len(answers), len(columns))]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _answer_arrays(task: Task, answers: Sequence[Answer]) -> list[pa.Array]:
    values = [list(a.value) if isinstance(a.value, tuple) else a.value for a in answers]
    return [
        pa.array(values, _VALUE_TYPES[task.kind]),
        pa.array([a.std for a in answers], pa.float32())
        if task.kind is Kind.REGRESSION
        else pa.array([a.probabilities or None for a in answers], _probabilities_type(task)),
        pa.array([a.confidence for a in answers], pa.float32()),
        pa.array([a.error for a in answers], pa.string()),
    ]


def output_schema(tasks: tuple[Task, ...], carried: Sequence[pa.Field] = ()) -> pa.Schema:
    """The columns of an annotated corpus: `id`, `text`, the carried ones, four a question, `truncated`, `error`.

    A question's column is its task and emotion in snake case, `ei_reg_joy`. Beside it stand, of a regression, `_std`
    (standard deviation, in the task's range), of others `_probabilities` (a struct with a field a class or label; of
    a label set each label's own), and of all `_confidence` (the probability of the answer, 0..1) and `_error` (null
    where there is a value). The generate engine knows neither `_std` nor `_probabilities`: they are null. `truncated`
    says that the post was cut at the model's limit, `error` is the first error of its questions.
    """
    own = [pa.field("id", pa.string(), nullable=False), pa.field("text", pa.string())]
    return pa.schema([*own, *carried, *answer_fields(tasks)])


def answer_fields(tasks: tuple[Task, ...]) -> list[pa.Field]:
    """What annotation adds to a row."""
    fields = []
    for question in questions_for("", tasks):
        name = column_name(question)
        more = (
            pa.field(f"{name}_std", pa.float32())
            if question.task.kind is Kind.REGRESSION
            else pa.field(f"{name}_probabilities", _probabilities_type(question.task))
        )
        fields += [
            pa.field(name, _VALUE_TYPES[question.task.kind], metadata=_about(question.task)),
            more,
            pa.field(f"{name}_confidence", pa.float32()),
            pa.field(f"{name}_error", pa.string()),
        ]
    return [*fields, pa.field("truncated", pa.bool_(), nullable=False), pa.field("error", pa.string())]


def _probabilities_type(task: Task) -> pa.DataType:
    return pa.struct([pa.field(name, pa.float32()) for name in task.answer_names])


def _about(task: Task) -> dict[str, str]:
    about = {"task": task.name, "kind": str(task.kind)}
    if task.kind is Kind.REGRESSION:
        about["range"] = f"{task.low:g}..{task.high:g}"
    return about
