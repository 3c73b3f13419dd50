"""Combines the answers to a text's windows into answers to the whole text, from columns to columns.

For a text with several windows, a number is the mean weighted by the windows' tokens, a class the one nearest to that
mean, a label the one with the largest mean probability, and a set has the labels of at least half of the text.
Further columns for every text:

    windows, tokens, tokens_cut   how many windows, tokens of the text, tokens that were not read
    X_trajectory       the value of each window in order; for labels a struct with the probabilities of each
    X_peak             for a number: the highest value of a sentence in the highest window
    X_peak_sentence    that sentence; for labels a struct, with a sentence for each label that some window has
    X_window_shares    for classes and labels: the share of windows with each

A text in one window is scored as usual; its peak is its value, and its peak sentence is null, since it is the text.

Shapes: N texts, W windows of a text, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.indicators import indicators
from emollm.core.prompts import Question, column_name
from emollm.core.tasks import Kind, Task
from emollm.scoring.windows import Window, WindowedText

PIECES_AT_ONCE = 4096
"""Windows in memory, in tokens, independent of the length of the texts."""
Score = Callable[[Sequence[str]], list[Any]]
"""Texts to the columns of each question, `truncated` and `error`."""
ROW_FIELDS = (
    pa.field("windows", pa.int32()), pa.field("tokens", pa.int32()), pa.field("tokens_cut", pa.int32()),
)  # fmt: skip


def long_fields(questions: Sequence[Question]) -> list[pa.Field]:
    """The columns after an output's other columns."""
    fields = []
    for question in questions:
        name, task = column_name(question), question.task
        shares = pa.struct([pa.field(k, pa.float32()) for k in task.answer_names])
        if task.kind in (Kind.REGRESSION, Kind.ORDINAL):
            fields += [pa.field(f"{name}_peak", pa.float64()), pa.field(f"{name}_peak_sentence", pa.string())]
            fields.append(pa.field(f"{name}_trajectory", pa.list_(pa.float32())))
        else:
            each = [(pa.field(k, pa.string()), pa.field(k, pa.list_(pa.float32()))) for k in task.answer_names]
            fields.append(pa.field(f"{name}_peak_sentence", pa.struct([sentence for sentence, _ in each])))
            fields.append(pa.field(f"{name}_trajectory", pa.struct([path for _, path in each])))
        if task.kind is not Kind.REGRESSION:
            fields.append(pa.field(f"{name}_window_shares", shares))
    return [*fields, *ROW_FIELDS]


def long_columns(
    texts: Sequence[str],
    windowed: Sequence[WindowedText],
    questions: Sequence[Question],
    score: Score,
    *,
    widths: Sequence[int],
) -> list[Any]:
    """The columns that `score` gives for short texts, for whole texts; then those of `long_fields`.

    `widths` is the number of columns of each question.
    """
    starts = [0, *accumulate(widths)]
    pieces = [texts[n][w.start : w.stop] for n, each in enumerate(windowed) for w in each.windows]
    scored = _in_portions(pieces, score)
    counts = np.array([len(each.windows) for each in windowed], np.intp)
    firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    long = np.flatnonzero(counts > 1).tolist()
    read = [_Read(questions, scored, starts, int(firsts[n]), int(firsts[n + 1]), windowed[n].windows) for n in long]
    _find_peaks([(texts[n], one) for n, one in zip(long, read, strict=True)], starts, score)
    base = [column.take(pa.array(firsts[:-1])) for column in scored]
    places = np.arange(len(texts))
    places[long] = len(texts) + np.arange(len(long))
    columns = []
    for i, column in enumerate(base):
        mine = pa.array([one.columns[i] for one in read], column.type)
        columns.append(pa.concat_arrays([column, mine]).take(pa.array(places)))
    cut = pa.array([each.tokens_cut > 0 for each in windowed])
    columns[-2] = pc.or_(columns[-2], cut)
    short = [
        column for question, at in zip(questions, starts, strict=False) for column in _of_short(question, base[at:])
    ]
    for i, column in enumerate(short):
        mine = pa.array([one.more[i] for one in read], column.type)
        columns.append(pa.concat_arrays([column, mine]).take(pa.array(places)))
    for values in (counts, [each.tokens for each in windowed], [each.tokens_cut for each in windowed]):
        columns.append(pa.array(values, pa.int32()))
    return columns


def _in_portions(pieces: Sequence[str], score: Score) -> list[Any]:
    parts = [score(pieces[i : i + PIECES_AT_ONCE]) for i in range(0, max(len(pieces), 1), PIECES_AT_ONCE)]
    return [pa.concat_arrays([part[i] for part in parts]) for i in range(len(parts[0]))]


