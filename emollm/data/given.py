"""Input types of `emollm.annotate`: strings, lists, data frames, tables and files; others are refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emollm.core.errors import DataError
from emollm.core.prompts import as_context
from emollm.core.sentences import sentences
from emollm.data.files.columns import NOT_TEXT, Notes, Reading
from emollm.data.files.split import MADE

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger("emollm")


@dataclass(frozen=True, slots=True)
class Given:
    """Texts with their problems, and how answers are added to the input."""

    texts: list[str]
    """"" if there is none."""
    problems: list[str | None]
    """Why a text cannot be scored; None if it can."""
    names: list[str]
    """Columns that the answers must not overwrite."""
    give_back: Callable[[pd.DataFrame], Any]
    """The input with the answers as further columns, one row per text, in the input's type if a frame or table."""
    column: Callable[[str], Sequence[Any]]
    """The values of a column by its name."""

    def beside(self, what: str, values: Any) -> list[str]:
        """A context or target for each text: `values` is the name of a column, a sequence, or None.

        Raises DataError for a column that is not there, or for more or fewer values than texts.
        """
        if values is None:
            return [""] * len(self.texts)
        if isinstance(values, str):
            if values in self.names:
                values = self.column(values)
            elif len(self.texts) == 1:
                values = [values]
            else:
                raise DataError(f"no column {values!r} for {what}; give one of: {', '.join(map(str, self.names))}")
        found = [as_context(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
        if len(found) != len(self.texts) and len(self.texts) == 1 and what == "context":
            found = [as_context(list(values))]
        if len(found) != len(self.texts):
            raise DataError(f"{what} has {len(found)} values for {len(self.texts)} texts; give one for each")
        return found


def given(texts: Any, text_column: str, reading: Reading) -> Given:
    """Raises DataError, naming the type, for an input without texts."""
    import pandas as pd

    kind = type(texts).__module__.partition(".")[0]
    match texts:
        case str():
            return _of_frame(pd.DataFrame({"text": [texts]}), "text")
        case os.PathLike():
            return _of_files(os.fspath(texts), text_column, reading)
        case pd.DataFrame():
            return _of_frame(texts, text_column)
        case pd.Series():
            return _of_frame(pd.DataFrame({"text": texts}), "text", what=f"the Series is {texts.dtype}")
        case Mapping() | bytes() | bytearray() | memoryview():
            hint = "decode it first" if not isinstance(texts, Mapping) else "give its texts as a list, or a DataFrame"
            raise DataError(f"texts must be a string, a list, a frame or a Path, not {type(texts).__name__}; {hint}")
        case _ if kind == "polars" and type(texts).__name__ == "DataFrame":
            return _of_polars(texts, text_column)
        case _ if kind != "polars" and hasattr(texts, "column_names") and hasattr(texts, "__arrow_c_stream__"):
            return _of_arrow(texts, text_column)
        case _ if hasattr(texts, "to_pylist"):
            return _of_list(texts.to_pylist(), text_column)
        case Iterable():
            return _of_list(list(texts), text_column)
        case _:
            raise DataError(f"texts must be a string, a list, a frame or a Path, not {type(texts).__name__}")


def by_sentence(had: Given, text_column: str) -> Given:
    """One row per sentence: the row's other columns again, `sentence` from 1 and `sentence_start` in characters.

    A row without text, or with a problem, stays one row. Raises DataError if there are columns of these names.
    """
    import pandas as pd

    if clash := [name for name in MADE if name in had.names]:
        raise DataError(f"the column {clash[0]!r} exists already, as one of the sentences' columns would; rename it")
    column = text_column if text_column in had.names else "text"
    rows: list[int] = []
    texts: list[str] = []
    places: list[tuple[int, int]] = []
    for n, (text, problem) in enumerate(zip(had.texts, had.problems, strict=True)):
        spans = [] if problem else sentences(text)
        for number, (start, stop) in enumerate(spans or [(0, len(text))], start=1):
            rows.append(n)
            texts.append(text[start:stop])
            places.append((number, start))
    base = had.give_back(pd.DataFrame(index=range(len(had.texts))))
    made = {name: [place[i] for place in places] for i, name in enumerate(MADE)}
    frame = _repeated(base, rows, column, texts, made)
    problems = [had.problems[n] for n in rows]
    kind = type(frame).__module__.partition(".")[0]
    if kind == "polars":
        return replace(_of_polars(frame, column), problems=problems, texts=texts)
    if kind == "pyarrow":
        return replace(_of_arrow(frame, column), problems=problems, texts=texts)
    return Given(texts, problems, list(frame.columns), _beside(frame), lambda name: frame[name].tolist())


def _repeated(base: Any, rows: Sequence[int], column: str, texts: Sequence[str], made: Mapping[str, Any]) -> Any:
    """Rows of a frame or table again, in its own type, with other texts and with further columns."""
    kind = type(base).__module__.partition(".")[0]
    if kind == "polars":
        import polars as pl

        return base[list(rows)].with_columns(pl.Series(column, texts), *(pl.Series(n, v) for n, v in made.items()))
    if kind == "pyarrow":
        import pyarrow as pa

        table = base.take(pa.array(rows, pa.int64()))
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(texts, pa.string()))
        for name, values in made.items():
            table = table.append_column(name, pa.array(values, pa.int64()))
        return table
    return base.iloc[list(rows)].assign(**{column: list(texts), **made})


def _of_files(location: str, text_column: str, reading: Reading) -> Given:
    import pandas as pd
    import pyarrow as pa

    from emollm.data.files.whole import read_posts

    notes = Notes()
    posts = read_posts(str(location), text_column, reading, notes)
    for line in notes.lines():
        _LOG.warning(line)
    # Int64 keeps every digit of integers in columns with nulls, which would otherwise become floats.
    frame = posts.table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
    frame = frame.astype(
        {name: object for name in frame if frame[name].dtype == "string" or frame[name].dtype == "str"}
    )
    frame = frame.where(frame.notna(), None).astype({n: t for n, t in frame.dtypes.items() if t.kind != "O"})
    column = text_column if text_column in posts.table.column_names else "text"
    texts = [text or "" for text in posts.table[column].to_pylist()]
    return Given(texts, posts.problems, list(frame), _beside(frame), lambda name: frame[name].tolist())


def _of_frame(frame: pd.DataFrame, text_column: str, *, what: str = "") -> Given:
    _check_names(list(frame.columns), text_column)
    column = frame[text_column]
    texts, problems = _classified(column.tolist(), what or f"column {text_column!r} is {column.dtype}")
    return Given(texts, problems, list(frame.columns), _beside(frame), lambda name: frame[name].tolist())


def _beside(frame: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
    def give_back(answers: pd.DataFrame) -> Any:
        import pandas as pd

        return pd.concat([frame, answers.set_index(frame.index)], axis=1)

    return give_back


def _of_polars(frame: Any, text_column: str) -> Given:
    _check_names(frame.columns, text_column)
    texts, problems = _classified(frame[text_column].to_list(), f"column {text_column!r} is {frame[text_column].dtype}")

    def give_back(answers: pd.DataFrame) -> Any:
        import polars as pl

        return frame.hstack(pl.DataFrame(pl.from_arrow(_arrow(answers))))

    return Given(texts, problems, list(frame.columns), give_back, lambda name: frame[name].to_list())


def _of_arrow(given: Any, text_column: str) -> Given:
    import pyarrow as pa

    table = pa.table(given)
    _check_names(table.column_names, text_column)
    column = table[text_column]
    texts, problems = _classified(column.to_pylist(), f"column {text_column!r} is {column.type}")

    def give_back(answers: pd.DataFrame) -> Any:
        added = _arrow(answers)
        return pa.table([*table.columns, *added.columns], schema=pa.schema([*table.schema, *added.schema]))

    return Given(texts, problems, table.column_names, give_back, lambda name: table[name].to_pylist())


def _arrow(answers: pd.DataFrame) -> Any:
    import pyarrow as pa

    return pa.table({name: pa.array(answers[name].tolist(), from_pandas=True) for name in answers})


def _of_list(values: list[Any], text_column: str) -> Given:
    import pandas as pd

    if values and all(isinstance(value, Mapping) for value in values):
        return _of_frame(pd.DataFrame([dict(value) for value in values], dtype=object), text_column)
    texts, problems = _classified(values, "texts are a list")
    frame = pd.DataFrame({"text": pd.Series(values, dtype=object)})
    return Given(texts, problems, ["text"], _beside(frame), lambda name: frame[name].tolist())


def _check_names(names: Sequence[Any], text_column: str) -> None:
    if text_column not in names:
        raise DataError(f"no column {text_column!r}; give text_column, one of: {', '.join(map(str, names))}")
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise DataError(f"there are two columns {twice[0]!r}; rename one")


def _classified(values: Sequence[Any], what: str) -> tuple[list[str], list[str | None]]:
    """Texts and problems; a table's missing value is not a text. Raises DataError if nothing is a text."""
    texts: list[str] = []
    problems: list[str | None] = []
    others: dict[str, None] = {}
    for value in values:
        is_text = isinstance(value, str)
        missing = not is_text and (
            value is None
            or type(value).__name__ in ("NAType", "NaTType")
            or (isinstance(value, float) and value != value)
        )
        if not (is_text or missing):
            others[type(value).__name__] = None
        texts.append(value if is_text else "")
        problems.append(None if is_text or missing else f"{NOT_TEXT}: {type(value).__name__}")
    if others and not any(isinstance(value, str) for value in values):
        hint = "; decode them first" if "bytes" in others else ""
        raise DataError(f"{what} and holds {', '.join(others)}, not text{hint}")
    return texts, problems
