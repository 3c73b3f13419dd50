"""Affect of texts in one call, from Python: what `emollm.annotate` is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from emollm.core.ask import asked_tasks
from emollm.core.bases import DEFAULT_MODEL, model_key
from emollm.core.english import looks_english
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.sentences import LongTexts
from emollm.core.tasks import Kind, Task, select_tasks
from emollm.data.files.columns import reading
from emollm.data.given import Given, by_sentence, given
from emollm.scoring.scorer import prepare

if TYPE_CHECKING:
    import pandas as pd

    from emollm.core.answers import Answer
    from emollm.scoring.extras import Extras
    from emollm.scoring.scorer import Scorer

_LOG = logging.getLogger("emollm")
_TOKENS_PER_POST = 32
"""Tokens of a batch of the engine for each post that is given to it at once: 32 posts on a CPU, thousands on a GPU."""


def annotate(
    texts: Any,
    tasks: str | Path | Task | Sequence[str | Path | Task | Mapping[str, Any]] = "profile",
    *,
    model: str | Path | Scorer | None = None,
    text_column: str = "text",
    context: Any = None,
    target: Any = None,
    details: bool = False,
    abstain: str | float | None = None,
    second: bool = False,
    sets: float | None = None,
    explain: bool = False,
    prefix: str = "",
    encoding: str | None = None,
    delimiter: str | None = None,
    column_names: Sequence[str] = (),
    long: LongTexts = "cut",
    max_windows: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Any:
    """The affect of each text: a DataFrame with one row per text, in order, and one column per question.

    `texts` is a string, a list of strings or of dicts, a pandas or polars frame or an Arrow table (its `text_column`;
    other columns and the index are kept, and the same type comes back), a Series or array, or a `Path` of a file or
    folder, which is read as by `emollm annotate`, with `encoding`, `delimiter` and `column_names`. `tasks` are
    names of tasks of the model; "profile" is the five of SemEval-2018, and intensities in any post if the
    model has them. Tasks that it need not know are made by `emollm.labels`, `levels` and `scale`, or stand in a `.toml`
    file (docs/ask.md). `model` is a model directory, a base by name, or an open scorer to use again; None:
    $EMOLLM_MODEL, else the bundled default model. `options` go to `emollm.scoring.open.open_scorer`;
    `server="http://HOST/v1"` asks a model behind an inference server, and `model` is then its name there.

    Columns: `text`, then `ei_reg_joy`, `v_reg`, `e_c`, ..., named as in an annotated corpus, in the tasks' own
    ranges. `details` adds to each its `_confidence`, `_error`, `_probabilities` and, of a regression, `_std`,
    `_unit` and `_mode`. A task given in the call has `_way`, how it was answered, and `_valid_mass`, the probability
    that the model left free gives a valid answer; null where nothing is written. `abstain` ("precision=0.8", or a
    confidence) leaves unsure answers empty and adds `_abstained` and `_best`, the guess; `second` adds `_second`, the
    next likely reading; `sets` (0.9) adds `_set`, or `_low` and `_high` of a number, which hold the truth for that
    share of posts like those the model was calibrated on; `explain` adds `_words`, a list of dicts: the words whose
    removal moves the answer most (docs/trust.md).

    `truncated` and `error` say whether the text was truncated and what went wrong; `not_english` flags a text that
    seems to be in another language, which the bundled models did not learn. `prefix` is put before the names of all
    these columns, for frames that have such columns already. A missing or empty text gets nulls and an error, never a
    guess.

    `context` is what comes before each text, earlier posts oldest first or the document around it, and `target` the
    name or aspect that is asked about: the name of a column, or a sequence with one value per text, or of a single
    text its own. The column `notes` then says how they were read.

    `long` says how to handle texts beyond the model's limit: "cut" truncates them; "windows" reads the
    whole text, in at most `max_windows` windows, and adds the columns of `emollm.scoring.long`; "sentences" gives
    one row per sentence, with its number and its position in the text. Raises ConfigError, ModelError or DataError.
    """
    _check_long(long, max_windows)
    had = given(texts, text_column, reading(encoding, delimiter, column_names))
    if long == "sentences":
        had = by_sentence(had, text_column)
    beside = had.beside("context", context), had.beside("target", target)
    scorer = _scorer(model, options)
    chosen = select_tasks(asked_tasks(tasks), scorer.card.tasks)
    prepare(scorer, chosen)
    questions = questions_for("", chosen)
    extras = _extras(scorer, chosen, abstain=abstain, second=second, sets=sets, explain=explain)
    with_notes, windows = context is not None or target is not None, long == "windows"
    if windows:
        _refuse_windows(with_notes, extras)
    names = _names(questions, extras, details=details, notes=with_notes, windows=windows)
    if clash := [name for name in names if prefix + name in had.names]:
        raise DataError(
            f"the column {prefix + clash[0]!r} exists already, as an answer's would; rename it, or give a prefix"
        )
    _check_cost(scorer, had, questions, beside)
    if windows:
        frame = _in_windows(scorer, had, questions, details, max_windows)
    else:
        answers = _score(scorer, had, questions, beside, progress=progress, explained=explain)
        frame = _frame(had, questions, answers, extras, details=details, notes=with_notes)
    return had.give_back(frame.add_prefix(prefix))


def _check_long(long: LongTexts, max_windows: int | None) -> None:
    if long not in get_args(LongTexts) or (max_windows is not None and long != "windows"):
        choices = ", ".join(get_args(LongTexts))
        raise ConfigError(
            f"long is {long!r} and max_windows {max_windows!r}; choose long from {choices}, and max_windows "
            "with windows alone"
        )


def _scorer(model: str | Path | Scorer | None, options: Mapping[str, Any]) -> Scorer:
    if model is not None and not isinstance(model, str | Path):
        return model
    hashable = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    name = _model(model)
    return _open(_Named(model_key(name), name), tuple(sorted(hashable.items())))


def _refuse_windows(with_notes: bool, extras: Extras | None) -> None:
    if with_notes:
        raise ConfigError("long='windows' reads a text in pieces, and context and target are of a whole; leave one")
    if extras is not None:
        extras.refuse_windows()


def _names(
    questions: Sequence[Question], extras: Extras | None, *, details: bool, notes: bool, windows: bool
) -> list[str]:
    """The columns that are added."""
    from emollm.scoring.long import long_fields

    names = [name for question in questions for name in _columns(question, [], extras, details=details)]
    names += [*(["notes"] if notes else []), "truncated", "error", "not_english"]
    return [*names, *(field.name for field in long_fields(questions))] if windows else names


def _check_cost(scorer: Scorer, had: Given, questions: Sequence[Question], beside: tuple[list[str], list[str]]) -> None:
    """Raise ConfigError if a server's answers would cost more than is allowed."""
    from emollm.scoring.calibrated import inner

    if check_cost := getattr(inner(scorer), "check_cost", None):
        check_cost(
            [
                Question(q.task, text, q.emotion, *pieces)
                for text, problem, *pieces in zip(had.texts, had.problems, *beside, strict=True)
                if problem is None
                for q in questions
            ]
        )


