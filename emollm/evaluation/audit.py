"""Fairness audit (`emollm audit`): are sentences scored alike that differ only in a gender or race word?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.answers import to_unit
from emollm.core.errors import ConfigError
from emollm.core.folders import check_new, new_folder, write_json, write_run
from emollm.core.tasks import Kind, Task, Value, select_tasks
from emollm.data.corpora.eec import Sentence, read_eec
from emollm.evaluation.disparities import Disparity, Scores, disparities, some_frames
from emollm.evaluation.options import AuditConfig
from emollm.evaluation.predict import askable_tasks, predict
from emollm.evaluation.report.audit_page import audit_page
from emollm.metrics.questions import GoldQuestion


def audit(config: AuditConfig, *, on_rows: Callable[[int, int], None] = lambda _done, _total: None) -> list[Disparity]:
    """Score the sentences and test the pairs; write the folder if `out` is given.

    Raises ConfigError for tasks without an order, DataError if there are too few frames to pair.
    """
    if config.out:
        check_new(config.out, overwrite=config.overwrite)
    tasks = select_tasks(config.tasks, askable_tasks(config.model, config.engine))
    if unordered := [task.name for task in tasks if task.kind not in (Kind.REGRESSION, Kind.ORDINAL)]:
        raise ConfigError(f"--tasks {', '.join(unordered)}: only scores that have an order can differ; choose numbers")
    sentences = some_frames(read_eec(config.eec), config.max_frames)
    questions = [
        GoldQuestion(id=s.id, task=task, emotion=key.emotion, text=s.text, gold=_no_gold(task))
        for s in sentences
        for task in tasks
        for key in task.keys
    ]
    scored = predict(
        config.model,
        questions,
        options=config.scorer_options(),
        cluster=config.cluster,
        on_rows=lambda n: on_rows(n, len(questions)),
    )
    scores: dict[str, dict[str, float]] = {}
    for prediction in scored.predictions:
        question = prediction.question
        name = f"{question.task.name}.{question.emotion}" if question.emotion else question.task.name
        if prediction.value is not None:
            scores.setdefault(name, {})[question.id] = _unit(question.task, prediction.value)
    found = disparities(sentences, scores, correction=config.correction)
    if config.out:
        _write(config, sentences, scores, found)
    return found


def _write(
    config: AuditConfig, sentences: Sequence[Sentence], scores: Mapping[str, Scores], found: Sequence[Disparity]
) -> None:
    assert config.out
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        rows = [{"id": s.id, **{name: mine.get(s.id) for name, mine in scores.items()}} for s in sentences]
        pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
        clean = [{k: None if v != v else v for k, v in asdict(one).items()} for one in found]
        write_json(folder / "audit.json", clean)
        (folder / "audit.html").write_text(audit_page(config, found), encoding="utf-8")
        write_run(folder, job="audit", config=config.model_dump(mode="json"))


def _no_gold(task: Task) -> Value:
    """The corpus has no golds; a question has to have one."""
    return task.classes[0].value if task.kind is Kind.ORDINAL else float(task.low or 0.0)


def _unit(task: Task, value: Value) -> float:
    if task.kind is Kind.REGRESSION:
        return to_unit(task, value)  # type: ignore[arg-type]
    low, high = task.classes[0].value, task.classes[-1].value
    return (value - low) / (high - low)  # type: ignore[operator]
