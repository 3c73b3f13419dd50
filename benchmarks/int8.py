"""What --precision int8 changes: python benchmarks/int8.py [--model DIR] [--posts FILE] [--num-posts N]

First of single layers, on random numbers: the share of an output's norm that is lost, and CPU milliseconds, beside
torch's own dynamic quantisation. Then of a model's answers, int8 against float32, on the same posts: by how much
numbers move in 0..1, and how many classes and label sets stay what they were.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scoring import SAMPLE_POSTS, read_posts

SHAPES = ((256, 576, 576), (256, 576, 1536), (256, 1536, 576), (1024, 576, 1536))
"""Tokens, inputs, outputs: those of SmolLM2-135M."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--model", default="smollm2-135m-heads", help="model directory")
    parser.add_argument("--posts", type=Path, default=SAMPLE_POSTS, help="JSON lines with a field `text`, or .gz of it")
    parser.add_argument("--num-posts", type=int, default=150)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's own is deprecated, and says so at length
    layers()
    answers(args.model, read_posts(args.posts, args.num_posts))


def layers() -> None:
    import torch

    from emollm.int8 import Int8Linear

    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("tokens x inputs x outputs    float32 ms   ours ms    lost   torch ms    lost")
    for tokens, inputs, outputs in SHAPES:
        linear, x = torch.nn.Linear(inputs, outputs, bias=False), torch.randn(tokens, inputs)
        dynamic = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear})
        with torch.inference_mode():
            exact, ours = linear(x), Int8Linear(linear)
            lost = [float((way(x) - exact).norm() / exact.norm()) for way in (ours, dynamic)]
            took = [milliseconds(way, x) for way in (linear, ours, dynamic)]
        shape = f"{tokens} x {inputs} x {outputs}"
        print(f"{shape:28}{took[0]:11.2f} {took[1]:9.2f} {lost[0]:7.2%} {took[2]:10.2f} {lost[1]:7.2%}", flush=True)


def milliseconds(layer: Callable[[Any], Any], x: Any) -> float:
    times = []
    for _ in range(20):
        started = time.process_time()
        layer(x)
        times.append(time.process_time() - started)
    return 1000 * min(times)


def answers(model: str, posts: list[str]) -> None:
    from emollm.prompts import questions_for
    from emollm.scoring.scorer import open_scorer
    from emollm.tasks import select_tasks

    given = {}
    for precision in ("float32", "int8"):
        scorer = open_scorer(model, precision=precision)
        tasks = select_tasks(["profile"], scorer.card.tasks)
        questions = [question for post in posts for question in questions_for(post, tasks)]
        started = time.process_time()
        given[precision] = scorer.score(questions)
        print(f"\n{precision}: {len(posts) / (time.process_time() - started):.1f} posts a CPU second", end="")
    moved: dict[str, list[float]] = defaultdict(list)
    for question, exact, rounded in zip(questions, given["float32"], given["int8"], strict=True):
        if exact.unit is not None and rounded.unit is not None:
            moved[f"{question.task.name} moved by"].append(abs(exact.unit - rounded.unit))
        else:
            moved[f"{question.task.name} unchanged"].append(float(exact.value == rounded.value))
    print(f"\n{len(posts)} posts:")
    for what, each in moved.items():
        print(f"  {what:18} {statistics.mean(each):.3f}")


if __name__ == "__main__":
    main()
