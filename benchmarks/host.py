"""What a post costs the host, on each road, beside a model that costs nothing: python benchmarks/host.py

The model has the shapes of the default one and computes nothing: its states are zeros, of one number where the real
ones have hundreds. What is left is what a GPU would wait for: tokenizing, bookkeeping, readout, columns. Times are
microseconds of CPU per post, all eleven questions of the profile, on one thread; the best of some runs.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SAMPLE_POSTS = Path(__file__).resolve().parents[1] / "emollm" / "data" / "corpora" / "samples" / "posts.jsonl"


class Stopwatch:
    """CPU seconds of each stage; a stage inside another is taken from it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.process_time()
        self._inside.append(0.0)
        try:
            yield
        finally:
            took = time.process_time() - started
            self.seconds[name] += took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*args, **options)

        return inner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, default=SAMPLE_POSTS, help="JSON lines with a field `text`, or .gz of it")
    parser.add_argument("--num-posts", type=int, default=2048)
    parser.add_argument("--exact-posts", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for road, count in ((heads, args.num_posts), (exact, args.exact_posts), (training, args.num_posts)):
        posts = itertools.islice(itertools.cycle(read_posts(args.posts)), count)
        texts = [f"{text} {number}" for number, text in enumerate(posts)]  # equal ones would be tokenized once
        runs = [road(texts) for _ in range(args.repeats)]
        best = min(runs, key=lambda run: sum(run.values()))
        print(f"{road.__doc__}: {sum(best.values()) / count * 1e6:,.0f} us per post")
        for stage, seconds in best.items():
            print(f"    {seconds / count * 1e6:8.1f}  {stage}")


def read_posts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def heads(texts: list[str]) -> dict[str, float]:
    """heads, up to the Arrow columns"""
    import numpy as np
    import torch

    from emollm.core.bases import DEFAULT_MODEL
    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.models.load import load_model
    from emollm.scoring import rows
    from emollm.scoring.columns import OutputColumns
    from emollm.scoring.heads.engine import HeadsScorer

    loaded = load_model(DEFAULT_MODEL)
    assert loaded.card.heads is not None
    hidden = loaded.model.config.hidden_size
    states = np.random.default_rng(0).normal(size=(4096, hidden * len(loaded.card.heads.feature_specs)))
    given = torch.from_numpy(states.astype(np.float32))
    backbone: Any = SimpleNamespace(hidden_size=hidden, features=lambda batch, _specs: given[: len(batch.ids_BT)])
    scorer, watch = HeadsScorer(loaded, backbone=backbone, batch_tokens=16_384), Stopwatch()
    encode: Any = scorer._encode
    encode.many = watch.timed("tokenize", encode.many)
    encode.batch = watch.timed("batch: ids and masks", encode.batch)
    patched: Any = scorer
    patched._head_weights = SimpleNamespace(
        bias_O=scorer._head_weights.bias_O, scores=watch.timed("heads: one matrix product", scorer._head_weights.scores)
    )
    patched._answers = watch.timed("readout to arrays", scorer._answers)
    questions = questions_for("", select_tasks(["profile"], scorer.card.tasks))
    with watch.stage("batching by length, Arrow columns"):
        rows._scored(scorer, texts, questions, OutputColumns(engine="heads"))
    return dict(watch.seconds)


def training(texts: list[str]) -> dict[str, float]:
    """training, a row of each post, up to micro-batches of 16 of a step of 256"""
    import pyarrow as pa

    from emollm.core.bases import DEFAULT_BASE
    from emollm.core.prompts import questions_for, render
    from emollm.core.tasks import select_tasks
    from emollm.data.instructions import PIECES
    from emollm.models.load import load_base, prompt_encoder
    from emollm.training.batches import steps
    from emollm.training.objective import Answers
    from emollm.training.row_tokens import encode_rows

    loaded, watch = load_base(DEFAULT_BASE), Stopwatch()
    columns: dict[str, list[str]] = {name: [] for name in ("id", *PIECES, "answer")}
    tasks = select_tasks(["profile"])
    for number, text in enumerate(texts):
        question = (mine := questions_for(text, tasks))[number % len(mine)]
        templates = question.task.templates
        pieces = render(question, templates[number % len(templates)])
        row = (str(number), *(getattr(pieces, name) for name in PIECES), f"0.{number % 9 + 1}")
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    with watch.stage("tokenize"):
        rows = encode_rows(pa.table(columns), prompt_encoder(loaded))
    objective, num_steps = Answers(loaded, "cpu"), len(texts) // 256
    for batch in steps(rows, global_batch_size=256, num_steps=num_steps, seed=1):
        with watch.stage("cut into micro-batches"):
            micros = objective.cut(batch, 16)
        with watch.stage("tensors"):
            for micro in micros:
                objective.collate(micro)
    return dict(watch.seconds)


def exact(texts: list[str]) -> dict[str, float]:
    """constrained, up to the answers"""
    from emollm.core.bases import DEFAULT_BASE
    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.models.load import LoadedModel, load_model
    from emollm.scoring.constrained import causal, treecache
    from emollm.scoring.constrained.engine import ConstrainedScorer

    loaded, watch = load_model(DEFAULT_BASE), Stopwatch()
    model = Nothing(loaded.model.config, watch)
    scorer = ConstrainedScorer(LoadedModel(model, loaded.tokenizer, loaded.card), batch_tokens=16_384)
    questions = questions_for("", select_tasks(["profile"], scorer.card.tasks))
    asked = [q for text in texts for q in questions_for(text, tuple(dict.fromkeys(q.task for q in questions)))]
    patched: Any = scorer
    patched._encoder.prompts = watch.timed("tokenize", scorer._encoder.prompts)
    patched._reader.open = watch.timed("open: trees, masks, cache", scorer._reader.open)
    patched._reader.read = watch.timed("read: trees, masks, cache", scorer._reader.read)
    # What a GPU does beside its host: it is not counted.
    device_s = ((causal, "wanted_log_ps"), (treecache, "taken_rows"), (treecache, "put_tokens"))
    own = [getattr(module, name) for module, name in device_s]
    for (module, name), function in zip(device_s, own, strict=True):
        setattr(module, name, watch.timed(f"({name}: the device's)", function))
    try:
        scorer.score(asked[:11])  # prefixes and tries
        gc.freeze()  # as actors do
        watch.seconds.clear()
        with watch.stage("search and answers"):
            scorer.score(asked)
    finally:
        for (module, name), function in zip(device_s, own, strict=True):
            setattr(module, name, function)
    return {stage: seconds for stage, seconds in watch.seconds.items() if not stage.startswith("(")}


class Nothing:
    """A decoder of the right depth whose states are single zeros; its logits say the same everywhere."""

    def __init__(self, config: Any, watch: Stopwatch) -> None:
        import torch

        self._watch, self._layers = watch, config.num_hidden_layers
        generator = torch.Generator().manual_seed(0)
        self._logits_V = torch.randn(config.vocab_size, generator=generator) * 4
        self.config = config

    def parameters(self) -> Iterator[Any]:
        yield self._logits_V

    def get_decoder(self) -> Any:
        return self

    def get_output_embeddings(self) -> Any:
        return lambda hidden: self._logits_V.expand(len(hidden), -1)

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._watch.stage("(the model)"):
            return self.forward(*args, **options)

    def forward(
        self,
        input_ids: Any,
        past_key_values: Any,
        use_cache: bool,
        attention_mask: Any = None,
        position_ids: Any = None,
    ) -> Any:
        import torch

        del use_cache, attention_mask, position_ids
        states = torch.zeros(*input_ids.shape, 1)
        for layer in range(self._layers):
            past_key_values.update(states[:, None], states[:, None], layer)
        return SimpleNamespace(last_hidden_state=states)


if __name__ == "__main__":
    main()
