"""Plain callables from table to table that use a scorer and run in actors. Without Ray."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.answers import Answer, WordEffect
from emollm.core.english import looks_english
from emollm.core.prompts import Question, as_context, column_name, questions_for
from emollm.core.tasks import TASKS, Kind, Task, as_labels, as_number, select_tasks
from emollm.scoring.arrays import AnswerArrays, ArrayScorer, Floats
from emollm.scoring.explain import explain
from emollm.scoring.extras import (
    NO_EXTRAS,
    VALUE_TYPES,
    Extras,
    columns_of_answers,
    list_column,
    probabilities_type,
)
from emollm.scoring.long import long_columns, long_fields
from emollm.scoring.open import open_scorer
from emollm.scoring.safely import Rows, run_safely
from emollm.scoring.scorer import Scorer, count_tokens, prepare
from emollm.scoring.windows import cut_windows


class Beside(NamedTuple):
    """The columns with what is read beside a post."""

    context: str | None = None
    target: str | None = None


NOTHING_BESIDE = Beside()


class _ScorerHolder:
    """Opens its scorer at the first batch: an error there reaches the driver unchanged, while an actor that dies
    in its constructor only reports that it died. `opener` replaces `open_scorer` and gets its arguments: benchmarks
    and tests use it to open a cheap scorer.
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
        self._engine = engine
        self._open = functools.partial(opener, model, engine=engine, **options)
        self._reports = reports

    @functools.cached_property
    def scorer(self) -> Scorer:
        return self._open()

    def _report(self, count: int) -> None:
        if self._reports is not None:
            self._reports.put(count)


class ScoreQuestions(_ScorerHolder):
    """Rows of `index`, `task`, `emotion` and a post's pieces, with `template` if any, to `index` and the answer.

    Tasks of all kinds share a table, so a value is in `number` or in `labels`, depending on its kind. A task
    that the model's card does not have is asked in the project's own wording, without training.
    """

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        tasks = {**TASKS, **{task.name: task for task in self.scorer.card.tasks}}
        asked = [(_worded(tasks[row["task"]], row.get("template") or 0), row) for row in rows]
        answers = self.scorer.score(
            [Question(task, r["text"], r["emotion"], r["context"] or "", r["target"] or "") for task, r in asked]
        )
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


@functools.cache
def _worded(task: Task, template: int) -> Task:
    """The task with another of its wordings first, which is the one in use."""
    first, *rest = task.templates[template:] + task.templates[:template]
    return task if template == 0 else task.model_copy(update={"templates": (first, *rest)})


class AnnotatePosts(_ScorerHolder):
    """Rows of `id`, `text` and any other columns to the same rows with affect columns; `output_schema` names them.

    The column `problem` says why a row cannot be scored, or is null; such a row gets the problem as its error. If the
    scorer raises, only the rows that make it raise have an error. `tasks` are names of the card's tasks, or tasks
    given at call time; `beside` names the columns with the context and the target of a post, None where there is none.
    """

    def __init__(
        self,
        *,
        tasks: tuple[str | Task, ...],
        beside: Beside = NOTHING_BESIDE,
        windows: bool = False,
        max_windows: int | None = None,
        extras: Extras = NO_EXTRAS,
        **options: Any,
    ) -> None:
        """`windows`: read texts beyond the model's limit as a whole, in at most `max_windows` windows."""
        super().__init__(**options)
        self._extras = extras
        self._task_names, self._beside = tasks, beside
        self._windows, self._max_windows = windows, max_windows

    def __call__(self, table: pa.Table) -> pa.Table:
        tasks = select_tasks(self._task_names, self.scorer.card.tasks)
        prepare(self.scorer, tasks)
        marked = self._engine == "server" and not self._windows
        given = table.drop_columns(["problem"]) if "problem" in table.column_names else table
        columns = self._columns(table, questions_for("", tasks), marked=marked)
        if self._extras != NO_EXTRAS:
            columns = self._with_extras(table, questions_for("", tasks), columns, marked=marked)
        columns.append(pa.array([not looks_english(text or "") for text in table["text"].to_pylist()], pa.bool_()))
        self._report(table.num_rows)
        notes = any(self._beside)
        fields = answer_fields(tasks, marked=marked, windows=self._windows, extras=self._extras, notes=notes)
        return pa.table([*given.columns, *columns], schema=pa.schema([*given.schema, *fields]))

    def _with_extras(
        self, table: pa.Table, questions: list[Question], columns: list[pa.Array], *, marked: bool
    ) -> list[pa.Array]:
        """The columns with what is asked for beside the answers behind them."""
        *firsts, last = accumulate(_widths(questions, marked=marked), initial=0)
        words: list[Sequence[Sequence[WordEffect] | None]] = [()] * len(questions)
        if self._extras.explain:
            words = self._words(table, questions, columns[last + 1 + any(self._beside)])
        behind = []
        for i, (first, question) in enumerate(zip(firsts, questions, strict=True)):
            value, more, confidence = columns[first : first + 3]
            columns[first], extra = self._extras.columns(question, value, more, confidence, words[i])
            behind += extra
        return [*columns, *behind]

    def _words(
        self, table: pa.Table, questions: list[Question], errors: pa.Array
    ) -> list[Sequence[Sequence[WordEffect] | None]]:
        """For each question, the words of every post; None for a post with an error."""
        texts, beside = table["text"].to_pylist(), self._besides(table)
        good = [n for n, error in enumerate(errors.to_pylist()) if error is None]
        explained: list[list[tuple[WordEffect, ...]] | None] = [None] * len(texts)
        found = explain(
            self.scorer, [texts[n] or "" for n in good], questions, beside=[beside[n] for n in good] if beside else None
        )
        for n, each in zip(good, found, strict=True):
            explained[n] = each
        return [[None if each is None else each[i] for each in explained] for i in range(len(questions))]

    def _columns(self, table: pa.Table, questions: list[Question], *, marked: bool) -> list[pa.Array]:
        """The answer columns of a table's rows."""
        texts = [text or "" for text in table["text"].to_pylist()]
        problems = table["problem"].to_pylist() if "problem" in table.column_names else [None] * len(texts)
        return answer_columns(
            self.scorer,
            texts,
            problems,
            questions,
            beside=self._besides(table),
            marked=marked,
            windows=self._windows,
            max_windows=self._max_windows,
        )

    def _besides(self, table: pa.Table) -> list[tuple[str, str]] | None:
        """Context and target of each row; None where the table has neither."""
        if not any(self._beside):
            return None
        context, target = ([as_context(v) for v in _values(table, name)] for name in self._beside)
        return list(zip(context, target, strict=True))


