"""Whether systems are better together: python benchmarks/ensemble.py RUN RUN [RUN ...] [--weights 4 1]

Of each folder of jobs/evaluate.py the model's predictions, on the questions that all of them answered. Numbers and
classes are averaged and correlated with gold, a mean over emotions; of label sets the labels' probabilities are, and
a label counts from `--threshold` on. One row a system alone, one for all together.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from emollm.evaluation.metrics import jaccard, pearson
from emollm.evaluation.predictions import Prediction
from emollm.evaluation.systems import read_run
from emollm.tasks import Kind

Key = tuple[str, str | None, str]
"""Task, emotion, id."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs="+", help="one a run; left out: all alike")
    parser.add_argument("--threshold", type=float, default=0.35)
    args = parser.parse_args()
    weights = args.weights or [1.0] * len(args.runs)
    if len(weights) != len(args.runs):
        parser.error(f"{len(args.runs)} runs and {len(weights)} weights")
    answers = [answered(read_run(run).systems[0].predictions) for run in args.runs]
    keys = sorted(set.intersection(*map(set, answers)), key=str)
    alone = [[float(i == n) for i in range(len(answers))] for n in range(len(answers))]
    tables = [score(answers, keys, row, args.threshold) for row in (*alone, weights)]
    print(f"{len(keys)} questions\n{'':24}" + "".join(f"{task:>14}" for task in tables[0]))
    for name, table in zip([*(run.name for run in args.runs), "together"], tables, strict=True):
        print(f"{name:24}" + "".join(f"{value:14.3f}" for value in table.values()))


def answered(predictions: Sequence[Prediction]) -> dict[Key, Prediction]:
    return {(p.question.task.name, p.question.emotion, p.question.id): p for p in predictions if p.value is not None}


def score(
    answers: Sequence[Mapping[Key, Prediction]], keys: Sequence[Key], weights: Sequence[float], threshold: float
) -> dict[str, float]:
    """The metric of each task that can be averaged."""
    groups: dict[tuple[str, str | None], list[Key]] = defaultdict(list)
    for key in keys:
        groups[key[:2]].append(key)
    found: dict[str, list[float]] = defaultdict(list)
    for (name, _), mine in groups.items():
        rows = [[one[key] for one in answers] for key in mine]
        golds: list[Any] = [row[0].question.gold for row in rows]
        match rows[0][0].question.task.kind:
            case Kind.LABEL_SET:
                found[name].append(jaccard(golds, [labels(row, weights, threshold) for row in rows]))
            case Kind.REGRESSION | Kind.ORDINAL:
                values = [average([float(p.value) for p in row], weights) for row in rows]  # type: ignore[arg-type]
                found[name].append(pearson([float(gold) for gold in golds], values))
    return {name: mean(each) for name, each in found.items()}


def labels(row: Sequence[Prediction], weights: Sequence[float], threshold: float) -> tuple[str, ...]:
    names = row[0].question.task.labels
    return tuple(n for n in names if average([p.probabilities[n] for p in row], weights) > threshold)


def average(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


if __name__ == "__main__":
    main()