class _Read:
    """One long text: the answers to its windows, and their combination."""

    def __init__(
        self, questions: Sequence[Question], scored: Sequence[Any], starts: Sequence[int], first: int, stop: int,
        windows: Sequence[Window],
    ) -> None:  # fmt: skip
        self.windows = windows
        weights = np.array([max(window.tokens, 1) for window in windows], float)
        self.each = [
            _Answers(question.task, [column.slice(first, stop - first) for column in scored[at:end]], weights)
            for question, at, end in zip(questions, starts[:-1], starts[1:], strict=True)
        ]
        self.columns: list[Any] = [value for one in self.each for value in one.whole()]
        truncated, errors = (column.slice(first, stop - first).to_pylist() for column in scored[-2:])
        # A window that failed is left out of the mean; a text fails if all of its windows do.
        failed = next((error for error in errors if error), None) if all(errors) else None
        self.columns += [any(truncated), failed or next((one.error for one in self.each if one.error), None)]
        self.more: list[Any] = []

    def finish(self, peaks: Sequence[_Peak]) -> None:
        for one, peak in zip(self.each, peaks, strict=True):
            self.more += one.more(peak)


@dataclass(slots=True)
class _Peak:
    value: float | None = None
    sentence: str | None = None
    by_label: dict[str, str] | None = None


class _Answers:
    """The answers to one question for W windows."""

    def __init__(self, task: Task, columns: Sequence[Any], weights_W: NDArray[np.float64]) -> None:
        self.task = task
        self._columns = columns
        self.values: list[Any] = columns[0].to_pylist()
        self.ok_W = np.array([value is not None for value in self.values])
        self.error = None if self.ok_W.any() else next((e for e in columns[3].to_pylist() if e), None)
        weights = np.where(self.ok_W, weights_W, 0.0)
        self._weights = weights / weights.sum() if weights.sum() else weights
        self._second = columns[1].to_pylist()
        self.has_probabilities = any(isinstance(one, dict) for one in self._second)

    def _mean(self, values: Sequence[float | None]) -> float:
        return float(sum(w * v for w, v in zip(self._weights, values, strict=True) if v is not None))

    def probabilities(self, name: str) -> list[float | None]:
        """Per window."""
        return [one[name] if one else None for one in self._second]

    def shares(self) -> dict[str, float]:
        """Weighted share of the text in whose windows each class or label is answered."""
        return {
            name: self._mean([self._holds(value, name) for value in self.values]) for name in self.task.answer_names
        }

    def _holds(self, value: Any, name: str) -> float:
        if value is None:
            return 0.0
        return float(name in value) if isinstance(value, list) else float(str(value) == name)

    def whole(self) -> list[Any]:
        """The question's columns for the text."""
        return [*self._answer(), *(self._combined(column.to_pylist()) for column in self._columns[4:])]

    def _combined(self, values: Sequence[Any]) -> Any:
        """Of a call-time task: its mean valid mass; how it was answered, which is the same in all windows."""
        known = [value for value in values if value is not None]
        if not known or isinstance(known[0], str):
            return known[0] if known else None
        return self._mean(values)

    def _answer(self) -> list[Any]:
        """Value, standard deviation or probabilities, confidence and error."""
        if not self.ok_W.any():
            return [None, None, None, self.error]
        sure = self._columns[2].to_pylist()
        confidence = None if all(one is None for one in sure) else self._mean(sure)
        if self.task.kind is Kind.REGRESSION:
            mean = self._mean(self.values)
            std = None
            if any(one is not None for one in self._second):
                squares = [
                    v**2 + (s or 0.0) ** 2 if v is not None else 0.0
                    for v, s in zip(self.values, self._second, strict=True)
                ]
                std = max(self._mean(squares) - mean**2, 0.0) ** 0.5
            return [mean, std, confidence, None]
        mean_of = {name: self._mean(self.probabilities(name)) for name in self.task.answer_names}
        shown = mean_of if self.has_probabilities else None
        return [self._label(mean_of if self.has_probabilities else self.shares()), shown, confidence, None]

    def _label(self, likely: dict[str, float]) -> Any:
        match self.task.kind:
            case Kind.ORDINAL:
                mean = self._mean(self.values)
                return min((one.value for one in self.task.classes), key=lambda value: abs(value - mean))
            case Kind.LABEL_SET:
                return [name for name, share in self.shares().items() if share >= 0.5]
            case _:
                return max(likely, key=lambda name: likely[name])

    def highest(self) -> list[tuple[str | None, int]]:
        """The windows in which to search for peaks, with the label that is highest in each; None for a number."""
        if not self.ok_W.any():
            return []
        if self.task.kind in (Kind.REGRESSION, Kind.ORDINAL):
            values = [-np.inf if value is None else float(value) for value in self.values]
            return [(None, int(np.argmax(values)))]
        found: list[tuple[str | None, int]] = []
        for name in self.task.answer_names:
            held = [self._holds(value, name) for value in self.values]
            if any(held):
                likely = self.probabilities(name) if self.has_probabilities else held
                found.append((name, int(np.argmax([-1.0 if p is None else p for p in likely]))))
        return found

    def more(self, peak: _Peak) -> list[Any]:
        """The values of this question's `long_fields`."""
        names, task = self.task.answer_names, self.task
        window_share = {n: sum(self._holds(v, n) for v in self.values) / max(int(self.ok_W.sum()), 1) for n in names}
        if task.kind in (Kind.REGRESSION, Kind.ORDINAL):
            path = [None if value is None else float(value) for value in self.values]
            shares = [] if task.kind is Kind.REGRESSION else [window_share]
            return [peak.value, peak.sentence, path, *shares]
        paths = {name: self.probabilities(name) for name in names} if self.has_probabilities else None
        sentence = {name: (peak.by_label or {}).get(name) for name in names}
        return [sentence, paths, window_share]