def _values(table: pa.Table, name: str | None) -> list[Any]:
    return table[name].to_pylist() if name else [None] * table.num_rows


def answer_columns(
    scorer: Scorer,
    texts: Sequence[str],
    problems: Sequence[str | None],
    questions: Sequence[Question],
    *,
    beside: Sequence[tuple[str, str]] | None = None,
    marked: bool = False,
    windows: bool = False,
    max_windows: int | None = None,
) -> list[pa.Array]:
    """The columns of `answer_fields`; a text with a problem gets nulls, and the problem as its error.

    `beside` are the context and target of each text; None: there are none, and no `notes`.
    """
    good = [n for n, problem in enumerate(problems) if not problem]
    mine = [texts[n] for n in good]
    if windows:
        count, limit = functools.partial(count_tokens, scorer), scorer.card.max_post_tokens
        cut = cut_windows(mine, count, limit=limit, most=max_windows)
        widths = _widths(questions, marked=False)
        columns = long_columns(
            mine, cut, questions, lambda pieces: _scored(scorer, pieces, questions, marked=False), widths=widths
        )
    else:
        besides = None if beside is None else [beside[n] for n in good]
        columns = _scored(scorer, mine, questions, beside=besides, marked=marked)
    if len(good) == len(texts):
        return columns
    # The other rows are null, with their problem as the error of each question and of the row.
    places: list[int | None] = [None] * len(texts)
    for i, n in enumerate(good):
        places[n] = i
    columns = [column.take(pa.array(places, pa.int64())) for column in columns]
    why = pa.array(problems, pa.string())
    *firsts, last = accumulate(_widths(questions, marked=marked), initial=0)
    last += beside is not None
    for i in (*(first + 3 for first in firsts), last + 1):
        columns[i] = pc.coalesce(columns[i], why)
    columns[last] = pc.fill_null(columns[last], False)
    return columns


def _widths(questions: Sequence[Question], *, marked: bool) -> list[int]:
    """The columns of each question."""
    return [4 + marked + 2 * (question.task.way is not None) for question in questions]


def _scored(
    scorer: Scorer,
    texts: Sequence[str],
    questions: Sequence[Question],
    *,
    beside: Sequence[tuple[str, str]] | None = None,
    marked: bool,
) -> list[pa.Array]:
    """The columns of `answer_fields`. Arrays where the engine has them; tasks given at call time, and posts with
    something beside them, are answered one by one.
    """
    one_by_one = [n for n, q in enumerate(questions) if q.task.way is not None or beside is not None]
    columns: dict[int, list[pa.Array]] = {}
    truncated_N: NDArray[np.bool_] = np.zeros(len(texts), bool)
    errors: list[str | None] = [None] * len(texts)
    said: list[list[str]] = [[] for _ in texts]
    if isinstance(scorer, ArrayScorer) and len(one_by_one) < len(questions):
        others = [n for n in range(len(questions)) if n not in one_by_one]
        found = scorer.score_posts(texts, [questions[n] for n in others])
        for n, arrays in zip(others, found.each, strict=True):
            if isinstance(arrays, str):
                columns[n] = columns_of_answers(questions[n].task, [Answer(value=None, error=arrays)] * len(texts))
            else:
                columns[n] = columns_of(arrays, found.errors)
        all_fail = next((each for each in found.each if isinstance(each, str)), None)
        truncated_N, errors = found.truncated_N, [e or all_fail for e in found.errors]
    else:
        one_by_one = list(range(len(questions)))
    if one_by_one:
        rows = _score_posts(scorer, texts, [questions[n] for n in one_by_one], beside)
        for i, n in enumerate(one_by_one):
            answers = [row[i] for row in rows]
            columns[n] = columns_of_answers(questions[n].task, answers)
            columns[n] += [pa.array([a.distribution for a in answers], pa.string())] if marked else []
            columns[n] += _asked_arrays(answers) if questions[n].task.way is not None else []
        truncated_N = truncated_N | np.array([any(a.truncated for a in row) for row in rows], bool)
        errors = [e or next((a.error for a in row if a.error), None) for e, row in zip(errors, rows, strict=True)]
        said = [list(dict.fromkeys(note for a in row for note in a.notes)) for row in rows]
    return [
        *(column for n in range(len(questions)) for column in columns[n]),
        *([] if beside is None else [pa.array(said, pa.list_(pa.string()))]),
        pa.array(truncated_N, pa.bool_()),
        pa.array(errors, pa.string()),
    ]


