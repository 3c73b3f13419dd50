"""Annotate, review 200, train, measure: what choosing the posts to review is worth beside drawing them by chance.

    python benchmarks/review_loop.py --goemotions DIR --rounds 6 --seeds 3

Heads on the frozen all-MiniLM-L6-v2 learn GoEmotions (Ekman's six and neutral) from 200 posts, annotate the pool,
`emollm.review.pick` chooses 200 more, whose labels the corpus knows, and so on. Measured on posts of dev or test, which
are in no pool. The hidden states are read once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emollm.core.heads_card import FeatureSpec, HeadsCard, Prompt
from emollm.core.prompts import Question, column_name
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import Example
from emollm.data.corpora.goemotions import read_goemotions
from emollm.metrics import metrics
from emollm.review.annotated import Annotated, doubt
from emollm.review.pick import By, pick
from emollm.scoring.arrays import AnswerArrays
from emollm.scoring.heads.extract import ReadPosts, column
from emollm.scoring.heads.fit import fit_heads
from emollm.scoring.heads.labels import LabelledText, as_target, folds
from emollm.scoring.heads.weights import answers

TASK = TASKS["GoEmotions"]
KEY = TASK.keys[0]
SPECS = (FeatureSpec(layer=6, pooling="mean"), FeatureSpec(layer=4, pooling="mean"))


def read_features(examples: Sequence[Example], cache: Path | None) -> dict[FeatureSpec, Any]:
    if cache and cache.is_file():
        with np.load(cache) as kept:
            return {spec: kept[column(spec)] for spec in SPECS}
    reader = ReadPosts(base="minilm-l6", prompt=Prompt(emoji="named"), feature_specs=SPECS, max_post_tokens=64,
                       device="cpu", num_threads=1)  # fmt: skip
    texts = pa.table({"index": list(range(len(examples))), "text": [e.text for e in examples]})
    read = reader(texts)
    size = read[column(SPECS[0])].type.list_size
    found = {spec: read[column(spec)].combine_chunks().flatten().to_numpy().reshape(-1, size) for spec in SPECS}
    if cache:
        np.savez(cache, **{column(spec): values for spec, values in found.items()})
    return found


def fitted(features: dict[FeatureSpec, Any], examples: Sequence[Example], rows: Sequence[int]) -> Any:
    """What heads fitted on these rows make of all rows: AnswerArrays."""
    mine = {spec: values[rows] for spec, values in features.items()}
    texts = [examples[n].text for n in rows]
    golds = np.stack([as_target(TASK, examples[n].value) for n in rows])
    labelled = LabelledText(texts, {KEY: golds}, folds(texts), np.ones(len(rows), bool))
    heads = fit_heads(mine, labelled, (TASK,), feature_specs=SPECS)
    card = HeadsCard(prompt=Prompt(), feature_specs=SPECS, heads=heads.heads)
    everything = np.concatenate([features[spec] for spec in SPECS], axis=1)
    return answers(heads.heads[0], card, {TASK.name: TASK}, heads.head_weights.scores(everything))


def scores(found: AnswerArrays, examples: Sequence[Example], rows: Sequence[int]) -> dict[str, float]:
    values = found.answers()
    gold, said = [examples[n].value for n in rows], [values[n].value for n in rows]
    one = np.ones((1, len(rows)))
    return {
        "macro-F1": float(metrics.macro_f1_of(gold, said, TASK.labels)(one)[0]),  # type: ignore[arg-type]
        "jaccard": float(metrics.jaccard_of(gold, said)(one)[0]),  # type: ignore[arg-type]
    }


def annotated(found: AnswerArrays, examples: Sequence[Example], rows: Sequence[int]) -> Annotated:
    values, name = found.answers(), column_name(Question(TASK, ""))
    return Annotated(
        "pool", [str(n) for n in rows], [examples[n].text for n in rows], [Question(TASK, "")],
        {name: [values[n].value for n in rows]},
        {name: [doubt(TASK, probabilities=values[n].probabilities) for n in rows]},
    )  # fmt: skip


def loop(
    features: dict[FeatureSpec, Any], examples: Sequence[Example], pool: Sequence[int], held: Sequence[int],
    by: By, *, rounds: int, at_once: int, seed: int,
) -> list[dict[str, float]]:  # fmt: skip
    rng = np.random.default_rng(seed)
    known = [pool[n] for n in rng.permutation(len(pool))[:at_once]]
    curve = []
    for number in range(rounds):
        found = fitted(features, examples, known)
        curve.append({"labels": len(known), **scores(found, examples, held)})
        rest = sorted(set(pool) - set(known))
        picked = pick(annotated(found, examples, rest), at_once, by=by, seed=seed * 100 + number)
        known = [*known, *(rest[one.row] for one in picked)]
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goemotions", type=Path, required=True)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--held", type=int, default=2000)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    train, held_out = (read_goemotions(args.goemotions, split, bad=[]) for split in ("train", args.split))
    examples = [*train[: args.pool], *held_out[: args.held]]
    features = read_features(examples, args.cache)
    pool, held = range(args.pool), range(args.pool, len(examples))
    for by in ("random", "uncertain", "mixed"):
        curves = [
            loop(features, examples, pool, held, by, rounds=args.rounds, at_once=args.at_once, seed=seed)
            for seed in range(args.seeds)
        ]
        for point in zip(*curves, strict=True):
            told = {name: [round(float(f([p[name] for p in point])), 4) for f in (np.mean, np.min, np.max)]
                    for name in ("macro-F1", "jaccard")}  # fmt: skip
            print(json.dumps({"by": by, "labels": point[0]["labels"], **told}), flush=True)


if __name__ == "__main__":
    main()
