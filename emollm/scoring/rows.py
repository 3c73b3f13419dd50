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
from emollm.core.prompts import Question, as_context, questions_for, worded
from emollm.core.tasks import TASKS, Task, as_labels, as_number, select_tasks
from emollm.scoring.arrays import ArrayScorer
from emollm.scoring.columns import PLAIN, OutputColumns, asked_columns, columns_of
from emollm.scoring.explain import explain
from emollm.scoring.extras import NO_EXTRAS, Extras, columns_of_answers
from emollm.scoring.long import long_columns
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
        asked = [
            Question(tasks[r["task"]], r["text"], r["emotion"], r["context"] or "", r["target"] or "") for r in rows
        ]
        answers = self.scorer.score([worded(q, r.get("template") or 0) for q, r in zip(asked, rows, strict=True)])
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
    """Rows of `id`, `text` and any other columns to the same rows with affect columns; `OutputColumns` names them.

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
        self._output = OutputColumns(engine=self._engine, windows=windows, notes=any(beside), extras=extras)
        self._task_names, self._beside, self._max_windows = tasks, beside, max_windows

    def __call__(self, table: pa.Table) -> pa.Table:
        tasks = select_tasks(self._task_names, self.scorer.card.tasks)
        prepare(self.scorer, tasks)
        questions = questions_for("", tasks)
        given = table.drop_columns(["problem"]) if "problem" in table.column_names else table
        columns = self._columns(table, questions)
        if self._output.extras != NO_EXTRAS:
            columns = self._with_extras(table, questions, columns)
        columns.append(pa.array([not looks_english(text or "") for text in table["text"].to_pylist()], pa.bool_()))
        self._report(table.num_rows)
        return pa.table([*given.columns, *columns], schema=pa.schema([*given.schema, *self._output.fields(tasks)]))

    def _with_extras(self, table: pa.Table, questions: list[Question], columns: list[pa.Array]) -> list[pa.Array]:
        """The columns with what is asked for beside the answers behind them."""
        *firsts, last = accumulate(self._output.widths(questions), initial=0)
        words: list[Sequence[Sequence[WordEffect] | None]] = [()] * len(questions)
        if self._output.extras.explain:
            words = self._words(table, questions, columns[last + 1 + self._output.notes])
        behind = []
        for i, (first, question) in enumerate(zip(firsts, questions, strict=True)):
            value, more, confidence = columns[first : first + 3]
            columns[first], extra = self._output.extras.columns(question, value, more, confidence, words[i])
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

    def _columns(self, table: pa.Table, questions: list[Question]) -> list[pa.Array]:
        """The answer columns of a table's rows."""
        texts = [text or "" for text in table["text"].to_pylist()]
        problems = table["problem"].to_pylist() if "problem" in table.column_names else [None] * len(texts)
        return answer_columns(
            self.scorer,
            texts,
            problems,
            questions,
            output=self._output,
            beside=self._besides(table),
            max_windows=self._max_windows,
        )

    def _besides(self, table: pa.Table) -> list[tuple[str, str]] | None:
        """Context and target of each row; None where the table has neither."""
        if not self._output.notes:
            return None
        return besides(table, self._beside)


def besides(table: pa.Table, beside: Beside) -> list[tuple[str, str]]:
    """Context and target of each row."""
    context, target = ([as_context(v) for v in _values(table, name)] for name in beside)
    return list(zip(context, target, strict=True))


def _values(table: pa.Table, name: str | None) -> list[Any]:
    return table[name].to_pylist() if name else [None] * table.num_rows


def asked_of(table: pa.Table, beside: Beside, tasks: Sequence[Task]) -> list[Question]:
    """All questions that are asked about the rows with a text, to count them before they are asked."""
    questions = questions_for("", tuple(tasks))
    return [
        Question(q.task, text, q.emotion, *pieces)
        for text, pieces in zip(table["text"].to_pylist(), besides(table, beside), strict=True)
        if text and text.strip()
        for q in questions
    ]


def answer_columns(
    scorer: Scorer,
    texts: Sequence[str],
    problems: Sequence[str | None],
    questions: Sequence[Question],
    *,
    output: OutputColumns = PLAIN,
    beside: Sequence[tuple[str, str]] | None = None,
    max_windows: int | None = None,
) -> list[pa.Array]:
    """The columns of `output`, without those of its extras; a text with a problem gets nulls and that as its error.

    `beside` are the context and target of each text, given if `output` has notes.
    """
    good = [n for n, problem in enumerate(problems) if not problem]
    mine = [texts[n] for n in good]
    if output.windows:
        count, limit = functools.partial(count_tokens, scorer), scorer.card.max_post_tokens
        cut = cut_windows(mine, count, limit=limit, most=max_windows)
        columns = long_columns(
            mine, cut, questions, lambda pieces: _scored(scorer, pieces, questions, output),
            widths=output.widths(questions),
        )  # fmt: skip
    else:
        besides = None if beside is None else [beside[n] for n in good]
        columns = _scored(scorer, mine, questions, output, besides)
    if len(good) == len(texts):
        return columns
    # The other rows are null, with their problem as the error of each question and of the row.
    places: list[int | None] = [None] * len(texts)
    for i, n in enumerate(good):
        places[n] = i
    columns = [column.take(pa.array(places, pa.int64())) for column in columns]
    why = pa.array(problems, pa.string())
    *firsts, last = accumulate(output.widths(questions), initial=0)
    last += output.notes
    for i in (*(first + 3 for first in firsts), last + 1):
        columns[i] = pc.coalesce(columns[i], why)
    columns[last] = pc.fill_null(columns[last], False)
    return columns


def _scored(
    scorer: Scorer,
    texts: Sequence[str],
    questions: Sequence[Question],
    output: OutputColumns,
    beside: Sequence[tuple[str, str]] | None = None,
) -> list[pa.Array]:
    """The columns of `output`, read at once. Arrays where the engine has them; tasks given at call time, and posts with
    something beside them, are answered one by one.
    """
    one_by_one = [n for n, q in enumerate(questions) if q.task.way is not None or output.notes]
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
            columns[n] += [pa.array([a.distribution for a in answers], pa.string())] if output.distribution else []
            columns[n] += asked_columns(answers) if questions[n].task.way is not None else []
        truncated_N = truncated_N | np.array([any(a.truncated for a in row) for row in rows], bool)
        errors = [e or next((a.error for a in row if a.error), None) for e, row in zip(errors, rows, strict=True)]
        said = [list(dict.fromkeys(note for a in row for note in a.notes)) for row in rows]
    return [
        *(column for n in range(len(questions)) for column in columns[n]),
        *([pa.array(said, pa.list_(pa.string()))] if output.notes else []),
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
