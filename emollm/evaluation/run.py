"""Questions, predictions, metrics, report: what `emollm evaluate` runs, from top to bottom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from emollm.core.errors import ConfigError
from emollm.core.folders import check_new, new_folder, write_json, write_run
from emollm.core.tasks import TASKS, Task, select_tasks
from emollm.evaluation.fragility import measure_fragility
from emollm.evaluation.measured import Evaluation, measure, metrics_json
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.predict import askable_tasks
from emollm.evaluation.report.evaluation_page import evaluation_page
from emollm.evaluation.systems import System, baseline_system, given_systems, model_system, read_run
from emollm.metrics.predictions import METRICS_FILE, PREDICTIONS_FILE, predictions_table
from emollm.metrics.questions import GoldQuestion, distinct, held_tasks, load_benchmark, load_questions


def evaluate(
    config: EvaluateConfig,
    *,
    on_rows: Callable[[int, int], None] = lambda _done, _total: None,
    on_system: Callable[[str], None] = lambda _name: None,
) -> Evaluation:
    """Measure; write the folder if `out` is given. `on_rows` gets (new rows, all rows) of the system that
    `on_system` named last.
    """
    if config.out:
        check_new(config.out, overwrite=config.overwrite)
    questions, rows_from = _questions(config)
    systems: list[System] = []
    if config.scored_model:
        on_system(config.scored_model)
        systems.append(model_system(config, questions, on_rows))
    if config.predictions:
        systems += given_systems(config, questions or None)
        rows_from = {p.question.task.name: config.predictions.name for p in systems[-1].predictions} | rows_from
    for folder in config.compare_with:
        earlier = read_run(folder)
        systems += earlier.systems
        rows_from = earlier.rows_from | rows_from
    if config.tasks is not None:
        systems = _of_tasks(systems, config.tasks)
    everything = distinct([*questions, *(p.question for system in systems for p in system.predictions)])
    questions = questions or everything
    for name in config.chosen_baselines:
        on_system(name)
        baseline = baseline_system(name, config, questions, on_rows)
        systems += [baseline] if baseline.predictions else []
    asked = {question.task.name for question in everything}
    rows_from = {task: where for task, where in rows_from.items() if task in asked}
    fragility = None
    if config.wordings == "all" and config.scored_model:
        on_system(f"{config.scored_model}, in other wordings")
        before = [p.question for p in systems[0].predictions]
        # One bar counts on from the system before.
        fragility = measure_fragility(config, before, lambda new, total: on_rows(new, len(before) + total))
    evaluation = Evaluation([measure(system, config) for system in _named_apart(systems)], rows_from, fragility)
    if config.out:
        write_evaluation(config, evaluation, config.out)
    return evaluation


def write_evaluation(config: EvaluateConfig, evaluation: Evaluation, out: Path) -> None:
    """predictions.parquet, metrics.json, report.html, and run.json last."""
    with new_folder(out, overwrite=config.overwrite) as folder:
        systems = {m.system.name: m.system.predictions for m in evaluation.measured}
        pq.write_table(predictions_table(systems), folder / PREDICTIONS_FILE, compression="zstd")
        write_json(folder / METRICS_FILE, metrics_json(config, evaluation))
        (folder / "report.html").write_text(evaluation_page(config, evaluation), encoding="utf-8")
        write_run(folder, job="evaluate", config=config.model_dump(mode="json"))


def _questions(config: EvaluateConfig) -> tuple[list[GoldQuestion], dict[str, str]]:
    """The benchmark's rows, and the data folder's of tasks that the benchmark does not hold."""
    if not (config.aeb or config.data):
        return [], {}
    askable = askable_tasks(config.scored_model, config.engine) if config.scored_model else ()
    # Baselines answer tasks that the model does not, and the other way round.
    known = {**TASKS, **{task.name: task for task in askable}}
    tasks = tuple(known.values()) if config.tasks is None else select_tasks(config.tasks, known)
    questions: list[GoldQuestion] = []
    rows_from: dict[str, str] = {}
    if config.aeb:
        questions += _only(load_benchmark(config.aeb, None, max_rows=config.max_rows), tasks)
        rows_from |= {question.task.name: f"benchmark {config.aeb.name}" for question in questions}
    if config.data:
        rest = [task for task in tasks if task.name not in rows_from]
        if questions:
            # The benchmark may hold all that the folder has, or the folder may be there for its training rows.
            held = held_tasks(config.data)
            rest = [task for task in rest if task.name in held]
        more = load_questions(config.data, rest, max_rows=config.max_rows) if rest else []
        questions += more
        rows_from |= {question.task.name: f"validation rows of {config.data.name}" for question in more}
    missing = [task.name for task in tasks if task.name not in rows_from]
    if config.tasks is not None and missing:
        raise ConfigError(f"no row of {', '.join(missing)} in --aeb or --data; there are {', '.join(rows_from)}")
    order = [task.name for task in tasks]
    return sorted(questions, key=lambda question: order.index(question.task.name)), rows_from


def _named_apart(systems: Sequence[System]) -> list[System]:
    """Systems of one name, as of two runs of a model, get a number."""
    seen: Counter[str] = Counter()
    found = []
    for system in systems:
        seen[system.name] += 1
        number = seen[system.name]
        found.append(system if number == 1 else replace(system, name=f"{system.name} ({number})"))
    return found


def _of_tasks(systems: Sequence[System], names: Sequence[str]) -> list[System]:
    """The systems with their answers to these tasks alone; a baseline that has none is left out."""
    known = {p.question.task.name: p.question.task for system in systems for p in system.predictions}
    chosen = {task.name for task in select_tasks(names, {**TASKS, **known})}
    found = []
    for system in systems:
        kept = [p for p in system.predictions if p.question.task.name in chosen]
        if not kept and system.role != "baseline":
            raise ConfigError(
                f"{system.name} has no answer to --tasks {', '.join(names)}; there are {', '.join(known)}"
            )
        found += [replace(system, predictions=kept)] if kept else []
    return found


def _only(questions: Sequence[GoldQuestion], tasks: Sequence[Task]) -> list[GoldQuestion]:
    names = {task.name for task in tasks}
    return [question for question in questions if question.task.name in names]
