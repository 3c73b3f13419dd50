"""Whether the words that `--explain` names are those that people call positive or negative, and whether they matter.

    python benchmarks/explain.py --sst DIR --split test --sentences 250 --model fast

The trees of SST label every word and phrase, 0 (very negative) to 4. Of each sentence: the rank correlation of these
labels with the effect of leaving the word or phrase out, with VADER's word list, and with chance. Then the deletion
curve: how far the sentence's expected class falls towards neutral when its first words by each order are left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from emollm.core.answers import Answer
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, Task
from emollm.data.corpora.rows import find_file
from emollm.scoring.explain import occluded
from emollm.scoring.open import open_scorer
from emollm.scoring.scorer import Scorer

_TOKEN = re.compile(r"\(|\)|[^() ]+")
DELETED = (1, 2, 3, 5)


class Span(NamedTuple):
    """A node of a tree."""

    first: int
    last: int
    """Its words, the last one not in it."""
    label: int


def read_tree(line: str) -> tuple[list[str], list[Span]]:
    """The words of a bracketed tree and all its nodes below the root."""
    words: list[str] = []
    spans: list[Span] = []
    open_nodes: list[tuple[int, int]] = []
    tokens = iter(_TOKEN.findall(line))
    for token in tokens:
        if token == "(":
            open_nodes.append((len(words), int(next(tokens))))
        elif token == ")":
            first, label = open_nodes.pop()
            spans.append(Span(first, len(words), label))
        else:
            words.append(token)
    return words, spans[:-1]


def without(words: Sequence[str], left_out: set[int]) -> str:
    return " ".join(word for n, word in enumerate(words) if n not in left_out) or "…"


def ask(scorer: Scorer, task: Task, texts: Sequence[str]) -> list[float]:
    answers: list[Answer] = scorer.score([Question(task, text) for text in texts])
    return [occluded(task, answer, None) or 0.0 for answer in answers]


def correlations(labels: Sequence[float], by: dict[str, Sequence[float]]) -> dict[str, float]:
    return {name: float(spearmanr(labels, scores).statistic) for name, scores in by.items()}


def sentence(
    scorer: Scorer, task: Task, words: list[str], spans: list[Span], polarity: Callable[[str], float], rng: Any
) -> dict[str, Any]:
    """The correlations over words and over longer phrases, and the deletion curve, of one sentence."""
    found: dict[str, Any] = {}
    base, *left = ask(scorer, task, [" ".join(words), *(without(words, set(range(s.first, s.last))) for s in spans)])
    effect = {span: base - value for span, value in zip(spans, left, strict=True)}
    lexicon = {span: polarity(" ".join(words[span.first : span.last])) for span in spans}
    for kind, mine in (("words", [s for s in spans if s.last - s.first == 1]),
                       ("phrases", [s for s in spans if s.last - s.first > 1])):  # fmt: skip
        if len({s.label for s in mine}) > 1:
            found[kind] = correlations(
                [s.label for s in mine],
                {"occlusion": [effect[s] for s in mine], "word list": [lexicon[s] for s in mine],
                 "chance": rng.normal(size=len(mine)).tolist()},
            )  # fmt: skip
    leaves = {s.first: s for s in spans if s.last - s.first == 1}
    sign = 1 if base >= 2 else -1
    orders = {
        "occlusion": sorted(leaves, key=lambda n: -sign * effect[leaves[n]]),
        "word list": sorted(leaves, key=lambda n: -sign * lexicon[leaves[n]]),
        "chance": rng.permutation(sorted(leaves)).tolist(),
    }
    texts = [without(words, set(order[:k])) for order in orders.values() for k in DELETED]
    fallen = [sign * (base - value) for value in ask(scorer, task, texts)]
    found["deletion"] = {name: fallen[i * len(DELETED) : (i + 1) * len(DELETED)] for i, name in enumerate(orders)}
    return found


def mean_with_interval(values: Sequence[float], rng: Any) -> list[float]:
    """Mean and its 95% bootstrap interval over sentences."""
    known = np.array([v for v in values if not np.isnan(v)])
    drawn = known[rng.integers(0, len(known), (1000, len(known)))].mean(axis=1)
    return [round(float(x), 3) for x in (known.mean(), *np.quantile(drawn, [0.025, 0.975]))]


def lines(path: Path, most: int, rng: Any) -> Iterator[str]:
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    yield from (found[n] for n in sorted(rng.permutation(len(found))[:most].tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from emollm.evaluation.baselines.polarity import vader_polarity

    rng = np.random.default_rng(args.seed)
    scorer, polarity = open_scorer(args.model), vader_polarity()
    task = next((t for t in scorer.card.tasks if t.name == "SST5"), TASKS["SST5"])
    trees = [read_tree(line) for line in lines(find_file(args.sst, f"{args.split}.txt"), args.sentences, rng)]
    each = [sentence(scorer, task, words, spans, polarity, rng) for words, spans in trees]
    report: dict[str, Any] = {"sentences": len(each)}
    for kind in ("words", "phrases"):
        mine = [one[kind] for one in each if kind in one]
        report[kind] = {n: mean_with_interval([m[n] for m in mine], rng) for n in ("occlusion", "word list", "chance")}
        both = [m["occlusion"] - m["word list"] for m in mine]
        report[kind]["occlusion - word list"] = mean_with_interval(both, rng)
    report["deletion"] = {
        name: {k: mean_with_interval([one["deletion"][name][i] for one in each], rng) for i, k in enumerate(DELETED)}
        for name in ("occlusion", "word list", "chance")
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
