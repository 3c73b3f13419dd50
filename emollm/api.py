"""Affect of texts in one call, from Python: what `emollm.annotate` is."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Question, column_name, questions_for
from emollm.core.tasks import Kind, select_tasks
from emollm.data.files.posts import read_table

if TYPE_CHECKING:
    import pandas as pd

    from emollm.core.answers import Answer
    from emollm.scoring.scorer import Scorer

_POSTS_AT_ONCE = 32


def annotate(
    texts: Any,
    tasks: str | Sequence[str] = "profile",
    *,
    model: str | Path | Scorer | None = None,
    text_column: str = "text",
    details: bool = False,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """The affect of each text: a DataFrame with a row a text, in order, and a column a question.

    `texts` is a string, a list of strings, a pandas Series or DataFrame (its `text_column`; its other columns and
    index are kept), or a `Path` of a .jsonl, .csv, .parquet or .txt file. `tasks` are names of tasks that the model
    knows; "profile" is the eleven questions of SemEval-2018. `model` is a model directory, a base by name, or an
    open scorer to use again; None: $EMOLLM_MODEL, else the bundled default model. `options` go to
    `emollm.scoring.open.open_scorer`.

    Columns: `text`, then `ei_reg_joy`, `v_reg`, `e_c`, ..., named as in an annotated corpus, in the tasks' own
    ranges. `details` adds to each its `_confidence`, `_error`, `_probabilities` and, of a regression, `_std`,
    `_unit` and `_mode`. `truncated` and `error` say whether the text was cut and what went wrong with it. A text that
    is missing or empty gets nulls and an error, never a guess. Raises ConfigError, ModelError or DataError.
    """
    _require_pandas()
    import pandas as pd

    frame = _frame(texts, text_column)
    column = text_column if text_column in frame else "text"
    scorer: Scorer
    if model is None or isinstance(model, str | Path):
        scorer = _open(_model(model), tuple(sorted(options.items())))
    else:
        scorer = model
    chosen = select_tasks([tasks] if isinstance(tasks, str) else list(tasks), scorer.card.tasks)
    questions = questions_for("", chosen)
    answers = _score(scorer, [_text(value) for value in frame[column]], questions, progress=progress)

    columns: dict[str, pd.Series[Any]] = {}
    for question, mine in zip(questions, answers, strict=True):
        columns.update(_columns(question, mine, details=details))
    per_text = list(zip(*answers, strict=True))
    columns["truncated"] = pd.Series([any(a.truncated for a in row) for row in per_text], dtype=bool)
    columns["error"] = pd.Series([next((a.error for a in row if a.error), None) for row in per_text], dtype=object)
    kept = frame.drop(columns=[name for name in columns if name in frame])
    return pd.concat([kept, pd.DataFrame(columns).set_index(frame.index)], axis=1)


def _score(
    scorer: Scorer, texts: Sequence[str], questions: Sequence[Question], *, progress: bool
) -> list[list[Answer]]:
    """A list a question, of the answers in the order of the texts."""
    from emollm.core.progress import progress_bar

    answers: list[list[Answer]] = [[] for _ in questions]
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress_bar("annotating", len(texts), "posts")) if progress else None
        for start in range(0, len(texts), _POSTS_AT_ONCE):
            part = texts[start : start + _POSTS_AT_ONCE]
            asked = [Question(q.task, text, q.emotion) for text in part for q in questions]
            scored = scorer.score(asked)
            for i in range(len(questions)):
                answers[i] += scored[i :: len(questions)]
            if advance:
                advance(len(part))
    return answers


def _columns(question: Question, answers: Sequence[Answer], *, details: bool) -> dict[str, pd.Series[Any]]:
    import pandas as pd

    name, is_number = column_name(question), question.task.kind is Kind.REGRESSION
    # Int64 keeps classes whole beside a null, which would make them floats.
    dtype = {Kind.REGRESSION: "float64", Kind.ORDINAL: "Int64"}.get(question.task.kind, "object")
    columns = {name: pd.Series([a.value for a in answers], dtype=dtype)}
    if details:
        for detail in ("unit", "mode", "std", "confidence") if is_number else ("confidence",):
            columns[f"{name}_{detail}"] = pd.Series([getattr(a, detail) for a in answers], dtype="float64")
        columns[f"{name}_probabilities"] = pd.Series([a.probabilities or None for a in answers], dtype="object")
        columns[f"{name}_error"] = pd.Series([a.error for a in answers], dtype="object")
    return columns


def _frame(texts: Any, text_column: str) -> pd.DataFrame:
    import pandas as pd

    match texts:
        case str():
            return pd.DataFrame({"text": [texts]})
        case Path():
            frame: pd.DataFrame = read_table(texts, text_columns=(text_column,)).to_pandas()
        case pd.DataFrame():
            frame = texts
        case pd.Series():
            return pd.DataFrame({"text": texts})
        case Iterable():
            return pd.DataFrame({"text": pd.Series(list(texts), dtype=object)})
        case _:
            raise DataError(f"texts must be a string, a list, a DataFrame or a Path, not {type(texts).__name__}")
    if text_column not in frame:
        raise DataError(f"no column {text_column!r}; give text_column, one of: {', '.join(map(str, frame.columns))}")
    return frame


def _text(value: Any) -> str:
    """None and NaN, as tables have them, are no text."""
    return value if isinstance(value, str) else ""


def _model(model: str | Path | None) -> str:
    return str(model or os.environ.get("EMOLLM_MODEL") or DEFAULT_MODEL)


@functools.lru_cache(maxsize=1)
def _open(model: str, options: tuple[tuple[str, Any], ...]) -> Scorer:
    """The last scorer stays open, so that a second call does not load the model again."""
    from emollm.scoring.open import open_scorer

    return open_scorer(model, **dict(options))


def _require_pandas() -> None:
    if importlib.util.find_spec("pandas") is None:
        raise ConfigError("annotate returns a pandas DataFrame; run: pip install -c constraints.txt pandas")
