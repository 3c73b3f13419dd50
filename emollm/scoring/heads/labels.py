"""A data folder as a table: each text once, with its golds for each question. Gaps are NaN and are not trained on.

Shapes: N texts, K classes or labels of a question (1 of a regression).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emollm.core.answers import to_unit
from emollm.core.errors import DataError
from emollm.core.heads_card import Piece
from emollm.core.prompts import Post
from emollm.core.tasks import Kind, QuestionKey, Task, Value
from emollm.data.affect import words_of
from emollm.data.instructions import gold_ratings, gold_value

Floats = NDArray[np.float64]

FOLDS = 5


@dataclass(frozen=True, slots=True)
class LabelledText:
    """Texts with their golds."""

    texts: list[str]
    golds: dict[QuestionKey, Floats]
    """[N, K]: for a regression the number in 0..1; for classes and single labels a distribution; for a label set each
    label's probability. Gold labels are 0 or 1, a teacher's are in between. NaN if there is no label."""
    fold_N: NDArray[np.int64]
    """The fold (of `FOLDS`) in which a text is held out, the same for all its questions."""
    is_gold_N: NDArray[np.bool_]
    """Whether its labels are gold and not a teacher's."""
    variance: Mapping[QuestionKey, Floats] = field(default_factory=dict)
    """[N] of numbers with several raters: the variance of what they said (of 0..1), whose mean is the gold; else 0."""
    beside: list[tuple[str, str]] = field(default_factory=list)
    """Context and target of each text; empty where no text has any."""

    @property
    def posts(self) -> list[Post]:
        """The texts with what is read beside them."""
        beside = self.beside or [("", "")] * len(self.texts)
        return [Post(text, *each) for text, each in zip(self.texts, beside, strict=True)]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What the texts have beside them."""
        has_context, has_target = any(c for c, _ in self.beside), any(t for _, t in self.beside)
        return (*(("context",) if has_context else ()), *(("target",) if has_target else ()))

    def known(self, key: QuestionKey) -> NDArray[np.intp]:
        """Indices of the texts with a gold for this question."""
        return np.flatnonzero(~np.isnan(self.golds[key]).any(axis=1))

    def gold_first(self, key: QuestionKey, index_N: NDArray[np.intp], *, at_least: int) -> NDArray[np.intp]:
        """Those of the texts `index_N` with a label for this question: only gold ones if there are enough."""
        known = index_N[~np.isnan(self.golds[key][index_N]).any(axis=1)]
        gold = known[self.is_gold_N[known]]
        return gold if len(gold) >= at_least else known


def read_labels(rows: pa.Table, tasks: Sequence[Task]) -> LabelledText:
    """The rows of a data folder, independent of their wordings. Of two golds for a question the first is used."""
    by_name = {task.name: task for task in tasks}
    places: dict[Post, int] = {}
    found: dict[QuestionKey, dict[int, Floats]] = {key: {} for task in tasks for key in task.keys}
    variance: dict[QuestionKey, dict[int, float]] = {}
    columns = ["task", "emotion", "text", "context", "target", "value", "labels", "ratings"]
    for row in rows.select([name for name in columns if name in rows.column_names]).to_pylist():
        task = by_name.get(row["task"])
        if task is None or not row["text"].strip():
            continue
        place = places.setdefault(Post(row["text"], row["context"] or "", row["target"] or ""), len(places))
        key = QuestionKey(row["task"], row["emotion"])
        if place not in found[key]:
            ratings = gold_ratings(row)
            said = np.stack([as_target(task, value) for value in ratings or (gold_value(task, row),)])
            # Several raters are a distribution: what the head learns, and not only which answer won.
            found[key][place] = said.mean(axis=0)
            if len(ratings) > 1 and task.kind is Kind.REGRESSION:
                variance.setdefault(key, {})[place] = float(said[:, 0].var())
    if not places:
        raise DataError(f"no row of {', '.join(by_name)} to fit heads on")
    texts = [post.text for post in places]
    beside = [(post.context, post.target) for post in places]
    return LabelledText(
        texts=texts,
        golds={key: _table(golds, len(places)) for key, golds in found.items() if golds},
        fold_N=folds(texts),
        is_gold_N=np.ones(len(places), dtype=bool),
        variance={key: np.array([v.get(n, 0.0) for n in range(len(places))]) for key, v in variance.items()},
        beside=beside if any(map(any, beside)) else [],
    )


def as_target(task: Task, value: Value) -> Floats:
    """[K], as in `LabelledText.golds`."""
    match task.kind:
        case Kind.REGRESSION:
            assert isinstance(value, float | int)
            return np.array([to_unit(task, value)])
        case Kind.ORDINAL:
            return np.array([float(c.value == value) for c in task.classes])
        case Kind.SINGLE_LABEL:
            return np.array([float(label == value) for label in task.labels])
        case Kind.LABEL_SET:
            assert isinstance(value, tuple)
            return np.array([float(label in value) for label in task.labels])


def _table(golds: Mapping[int, Floats], count: int) -> Floats:
    table = np.full((count, len(next(iter(golds.values())))), np.nan)
    for place, gold in golds.items():
        table[place] = gold
    return table


def subset(labelled: LabelledText, index_N: NDArray[np.intp]) -> LabelledText:
    """Only these texts, with the questions that still have a gold."""
    golds = {key: gold[index_N] for key, gold in labelled.golds.items()}
    return LabelledText(
        texts=[labelled.texts[n] for n in index_N],
        golds={key: gold for key, gold in golds.items() if not np.isnan(gold).all()},
        fold_N=labelled.fold_N[index_N],
        is_gold_N=labelled.is_gold_N[index_N],
        variance={key: variance_N[index_N] for key, variance_N in labelled.variance.items()},
        beside=[labelled.beside[n] for n in index_N] if labelled.beside else [],
    )


def folds(texts: Sequence[str], parts: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each text, by its words, so that copies with other links or names stay together."""
    return np.array([_fold(text, parts) for text in texts], dtype=np.int64)


def _fold(text: str, parts: int) -> int:
    return int.from_bytes(hashlib.sha256(words_of(text).encode("utf-8", "replace")).digest()[:8], "big") % parts