def _frame(
    had: Given, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], extras: Extras | None, *,
    details: bool, notes: bool,
) -> pd.DataFrame:  # fmt: skip
    import pandas as pd

    columns: dict[str, pd.Series[Any]] = {}
    for question, mine in zip(questions, answers, strict=True):
        columns.update(_columns(question, mine, extras, details=details))
    per_text = list(zip(*answers, strict=True))
    if notes:
        said = [list(dict.fromkeys(note for a in row for note in a.notes)) for row in per_text]
        columns["notes"] = pd.Series(said, dtype=object)
    columns["truncated"] = pd.Series([any(a.truncated for a in row) for row in per_text], dtype=bool)
    columns["error"] = pd.Series([next((a.error for a in row if a.error), None) for row in per_text], dtype=object)
    columns["not_english"] = pd.Series([not looks_english(text) for text in had.texts], dtype=bool)
    return pd.DataFrame(columns)


def _extras(scorer: Scorer, tasks: Sequence[Task], **asked: Any) -> Extras | None:
    """The requested additions to the answers, if any."""
    if not any(asked.values()):
        return None
    from emollm.scoring.extras import Extras

    extras = Extras.of(scorer.card, getattr(scorer, "engine", "auto"), tasks, **asked)
    if extras.never:
        _LOG.warning(extras.never_line(asked["abstain"]))
    return extras


