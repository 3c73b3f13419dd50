"""How good answers to labels are that a model was not trained for: python benchmarks/ask.py unseen --out DIR

unseen  20 of GoEmotions' 28 labels and E-c's known, the other 8 asked, in three splits: average precision over all
        posts, and macro-F1 of the likeliest of the eight on posts that hold one. All is chosen on training files;
        the test file is read once. --language N asks the untrained language model about the first N test posts, too.
curve   macro-F1 on GoEmotions by the number of labelled examples, heads on a frozen encoder; 0: descriptions alone.
tdt     TDT with and without its target, heads on a frozen encoder: accuracy and macro-F1 with intervals.

Features are kept in DIR and used again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emollm.core.ask import labels, statements
from emollm.core.heads_card import FeatureSpec, Prompt
from emollm.core.prompts import Post, Question
from emollm.core.tasks import TASKS
from emollm.data.corpora.goemotions import read_goemotions
from emollm.data.corpora.semeval import read_semeval
from emollm.data.corpora.tdt import read_tdt
from emollm.models.batching import by_length
from emollm.models.load import load_base
from emollm.scoring.heads.backbone import Backbone, PostEncoder, pooled_states

Floats = NDArray[np.float64]
SPECS = tuple(FeatureSpec(layer=layer, pooling=pooling) for layer in (4, 5, 6) for pooling in ("first", "mean"))
STRENGTH = 0.01
"""Ridge on standardised features, as a share of the number of rows."""
SPLITS = 3
UNSEEN = 8
EXAMPLES = (0, 20, 100, 500, 2000)
NAMED = Prompt(emoji="named")
PARAPHRASES = ("The writer feels {}", "This post expresses {}", "{}", "Someone is full of {}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("unseen", "curve", "tdt"))
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--posts", type=int, default=6000, help="training posts per corpus, drawn with --seed")
    parser.add_argument("--language", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    {"unseen": unseen, "curve": curve, "tdt": tdt}[args.what](args)
    print(f"{time.process_time() - started:.0f} CPU seconds")


class Reader:
    """MiniLM, frozen: features [N, F] and sentence vectors [N, D], kept in files."""

    def __init__(self, out: Path, prompt: Prompt = NAMED) -> None:
        self.out, self.prompt = out, prompt
        base = load_base("minilm-l6")
        self._encode, self._backbone = PostEncoder(base, prompt), Backbone(base.model, "encoder")

    def features(self, name: str, posts: Sequence[Post]) -> Floats:
        path = self.out / f"{name}-{len(posts)}.npy"
        if not path.is_file():
            prompts = self._encode.posts(posts)
            found: Any = np.zeros((len(posts), len(SPECS) * self._backbone.hidden_size), np.float32)
            for batch in by_length([len(prompt) for prompt in prompts], batch_tokens=2048):
                states = pooled_states(self._backbone, self._encode.batch([prompts[i] for i in batch], "cpu"), SPECS)
                found[batch] = np.concatenate([states[spec] for spec in SPECS], axis=1)
            np.save(path, found)
        return np.asarray(np.load(path), np.float64)


def vectors(features_NF: Floats) -> Floats:
    """[N, D] of length one: the mean of the last layer's states."""
    last_ND = features_NF[:, -features_NF.shape[1] // len(SPECS) :]
    return np.asarray(last_ND / np.linalg.norm(last_ND, axis=1, keepdims=True))


class Ridge:
    """Linear scores of standardised features."""

    def __init__(self, x_NF: Floats, y_NK: Floats, strength: float = STRENGTH) -> None:
        self._mean_F, self._std_F = x_NF.mean(axis=0), x_NF.std(axis=0) + 1e-6
        z_NF = self._scaled(x_NF)
        self._bias_K = y_NK.mean(axis=0)
        target_NK, penalty = y_NK - self._bias_K, strength * len(z_NF)
        if len(z_NF) < z_NF.shape[1]:
            # The same solution by the smaller of the two systems.
            dual_NN = z_NF @ z_NF.T + penalty * np.eye(len(z_NF))
            self._weight_FK = z_NF.T @ np.linalg.solve(dual_NN, target_NK)
        else:
            regular_FF = z_NF.T @ z_NF + penalty * np.eye(z_NF.shape[1])
            self._weight_FK = np.linalg.solve(regular_FF, z_NF.T @ target_NK)

    def _scaled(self, x_NF: Floats) -> Floats:
        return np.asarray((x_NF - self._mean_F) / self._std_F)

    def __call__(self, x_NF: Floats) -> Floats:
        return np.asarray(self._scaled(x_NF) @ self._weight_FK + self._bias_K)


def table(examples: Sequence[Any], names: Sequence[str]) -> tuple[list[Post], Floats]:
    posts = [Post(example.text) for example in examples]
    return posts, np.array([[float(name in example.value) for name in names] for example in examples])


def drawn(examples: Sequence[Any], most: int, seed: int) -> list[Any]:
    chosen = np.random.default_rng(seed).permutation(len(examples))[:most]
    return [examples[i] for i in sorted(chosen)]


def sentences(names: Sequence[str]) -> list[list[Post]]:
    return [[Post(form.format(name)) for form in PARAPHRASES] for name in names]


def unseen(args: argparse.Namespace) -> None:
    go, ec = TASKS["GoEmotions-28"].labels, TASKS["E-c"].labels
    read = read_goemotions(args.corpora / "goemotions", "train", task_name="GoEmotions-28", bad=[])
    tweets = [e for e in read_semeval(args.corpora / "semeval2018", "train", bad=[]) if e.task == "E-c"]
    test = read_goemotions(args.corpora / "goemotions", "test", task_name="GoEmotions-28", bad=[])
    go_posts, go_gold = table(drawn(read, args.posts, args.seed), go)
    ec_posts, ec_gold = table(drawn(tweets, args.posts, args.seed), ec)
    test_posts, test_gold = table(test, go)
    reader = Reader(args.out)
    go_x, ec_x, test_x = (
        reader.features("go", go_posts),
        reader.features("ec", ec_posts),
        reader.features("test", test_posts),
    )
    test_e, train_e = vectors(test_x), vectors(np.concatenate([go_x, ec_x]))
    forms = {
        name: vectors(reader.features(f"label-{name}", posts))
        for name, posts in zip((*go, *ec), sentences((*go, *ec)), strict=True)
    }
    empty = vectors(reader.features("prior", [Post(text) for text in ("N/A", "[MASK]", "...")])).mean(axis=0)
    emotions = [name for name in go if name != "neutral"]
    usual = np.stack([forms[name][0] for name in emotions])
    language = untrained(args, test_posts) if args.language else {}
    found: dict[str, list[tuple[float, float]]] = {}
    for split in range(SPLITS):
        rng = np.random.default_rng(100 + split)
        new = [emotions[i] for i in sorted(rng.permutation(len(emotions))[:UNSEEN].tolist())]
        asked = [go.index(name) for name in new]
        seen = [i for i in range(len(go)) if i not in asked]
        # A label of E-c that is called like an unseen one would not leave it unseen.
        beside = [i for i, name in enumerate(ec) if name not in new]
        names = [*(go[i] for i in seen), *(ec[i] for i in beside)]
        golds = np.full((len(train_e), len(names)), np.nan)
        golds[: len(go_x), : len(seen)], golds[len(go_x) :, len(seen) :] = go_gold[:, seen], ec_gold[:, beside]
        gold = test_gold[:, asked]
        one = np.stack([forms[name][0] for name in new])
        # As the product has it: less what a text without content comes near to, less what many emotions are on average.
        near = test_e - empty
        both = [*new, *emotions]

        def centred(scores_NQ: Floats, count: int = len(asked)) -> Floats:
            return np.asarray(scores_NQ[:, :count] - scores_NQ[:, count:].mean(axis=1, keepdims=True))

        scores = {
            "chance": np.random.default_rng(split).random(gold.shape),
            "embedding": centred(near @ np.concatenate([one, usual]).T),
            **{
                f"trained on pairs, {n} epochs": centred(pairs(train_e, golds, names, forms, near, both, n))
                for n in (1, 3, 10)
            },
            "known labels mixed by their sentences": centred(mixed(
                [(go_x, go_gold[:, seen]), (ec_x, ec_gold[:, beside])], test_x,
                np.stack([forms[name][0] for name in names]), np.concatenate([one, usual]),
            )),
            "supervised: all 28 labels known": Ridge(go_x, go_gold)(test_x)[:, asked],
        }  # fmt: skip
        for name, each in scores.items():
            found.setdefault(name, []).append(measured(gold, each))
        few = args.language
        for name, each in language.items():
            found.setdefault(name, []).append(measured(gold[:few], each[:, asked]))
        if language:
            for name in ("chance", "embedding"):
                found.setdefault(f"{name}, those posts", []).append(measured(gold[:few], scores[name][:few]))
        print(f"split {split}: {', '.join(new)}")
    print("| way | average precision | macro-F1 | the three splits |\n|---|---|---|---|")
    for name, each in found.items():
        ap, f1 = np.array(each).T
        shown = ", ".join(f"{a:.3f}/{f:.3f}" for a, f in each)
        print(f"| {name} | {ap.mean():.3f} | {f1.mean():.3f} | {shown} |")


def pairs(
    posts_ND: Floats, golds_NK: Floats, names: Sequence[str], forms: dict[str, Floats], asked_ND: Floats,
    new: Sequence[str], epochs: int, rank: int = 32,
) -> Floats:  # fmt: skip
    """[N, Q]: a low-rank change of the likeness of post and sentence, trained on yes and no to "the writer feels X":
    each step on a random half of the labels, in a wording drawn for each.
    """
    import torch

    torch.manual_seed(0)
    post, gold = torch.tensor(posts_ND, dtype=torch.float32), torch.tensor(golds_NK, dtype=torch.float32)
    said = torch.tensor(np.stack([forms[name] for name in names]), dtype=torch.float32)
    left = torch.nn.Parameter(torch.randn(post.shape[1], rank) * 0.02)
    right = torch.nn.Parameter(torch.zeros(post.shape[1], rank))
    slope, offset = torch.nn.Parameter(torch.tensor(5.0)), torch.nn.Parameter(torch.tensor(-4.0))
    optimizer = torch.optim.AdamW(
        [{"params": [left, right], "weight_decay": 0.1, "lr": 2e-3}, {"params": [slope, offset], "lr": 0.02}]
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(post)).split(256):
            some = torch.randperm(len(names))[: len(names) // 2]
            sentence = said[some, torch.randint(0, said.shape[1], (len(some),))]
            logits = slope * (post[rows] @ sentence.T + post[rows] @ left @ (sentence @ right).T) + offset
            wanted = gold[rows][:, some]
            known = ~wanted.isnan()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], wanted[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    asked = np.stack([forms[name][0] for name in new])
    change = asked_ND @ left.detach().numpy() @ (asked @ right.detach().numpy()).T
    return np.asarray(asked_ND @ asked.T + change)


def mixed(
    known: Sequence[tuple[Floats, Floats]], x_NF: Floats, said_KD: Floats, asked_QD: Floats, strength: float = 3.0
) -> Floats:
    """[N, Q]: the scores of known labels, mixed by kernel ridge regression over their sentences (Romera-Paredes and
    Torr, 2015).
    """
    heads = [Ridge(x, gold) for x, gold in known]
    every = [np.concatenate([head(x) for head in heads], axis=1) for x in (known[0][0], x_NF)]
    scores = (every[1] - every[0].mean(axis=0)) / every[0].std(axis=0)
    mean = said_KD.mean(axis=0)
    gram = (said_KD - mean) @ (said_KD - mean).T
    scale = np.trace(gram) / len(gram)
    cross = (said_KD - mean) @ (asked_QD - mean).T
    return np.asarray(scores @ np.linalg.solve(gram / scale + strength * np.eye(len(gram)), cross / scale))


def average_precision(gold_N: Floats, score_N: Floats) -> float:
    """Mean of the precisions at each positive, best score first; NaN where there is none."""
    held = gold_N[np.argsort(-score_N, kind="stable")]
    if not held.sum():
        return float("nan")
    return float((np.cumsum(held) / np.arange(1, len(held) + 1))[held > 0].mean())


def measured(gold: Floats, scores: Floats) -> tuple[float, float]:
    """Mean average precision over all posts; macro-F1 of the likeliest label on posts that hold exactly one of them."""
    precisions = [average_precision(gold[:, k], scores[:, k]) for k in range(gold.shape[1])]
    one = gold.sum(axis=1) == 1
    return float(np.nanmean(precisions)), macro_f1(gold[one].argmax(axis=1), scores[one].argmax(axis=1))


def macro_f1(gold: NDArray[Any], found: NDArray[Any]) -> float:
    each = []
    for label in np.unique(gold):
        both = float(((gold == label) & (found == label)).sum())
        each.append(2 * both / float((gold == label).sum() + (found == label).sum()))
    return float(np.mean(each))


def untrained(args: argparse.Namespace, posts: Sequence[Post]) -> dict[str, Floats]:
    """The untrained instruction model on the first posts, all 28 labels in one question."""
    from emollm.scoring.open import open_scorer

    scorer = open_scorer("smollm2-135m-instruct", device="cpu", precision="float32")
    names = TASKS["GoEmotions-28"].labels
    found: dict[str, Floats] = {}
    for way in ("entailment", "constrained"):
        path = args.out / f"{way}-{args.language}.npy"
        if not path.is_file():
            task = labels(*names, name="emotion", way=way)  # type: ignore[arg-type]
            answers = scorer.score([Question(task, post.text) for post in posts[: args.language]])
            np.save(path, np.array([[a.probabilities.get(name, 0.0) for name in names] for a in answers]))
            masses = [a.valid_mass for a in answers if a.valid_mass is not None]
            print(f"{way}: median probability mass on valid answers {np.median(masses):.2g}")
        found[f"{way}, untrained SmolLM2-135M, the first {args.language} posts"] = np.load(path)
    return found


def curve(args: argparse.Namespace) -> None:
    names = TASKS["GoEmotions"].labels
    posts, gold = table(
        drawn(read_goemotions(args.corpora / "goemotions", "train", bad=[]), args.posts, args.seed), names
    )
    reader = Reader(args.out)
    x, held = reader.features("go", posts), len(posts) // 3
    (x, test_x), (gold, test_gold) = (x[:-held], x[-held:]), (gold[:-held], gold[-held:])
    one = test_gold.sum(axis=1) == 1
    said = vectors(reader.features("ekman", [Post(text) for text in statements(labels(*names))]))
    prior = vectors(reader.features("prior", [Post(text) for text in ("N/A", "[MASK]", "...")])) @ said.T
    print(f"{held} held-out posts of the training file, {int(one.sum())} of them with one label")
    print("| labelled posts | macro-F1, mean of five draws | lowest, highest |\n|---|---|---|")
    for count in EXAMPLES:
        scores = []
        for draw in range(5 if count else 1):
            chosen = np.random.default_rng(draw).permutation(len(x))[:count]
            if count:
                found = Ridge(x[chosen], gold[chosen], strength=max(STRENGTH, 30 / count))(test_x)
            else:
                found = vectors(test_x) @ said.T - prior.mean(axis=0)
            scores.append(macro_f1(test_gold[one].argmax(axis=1), found[one].argmax(axis=1)))
        print(f"| {count:,} | {np.mean(scores):.3f} | {min(scores):.3f}, {max(scores):.3f} |")


def tdt(args: argparse.Namespace) -> None:
    train, test = (read_tdt(args.corpora / "tdt", split, with_target=True, bad=[]) for split in ("train", "test"))
    print(f"{len(train)} training posts, {len(test)} test posts")
    gold = [np.array([e.value for e in part]) for part in (train, test)]
    texts = [[e.text for e in part] for part in (train, test)]
    right: dict[str, NDArray[Any]] = {}
    for name, prompt in (
        ("without target", NAMED),
        ("with target", Prompt(emoji="named", beside=("target",))),
    ):
        reader = Reader(args.out, prompt)
        posts = [[Post(e.text, target=e.target) for e in part] for part in (train, test)]
        x, test_x = (reader.features(f"tdt-{name.split()[0]}-{i}", part) for i, part in enumerate(posts))
        classes = np.array([-1, 0, 1])
        y = (gold[0][:, None] == classes).astype(float)
        strength = chosen_strength(x, y, texts[0])
        found = classes[Ridge(x, y, strength)(test_x).argmax(axis=1)]
        right[name] = found
        report(name, gold[1], found, strength)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(gold[1]), len(gold[1])) for _ in range(1000)]
    gains = [
        (right["with target"] == gold[1])[i].mean() - (right["without target"] == gold[1])[i].mean() for i in draws
    ]
    low, high = np.percentile(gains, [2.5, 97.5])
    print(f"accuracy with minus without: {np.mean(gains):+.3f} ({low:+.3f} to {high:+.3f})")


def chosen_strength(x: Floats, y: Floats, texts: Sequence[str]) -> float:
    """By the accuracy on fifths of the training texts held out in turn."""
    from emollm.scoring.heads.labels import folds

    fold, accuracy = folds(texts), {}
    for strength in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
        hits = [
            (Ridge(x[fold != k], y[fold != k], strength)(x[fold == k]).argmax(axis=1) == y[fold == k].argmax(axis=1))
            for k in range(5)
        ]
        accuracy[strength] = float(np.concatenate(hits).mean())
    print(f"held-out accuracy by strength: {json.dumps({k: round(v, 3) for k, v in accuracy.items()})}")
    return max(accuracy, key=lambda strength: accuracy[strength])


def report(name: str, gold: NDArray[Any], found: NDArray[Any], strength: float) -> None:
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(gold), len(gold)) for _ in range(1000)]
    shown = []
    for metric in (lambda g, f: float((g == f).mean()), macro_f1):
        low, high = np.percentile([metric(gold[i], found[i]) for i in draws], [2.5, 97.5])
        shown.append(f"{metric(gold, found):.3f} ({low:.3f} to {high:.3f})")
    print(f"| {name} | {' | '.join(shown)} | strength {strength} |")


if __name__ == "__main__":
    main()