def _score_posts(
    scorer: Scorer,
    texts: Sequence[str],
    columns: Sequence[Question],
    beside: Sequence[tuple[str, str]] | None,
) -> list[list[Answer]]:
    """The answers of each text. Engines handle their own errors; if one raises nevertheless, the batch is halved."""

    def score(rows: Rows) -> list[list[Answer]]:
        answers = scorer.score([Question(q.task, texts[n], q.emotion, *pieces[n]) for n in rows for q in columns])
        return [answers[i : i + len(columns)] for i in range(0, len(answers), len(columns))]

    pieces = [("", "")] * len(texts) if beside is None else beside
    found: dict[int, list[Answer]] = {}
    for rows, answers, why in run_safely(range(len(texts)), score):
        if answers is None:
            answers = [[Answer(value=None, error=why)] * len(columns)]
        found.update(zip(rows, answers, strict=True))
    return [found[n] for n in range(len(texts))]


def _asked_arrays(answers: Sequence[Answer]) -> list[pa.Array]:
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


def output_schema(
    tasks: tuple[Task, ...],
    carried: Sequence[pa.Field] = (),
    *,
    marked: bool = False,
    windows: bool = False,
    extras: Extras = NO_EXTRAS,
    notes: bool = False,
) -> pa.Schema:
    """The columns of an annotated corpus: `id`, `text`, the carried ones, four per question, `truncated`, `error`.

    A question's column is its task and emotion in snake case, `ei_reg_joy`. Beside it stand, of a regression, `_std`
    (standard deviation, in the task's range), of others `_probabilities` (a struct with a field a class or label; of
    a label set each label's own), and of all `_confidence` (the probability of the answer, 0..1) and `_error` (null
    where there is a value), and if they are `marked`, as those of the server engine are, `_distribution`: `exact`,
    `truncated` or `unknown`. The generate engine knows neither `_std` nor `_probabilities`: they are null. A task given
    at call time has `_way`, how it was answered, and `_valid_mass`, the probability that the model left free gives a
    valid answer, null where nothing is written. `notes`, where posts have a context or a target, says how these were
    read. `truncated` says that the post was cut at the model's limit, `error` is the first error of its questions. With
    `windows` the columns of `long.long_fields` follow, then what `extras` asks for beside the answers. Last is
    `not_english`: the post seems to be in another language, which the bundled models did not learn.
    """
    own = [pa.field("id", pa.string(), nullable=False), pa.field("text", pa.string())]
    added = answer_fields(tasks, marked=marked, windows=windows, extras=extras, notes=notes)
    return pa.schema([*own, *carried, *added])


def answer_fields(
    tasks: tuple[Task, ...],
    *,
    marked: bool = False,
    windows: bool = False,
    extras: Extras = NO_EXTRAS,
    notes: bool = False,
) -> list[pa.Field]:
    """The fields that annotation adds to a row."""
    fields = []
    for question in questions_for("", tasks):
        name = column_name(question)
        more = (
            pa.field(f"{name}_std", pa.float32())
            if question.task.kind is Kind.REGRESSION
            else pa.field(f"{name}_probabilities", probabilities_type(question.task))
        )
        fields += [
            pa.field(name, VALUE_TYPES[question.task.kind], metadata=_about(question.task)),
            more,
            pa.field(f"{name}_confidence", pa.float32()),
            pa.field(f"{name}_error", pa.string()),
            *([pa.field(f"{name}_distribution", pa.string())] if marked else []),
        ]
        if question.task.way is not None:
            fields += [pa.field(f"{name}_way", pa.string()), pa.field(f"{name}_valid_mass", pa.float32())]
    fields += [pa.field("notes", pa.list_(pa.string()))] if notes else []
    fields += [pa.field("truncated", pa.bool_(), nullable=False), pa.field("error", pa.string())]
    questions = questions_for("", tasks)
    fields += long_fields(questions) if windows else []
    fields += [field for question in questions for field in extras.fields(question)]
    return [*fields, pa.field("not_english", pa.bool_(), nullable=False)]


def _about(task: Task) -> dict[str, str]:
    about = {"task": task.name, "kind": str(task.kind)}
    if task.kind is Kind.REGRESSION:
        about["range"] = f"{task.low:g}..{task.high:g}"
    return about