def _score(
    scorer: Scorer,
    had: Given,
    questions: Sequence[Question],
    beside: tuple[list[str], list[str]],
    *,
    progress: bool,
    explained: bool,
) -> list[list[Answer]]:
    """One list per question, of the answers in the order of the texts; a text with a problem gets that as its error."""
    from emollm.core.answers import Answer
    from emollm.core.progress import progress_bar

    # A scorer that replaces an engine has no batches.
    at_once = max(32, getattr(scorer, "batch_tokens", 0) // _TOKENS_PER_POST)
    good = [n for n, problem in enumerate(had.problems) if problem is None]
    answers = [[Answer(value=None, error=problem) for problem in had.problems] for _ in questions]
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress_bar("annotating", len(had.texts), "posts")) if progress else None
        if advance and len(good) < len(had.texts):
            advance(len(had.texts) - len(good))
        contexts, targets = beside
        for start in range(0, len(good), at_once):
            part = good[start : start + at_once]
            scored = scorer.score(
                [Question(q.task, had.texts[n], q.emotion, contexts[n], targets[n]) for n in part for q in questions]
            )
            if explained:
                from emollm.scoring.explain import explained as with_words

                besides = [(contexts[n], targets[n]) for n in part]
                scored = with_words(scorer, [had.texts[n] for n in part], besides, questions, scored)
            for i in range(len(questions)):
                for n, answer in zip(part, scored[i :: len(questions)], strict=True):
                    answers[i][n] = answer
            if advance:
                advance(len(part))
    return answers


def _in_windows(
    scorer: Scorer, had: Given, questions: Sequence[Question], details: bool, max_windows: int | None
) -> pd.DataFrame:
    """The columns of an annotated corpus, in the types of a frame."""
    import pandas as pd
    import pyarrow as pa

    from emollm.scoring.columns import OutputColumns
    from emollm.scoring.long import long_fields
    from emollm.scoring.rows import answer_columns

    tasks, output = tuple(dict.fromkeys(question.task for question in questions)), OutputColumns(windows=True)
    found = answer_columns(scorer, had.texts, had.problems, questions, output=output, max_windows=max_windows)
    found.append(pa.array([not looks_english(text) for text in had.texts]))
    fields = output.fields(tasks)
    kinds = {column_name(question): question.task.kind for question in questions}
    kept = {*kinds, "truncated", "error", "not_english", *(field.name for field in long_fields(questions))}
    columns: dict[str, pd.Series[Any]] = {}
    for field, column in zip(fields, found, strict=True):
        if not details and field.name not in kept:
            continue
        values, kind = column.to_pylist(), kinds.get(field.name)
        if kind is Kind.LABEL_SET:
            values = [None if value is None else tuple(value) for value in values]
        dtype = "Int64" if kind is Kind.ORDINAL else _FRAME_TYPES.get(str(field.type), "object")
        columns[field.name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


_FRAME_TYPES = {"double": "float64", "float": "float64", "int32": "Int64", "bool": "bool"}


def _columns(
    question: Question, answers: Sequence[Answer], extras: Extras | None, *, details: bool
) -> dict[str, pd.Series[Any]]:
    import pandas as pd

    name, is_number = column_name(question), question.task.kind is Kind.REGRESSION
    # Int64 keeps classes whole beside a null, which would make them floats.
    dtype = {Kind.REGRESSION: "float64", Kind.ORDINAL: "Int64"}.get(question.task.kind, "object")
    columns = {name: pd.Series([a.value for a in answers], dtype=dtype)}
    if extras is not None:
        values, beside = extras.beside(question, answers)
        columns[name] = pd.Series(values, dtype=dtype)
        for field, found in beside.items():
            of = dtype if field.endswith(("_best", "_second", "_low", "_high")) else "object"
            columns[field] = pd.Series(found, dtype="bool" if field.endswith("_abstained") else of)
    if question.task.way is not None:
        columns[f"{name}_way"] = pd.Series([a.way for a in answers], dtype="object")
        columns[f"{name}_valid_mass"] = pd.Series([a.valid_mass for a in answers], dtype="float64")
    if details:
        for detail in ("unit", "mode", "std", "confidence") if is_number else ("confidence",):
            columns[f"{name}_{detail}"] = pd.Series([getattr(a, detail) for a in answers], dtype="float64")
        columns[f"{name}_probabilities"] = pd.Series([a.probabilities or None for a in answers], dtype="object")
        columns[f"{name}_error"] = pd.Series([a.error for a in answers], dtype="object")
        if any(a.distribution for a in answers):
            columns[f"{name}_distribution"] = pd.Series([a.distribution for a in answers], dtype="object")
    return columns


def _model(model: str | Path | None) -> str:
    return str(model or os.environ.get("EMOLLM_MODEL") or DEFAULT_MODEL)


@dataclasses.dataclass(frozen=True)
class _Named:
    """A model, equal to itself under another name."""

    key: str
    name: str = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=1)
def _open(model: _Named, options: tuple[tuple[str, Any], ...]) -> Scorer:
    """The last scorer stays open, so that a second call does not load the model again."""
    from emollm.scoring.open import open_scorer

    return open_scorer(model.name, **dict(options))
