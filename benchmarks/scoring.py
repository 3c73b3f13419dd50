"""How fast and how valid the ways to score posts are: python benchmarks/scoring.py --model DIR [--posts FILE]

Every way runs in a process of its own, one after the other, on the same posts and one thread, with nothing computed
beforehand. Times are CPU seconds of that process, so that a busy machine blurs them less. `peak` is the share of the
matrix-multiply speed that the process measured before and after; padding counts as work done.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SAMPLE_POSTS = Path(__file__).resolve().parents[1] / "emollm" / "data" / "corpora" / "samples" / "posts.jsonl"
NEW_TOKENS = 256
WAYS: dict[str, str] = {
    "released-loop": "batches of 16 in file order, sampled as the released code does, 256 new tokens",
    "pipeline": "transformers' text-generation pipeline, a row at a time, greedy, 256 new tokens",
    "generate": "--engine generate: greedy, batches of one task and like length",
    "constrained": "--engine constrained",
    "constrained-quick": "--engine constrained with SearchOptions(exact=False): answers read as far as they differ",
    "heads": "--engine heads, on --heads-model and ten times the posts: one pass a post for all questions",
    "heads-ray": "the same as the actors of an annotation job do it, through Ray Data: CPU seconds of the actor",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--model", required=True, help="model directory, best a fine-tuned one (see jobs/train.py)")
    parser.add_argument("--heads-model", default="smollm2-135m-heads", help="model directory with heads")
    parser.add_argument("--posts", type=Path, default=SAMPLE_POSTS, help="JSON lines with a field `text`, or .gz of it")
    parser.add_argument(
        "--num-posts", type=int, nargs="+", default=[24],
        help="posts to score, eleven questions each; several numbers: each way with each, to see what grows",
    )  # fmt: skip
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=1, help="runs of each way; medians are printed")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes, by torch's operators")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, *args.num_posts)))
        return
    print(f"{'':20}posts posts/s prompts/s tokens/s  valid   peak   MiB   against the first")
    first = None
    for way, num_posts in itertools.product(args.ways, args.num_posts):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", way, "--num-posts", str(num_posts)]
        runs = [json.loads(subprocess.check_output(command, text=True).splitlines()[-1]) for _ in range(args.repeats)]
        one = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        first = first or one["prompts_s"]
        print(
            f"{way:20}{one['posts']:5.0f} {one['posts_s']:7.2f} {one['prompts_s']:9.1f} {one['tokens_s']:8.0f} "
            f"{one['valid']:6.1%} {one['peak']:6.1%} {one['mib']:5.0f}  {one['prompts_s'] / first:5.1f}x",
            flush=True,
        )
    for way in args.ways:
        print(f"  {way}: {WAYS[way]}")


def measure(args: argparse.Namespace, num_posts: int) -> dict[str, float]:
    """One way, timed from the first prompt to the last answer; the model is loaded before."""
    import torch

    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.models.load import load_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    peaks = [matmul_flops_s(dtype)]
    if args.one.startswith("heads"):
        num_posts *= 10
        args.model = args.heads_model
    if args.one == "heads-ray":
        return through_ray(args, num_posts)
    loaded = load_model(args.model, dtype=dtype)
    tasks = select_tasks(["profile"], loaded.card.tasks)
    questions = [q for post in read_posts(args.posts, num_posts) for q in questions_for(post, tasks)]
    score = SCORERS[args.one](loaded)
    work = count_work(loaded.model)
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) if args.profile else None
    started = time.process_time()
    with profiler or contextlib.nullcontext():
        values = score(questions)
    seconds = time.process_time() - started
    if profiler:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15), file=sys.stderr)
    done = dict(work)
    peaks.append(matmul_flops_s(dtype))
    return {
        "posts": num_posts,
        "posts_s": num_posts / seconds,
        "prompts_s": len(questions) / seconds,
        "tokens_s": done["tokens"] / seconds,
        "valid": sum(value is not None for value in values) / len(values),
        "peak": done["flops"] / seconds / statistics.mean(peaks),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def read_posts(path: Path, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def matmul_flops_s(dtype: Any) -> float:
    """The best of some multiplications in the shapes of a small model."""
    import torch

    a, b = torch.randn(1024, 576, dtype=dtype), torch.nn.Linear(576, 1536, bias=False, dtype=dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(30):
            started = time.process_time()
            b(a)
            best = min(best, time.process_time() - started)
    return 2 * 1024 * 576 * 1536 / best


def count_work(model: Any) -> dict[str, float]:
    """Tokens read and multiplications of linear layers done from now on, padding included."""
    import torch

    work = {"tokens": 0.0, "flops": 0.0}

    def linear(module: Any, inputs: Any, _: Any) -> None:
        work["flops"] += 2 * inputs[0].numel() * module.out_features

    def embedding(_: Any, inputs: Any, __: Any) -> None:
        work["tokens"] += inputs[0].numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(linear)
    model.get_input_embeddings().register_forward_hook(embedding)
    return work


Score = Callable[[Sequence[Any]], list[Any]]


def released_loop(loaded: Any) -> Score:
    """The loop that the published results were made with."""
    import torch

    from emollm.core.answers import parse_answer
    from emollm.core.prompts import render
    from emollm.models.load import prompt_encoder

    encoder = prompt_encoder(loaded)

    @torch.inference_mode()
    def score(questions: Sequence[Any]) -> list[Any]:
        values = []
        for start in range(0, len(questions), 16):
            batch = questions[start : start + 16]
            prompts = [encoder.prompt(render(q)).ids for q in batch]
            longest = max(map(len, prompts))
            ids = torch.tensor([[loaded.tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
            device = loaded.model.device
            out = loaded.model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=NEW_TOKENS, do_sample=True,
                temperature=0.9, top_k=30, top_p=0.6, repetition_penalty=1.2,
                pad_token_id=loaded.tokenizer.pad_token_id, eos_token_id=loaded.tokenizer.eos_token_id,
            )  # fmt: skip
            texts = [encoder.decode(row) for row in out[:, longest:].tolist()]
            values += [parse_answer(q.task, text) for q, text in zip(batch, texts, strict=True)]
        return values

    return score


def pipeline(loaded: Any) -> Score:
    """What most people write."""
    from transformers import pipeline as make_pipeline

    from emollm.core.answers import parse_answer
    from emollm.core.prompts import lay_out, render

    generator = make_pipeline("text-generation", model=loaded.model, tokenizer=loaded.tokenizer)

    def score(questions: Sequence[Any]) -> list[Any]:
        values = []
        for question in questions:
            prompt = lay_out(render(question), loaded.card.layout).text
            out = generator(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, return_full_text=False)
            values.append(parse_answer(question.task, out[0]["generated_text"]))
        return values

    return score


def generate(loaded: Any) -> Score:
    from emollm.scoring.generate import GenerateScorer

    scorer = GenerateScorer(loaded)
    return lambda questions: [answer.value for answer in scorer.score(questions)]


def constrained(loaded: Any, *, exact: bool = True) -> Score:
    from emollm.scoring.constrained.engine import ConstrainedScorer
    from emollm.scoring.constrained.search import SearchOptions

    scorer = ConstrainedScorer(loaded, options=SearchOptions(exact=exact))
    return lambda questions: [answer.value for answer in scorer.score(questions)]


def heads(loaded: Any) -> Score:
    from emollm.scoring.heads.engine import HeadsScorer

    scorer = HeadsScorer(loaded)
    return lambda questions: [answer.value for answer in scorer.score(questions)]


def through_ray(args: argparse.Namespace, num_posts: int) -> dict[str, float]:
    """As `measure`, through Ray Data with one actor: its CPU seconds from its first batch's end to its last."""
    import pyarrow as pa
    import ray

    from emollm.core.options import ClusterConfig
    from emollm.runtime.pools import map_on_actors, quiet_ray_data
    from emollm.runtime.session import ray_session

    cluster, size = ClusterConfig(num_workers=1), 64
    texts = read_posts(args.posts, num_posts + size)
    with ray_session(cluster):
        quiet_ray_data()
        rows = pa.table({"id": [str(i) for i in range(len(texts))], "text": texts})
        blocks = ray.data.from_arrow([rows.slice(i, size) for i in range(0, len(texts), size)])
        options = {"model": args.model, "engine": "heads", "tasks": ("EI-reg", "EI-oc", "V-reg", "V-oc", "E-c")}
        table = pa.concat_tables(
            ray.get(map_on_actors(blocks, TimedPosts, options, cluster, batch_size=size).to_arrow_refs())
        )
    seconds, posts = table["seconds"].to_pylist(), table["posts"].to_pylist()
    # The first batch loads the model.
    first = min(range(len(seconds)), key=lambda i: seconds[i])
    took, done = max(seconds) - seconds[first], sum(posts) - posts[first]
    nothing = float("nan")
    return {
        "posts": done, "posts_s": done / took, "prompts_s": 11 * done / took, "tokens_s": nothing, "valid": 1.0,
        "peak": nothing, "mib": nothing,
    }  # fmt: skip


class TimedPosts:
    """The annotating actor, which tells its CPU time at the end of each batch."""

    def __init__(self, **options: Any) -> None:
        from emollm.scoring.rows import AnnotatePosts

        self._annotate = AnnotatePosts(**options)

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        self._annotate(table)
        return pa.table({"seconds": [time.process_time()], "posts": [table.num_rows]})


SCORERS: dict[str, Callable[[Any], Score]] = {
    "released-loop": released_loop,
    "pipeline": pipeline,
    "generate": generate,
    "constrained": constrained,
    "constrained-quick": lambda loaded: constrained(loaded, exact=False),
    "heads": heads,
}

if __name__ == "__main__":
    main()
