"""Questions with known answers, from a data folder's validation rows or from the AEB benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from emollm.core.errors import DataError
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, QuestionKey, Task, Value
from emollm.data.instructions import gold_ratings, gold_value, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldQuestion:
    """A question with its known answer."""

    id: str
    task: Task
    emotion: str | None
    text: str
    gold: Value
    ratings: tuple[Value, ...] = ()
    """What each rater said, where several did."""
    context: str = ""
    target: str = ""

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task.name, self.emotion)

    @property
    def asked(self) -> Question:
        """What a model is asked, which does not know the gold."""
        return Question(self.task, self.text, self.emotion, self.context, self.target)

    @property
    def row(self) -> tuple[QuestionKey, str]:
        """The unique key of the question: the four EI rows of a post may share its id."""
        return self.key, self.id


def distinct(questions: Iterable[GoldQuestion]) -> list[GoldQuestion]:
    """Each question once; raises DataError if one has two golds."""
    found: dict[tuple[QuestionKey, str], GoldQuestion] = {}
    for question in questions:
        first = found.setdefault(question.row, question)
        if _comparable(first.gold) != _comparable(question.gold):
            raise DataError(
                f"{question.key} {question.id!r}: gold {first.gold!r} and gold {question.gold!r}; one id must mean one "
                "row in all systems"
            )
    return list(found.values())


def load_questions(
    folder: Path, tasks: Sequence[Task], *, split: str = "validation", max_rows: int | None = None
) -> list[GoldQuestion]:
    """The labelled questions of a data folder, each once, independent of its wordings.

    At most `max_rows` per task and emotion. Raises DataError if the folder has none of the tasks.
    """
    questions = _distinct(read_rows(folder, split).to_pylist(), {task.name: task for task in tasks}, max_rows)
    if not questions:
        raise DataError(f"{folder}/{split}.parquet has no row of {', '.join(task.name for task in tasks)}")
    return questions


def load_benchmark(
    folder: Path, tasks: Sequence[Task] | None = None, *, max_rows: int | None = None
) -> list[GoldQuestion]:
    """The questions of an AEB folder that `emollm build-data aeb` wrote, of these tasks or of all.

    Raises DataError if it is not such a folder, or has none of the tasks.
    """
    # The manifest of a benchmark names its tables; a data folder's are its splits.
    paths = sorted(folder.glob("*.parquet"))
    if not paths or {"train", "validation"} & {path.stem for path in paths}:
        what = "is a data folder of training rows: give it as --data" if paths else "holds no benchmark"
        raise DataError(f"{folder} {what}; build one: emollm build-data aeb --help")
    known = {task.name: task for task in (TASKS.values() if tasks is None else tasks)}
    questions = [
        question for path in paths for question in _distinct(read_rows(folder, path.stem).to_pylist(), known, max_rows)
    ]
    if not questions:
        raise DataError(f"{folder} has no row of {', '.join(known)}; it holds {', '.join(p.stem for p in paths)}")
    order = list(known)
    return sorted(questions, key=lambda question: order.index(question.task.name))


def held_tasks(folder: Path, *, split: str = "validation") -> set[str]:
    """The tasks that a data folder has rows of."""
    return set(read_rows(folder, split)["task"].cast(pa.string()).unique().to_pylist())


def _comparable(gold: Value) -> object:
    """Converts an answer: labels are in the order of the file, and a number may have been mapped to its range."""
    return frozenset(gold) if isinstance(gold, tuple) else round(gold, 9) if isinstance(gold, float) else gold


def _distinct(rows: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task], max_rows: int | None) -> list[GoldQuestion]:
    questions: dict[str, GoldQuestion] = {}
    counts: dict[QuestionKey, int] = defaultdict(int)
    for row in rows:
        task = tasks.get(row["task"])
        row_id = row["id"].rsplit("/", 1)[0]  # without the number of its wording
        key = QuestionKey(row["task"], row["emotion"])
        if task is None or row_id in questions or (max_rows is not None and counts[key] >= max_rows):
            continue
        counts[key] += 1
        questions[row_id] = GoldQuestion(
            id=row_id,
            task=task,
            emotion=row["emotion"],
            text=row["text"],
            gold=gold_value(task, row),
            ratings=gold_ratings(row),
            context=row["context"] or "",
            target=row["target"] or "",
        )
    return list(questions.values())