def _find_peaks(texts: Sequence[tuple[str, _Read]], starts: Sequence[int], score: Score) -> None:
    """Score the sentences of the highest windows of all texts together, each once, and complete each text."""
    spans: dict[tuple[int, int, int], int] = {}
    for n, (_, read) in enumerate(texts):
        for w in sorted({w for one in read.each for _, w in one.highest()}):
            for start, stop in read.windows[w].parts:
                spans.setdefault((n, start, stop), len(spans))
    if not texts:
        return
    scored = _in_portions([texts[n][0][start:stop] for n, start, stop in spans], score)
    for n, (text, read) in enumerate(texts):
        peaks = []
        for at, one in zip(starts, read.each, strict=False):
            peak = _Peak(by_label={})
            for name, w in one.highest():
                mine = [(span, spans[n, *span]) for span in read.windows[w].parts]
                best = max(mine, key=lambda pair: _height(scored, at, name, pair[1]))
                sentence = text[slice(*best[0])]
                if name is None:
                    value = scored[at][best[1]].as_py()
                    peak.value, peak.sentence = (None, None) if value is None else (float(value), sentence)
                else:
                    assert peak.by_label is not None
                    peak.by_label[name] = sentence
            peaks.append(peak)
        read.finish(peaks)


def _height(scored: Sequence[Any], at: int, label: str | None, row: int) -> float:
    value = scored[at][row].as_py()
    if value is None:
        return -np.inf
    if label is None:
        return float(value)
    likely = scored[at + 1][row].as_py()
    return float(likely[label]) if likely else float(label in value if isinstance(value, list) else value == label)


def _of_short(question: Question, answer: Sequence[Any]) -> list[Any]:
    """The columns of `long_fields` for texts in one window; `answer` begins with the columns of the question."""
    task, value = question.task, answer[0]
    missing = pc.is_null(value)
    count, names = len(value), task.answer_names
    more: list[Any] = []
    if task.kind in (Kind.REGRESSION, Kind.ORDINAL):
        number = pc.cast(value, pa.float64())
        more += [number, pa.nulls(count, pa.string()), _lists(pc.cast(number, pa.float32()), missing)]
    else:
        more.append(pa.nulls(count, pa.struct([pa.field(name, pa.string()) for name in names])))
        path = pa.struct([pa.field(name, pa.list_(pa.float32())) for name in names])
        if answer[1].null_count == count:
            more.append(pa.nulls(count, path))
        else:
            each = [_lists(pc.struct_field(answer[1], name), missing) for name in names]
            more.append(pa.StructArray.from_arrays(each, fields=list(path), mask=missing))
    if task.kind is not Kind.REGRESSION:
        held = [pa.array(held_N, pa.float32()) for held_N in indicators(value, task.answer_values).T.astype(float)]
        fields = [pa.field(name, pa.float32()) for name in names]
        more.append(pa.StructArray.from_arrays(held, fields=fields, mask=missing))
    return more


def _lists(values: Any, missing: Any) -> Any:
    """A list of one number per row; null if there is no answer."""
    absent = np.asarray(missing)
    ends = np.concatenate([[0], np.cumsum(~absent)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values.filter(pa.array(~absent)), mask=missing)
