"""All that is to be known of one GPU in ten minutes: python benchmarks/gpu.py --data DIR --posts FILE --out FOLDER

Steps in the order of their worth, each a process of its own with its own limit. After each a line of JSON is appended
to OUT/results.jsonl; the same command goes on with the first step that has none. `--tiny` runs every step to its end on
a CPU, with longer limits and with models and inputs that measure nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--posts", type=Path, help="posts to annotate; default: the bundled samples")
    parser.add_argument("--data", type=Path, help="training folder; without it nothing is trained")
    parser.add_argument("--base", default="smollm2-135m-instruct", help="the small base, and whose tokenizer is used")
    parser.add_argument("--model", default="smollm2-135m-heads", help="model with heads")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--limit-s", type=float, default=600, help="of all steps together")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", choices=list(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(STEPS[args.one][1](args)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    done = {json.loads(line)["step"] for line in results.read_text().splitlines()} if results.exists() else set()
    give_up = time.monotonic() + args.limit_s
    for step in args.steps:
        if step in done:
            continue
        limit = min(STEPS[step][0] * (5 if args.tiny else 1), give_up - time.monotonic())
        if limit < 5:
            print("no time is left; the same command goes on", file=sys.stderr)
            return
        with results.open("a") as file:
            file.write(json.dumps(run_step(step, limit)) + "\n")


def run_step(step: str, limit_s: float) -> dict[str, Any]:
    """What a step printed last, or why it has nothing."""
    started = time.monotonic()
    found: dict[str, Any] = {"step": step}
    command = [sys.executable, __file__, *sys.argv[1:], "--one", step]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, cwd=ROOT, check=False)
        if ran.returncode:
            found["failed"] = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        else:
            found |= json.loads(ran.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        found["failed"] = f"not done after {limit_s:.0f} s"
    found["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(found), flush=True)
    return found


def peaks(args: argparse.Namespace) -> dict[str, Any]:
    """FLOP/s of a matrix product in each arithmetic, and bytes/s of a copy."""
    import torch

    device, size = _device(), 128 if args.tiny else 8192
    found: dict[str, Any] = {"device": _name(), "torch": torch.__version__}
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        a = torch.randn(size, size, device=device, dtype=dtype)
        found[f"{name}_tflops"] = 2 * size**3 / _best(lambda a=a: a @ a) / 1e12
    a = torch.empty(size * size, device=device)
    found["copy_gb_s"] = 2 * a.nbytes / _best(lambda: a.clone()) / 1e9
    return found


def heads(args: argparse.Namespace) -> dict[str, Any]:
    """A bundled model in process, up to Arrow columns, in each arithmetic; and what that does to the answers."""
    import numpy as np
    import pyarrow as pa

    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.scoring.open import open_scorer
    from emollm.scoring.rows import AnnotatePosts

    texts = _texts(args, 8 if args.tiny else 65_536)
    compared = texts[: 8 if args.tiny else 4096]
    found: dict[str, Any] = {"posts": len(texts)}
    first: dict[str, Any] = {}
    for precision in ("float32",) if args.tiny else ("float32", "tf32", "bf16"):
        scorer: Any = open_scorer(args.model, precision=precision)
        scorer.score(questions_for("A quiet start.", select_tasks(["V-reg"])))
        annotate = AnnotatePosts(
            tasks=("profile",), model=args.model, engine="heads", opener=lambda *_, s=scorer, **__: s
        )
        table = pa.table({"id": [str(n) for n in range(len(texts))], "text": texts})
        found[f"{precision}_posts_s"] = len(texts) / _best(lambda a=annotate, t=table: a(t), repeats=2)
        questions = questions_for("", select_tasks(["profile"]))
        each = scorer.score_posts(compared, questions).each
        answers = {q.column: arrays.value for q, arrays in zip(questions, each, strict=True)}
        first = first or answers
        differ = {
            name: float(np.abs(values - first[name]).mean()) if values.dtype.kind == "f"
            else float((values != first[name]).reshape(len(values), -1).any(axis=1).mean())
            for name, values in answers.items()
        }  # fmt: skip
        found[f"{precision}_differs"] = {name: round(value, 5) for name, value in differ.items()}
    return found


def trunk(args: argparse.Namespace, *, compiled: bool = False) -> dict[str, Any]:
    """Tokens/s of the bundled models' backbones by the tokens of a batch, as they are or with compiled layers."""
    import torch

    from emollm.core.bases import BUNDLED
    from emollm.models.load import load_model
    from emollm.scoring.heads.backbone import Backbone, Batch

    device, length, found = _device(), 32, {}
    for name in BUNDLED:
        loaded = load_model(name, dtype=torch.float32 if device == "cpu" else torch.bfloat16, device=device)
        assert loaded.card.heads is not None
        specs = loaded.card.heads.feature_specs
        backbone = Backbone(loaded.model, loaded.card.base.architecture, depth=loaded.card.heads.depth)
        for block in backbone.blocks if compiled else ():
            block.compile(dynamic=True)
        for tokens in (64,) if args.tiny else (1024, 4096, 16_384, 65_536, 262_144):
            ids = torch.randint(5, 1000, (tokens // length, length), device=device)
            mask, last = torch.ones_like(ids), torch.full((len(ids),), length - 1, device=device)
            batch = Batch(ids, mask, mask, last)
            with torch.inference_mode():
                seconds = _best(lambda b=batch, t=backbone, s=specs: t.features(b, s))
            found[f"{name} {tokens}"] = round(tokens / seconds)
    return found


def job(args: argparse.Namespace) -> dict[str, Any]:
    """A bundled model through jobs/annotate.py, with the share of the time that the GPU was busy."""
    with tempfile.TemporaryDirectory() as folder:
        posts = Path(folder) / "posts.jsonl"
        texts = _texts(args, 16 if args.tiny else 262_144)
        posts.write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n, text in enumerate(texts)))
        command = ["jobs/annotate.py", "--input", str(posts), "--out", f"{folder}/out", "--cluster.num-workers", "1"]
        command += ["--model", args.model]
        busy = _busy(lambda: _python(*command))
        summary = json.loads((Path(folder) / "out" / "_run.json").read_text())["summary"]
        return {"posts_s": summary["posts_per_second"], "actor_seconds": summary["actor_seconds"], "busy": busy}


def exact(args: argparse.Namespace) -> dict[str, Any]:
    """The exact engine on the small base beside the released loop."""
    from emollm.models.load import load_base
    from emollm.models.precision import DTYPES, resolve_precision

    device = _device()
    loaded = load_base(args.base, dtype=DTYPES[resolve_precision("auto", device)], device=device)
    return _beside_released(args, loaded, device, posts=512)


def shape_7b(args: argparse.Namespace) -> dict[str, Any]:
    """The same on a LLaMA of 7B shape with random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    from emollm.core.card import AffectCard, BaseModelInfo
    from emollm.models.load import LoadedModel, locate_base

    tokenizer = AutoTokenizer.from_pretrained(locate_base(args.base))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    device = _device()
    with torch.device(device):
        torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
        model = LlamaForCausalLM(_shape(args, "7b", len(tokenizer))).eval()
    base = BaseModelInfo(name="7b", architecture="decoder", licence="", fingerprint="")
    card = AffectCard(name="7b", base=base)
    return _beside_released(args, LoadedModel(model, tokenizer, card), device, posts=256)


def _beside_released(args: argparse.Namespace, loaded: Any, device: str, *, posts: int) -> dict[str, Any]:
    """posts/s, the memory that was used at most, and the released loop on the first posts of them."""
    import torch

    from benchmarks import scoring
    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.models.device import activation_bytes, default_batch_tokens
    from emollm.scoring.constrained.engine import ConstrainedScorer

    batch_tokens = default_batch_tokens(device, bytes_per_token=activation_bytes(loaded.model))
    scorer = ConstrainedScorer(loaded, device=device, batch_tokens=batch_tokens)
    texts, tasks = _texts(args, 1 if args.tiny else posts), select_tasks(["V-reg"] if args.tiny else ["profile"])
    asked = [question for text in texts for question in questions_for(text, tasks)]
    seconds = _seconds(lambda: scorer.score(asked))
    found = {"posts_s": len(texts) / seconds, "batch_tokens": batch_tokens}
    if device != "cpu":
        found["memory_of_card"] = torch.cuda.max_memory_reserved() / torch.cuda.mem_get_info()[1]
    scoring.NEW_TOKENS = 4 if args.tiny else scoring.NEW_TOKENS
    few = [question for text in texts[:3] for question in questions_for(text, tasks)]
    found["released_posts_s"] = len(texts[:3]) / _seconds(lambda: scoring.released_loop(loaded)(few))
    return found


def training(args: argparse.Namespace) -> dict[str, Any]:
    """LoRA on the small base beside transformers' Trainer."""
    sizes = ["--steps", "6", "--micro-batch", "64"]
    return _trained(args, args.base, [] if args.tiny else sizes, "trainer", "trainer-kept", "emollm")


def training_7b(args: argparse.Namespace) -> dict[str, Any]:
    """The same on a LLaMA of 7B shape with random weights."""
    with _saved_shape(args, "7b") as base:
        sizes = ["--steps", "3", "--batch", "64", "--micro-batch", "16"]
        return _trained(args, base, [] if args.tiny else sizes, "trainer", "emollm")


def zero(args: argparse.Namespace) -> dict[str, Any]:
    """All weights of a LLaMA of 1B shape: ZeRO-2, ZeRO-3, and each with the optimizer's state in host memory."""
    found: dict[str, Any] = {}
    with _saved_shape(args, "1b") as base:
        for stage, offload in [("3", "optimizer")] if args.tiny else [
            ("2", "none"), ("2", "optimizer"), ("3", "none"), ("3", "optimizer"), ("3", "all"),
        ]:  # fmt: skip
            sizes = [] if args.tiny else ["--steps", "3", "--batch", "64", "--micro-batch", "16"]
            options = ["--method", "full", "--zero-stage", stage, "--offload", offload, *sizes]
            found[f"{stage}-{offload}"] = _trained(args, base, options, "emollm")
    return found


def _trained(args: argparse.Namespace, base: str, options: list[str], *ways: str) -> dict[str, Any]:
    if args.data is None:
        return {"skipped": "no --data"}
    sizes = ["--steps", "2", "--batch", "4", "--micro-batch", "2"] if args.tiny else []
    command = ["benchmarks/training.py", "--data", str(args.data), "--base", base, *sizes, *options]
    return {way: json.loads(_python(*command, "--one", way).splitlines()[-1]) for way in ways}


@contextmanager
def _saved_shape(args: argparse.Namespace, shape: str) -> Iterator[str]:
    """A folder with a LLaMA of random weights, and the tokenizer of the small base."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    from emollm.models.load import locate_base

    if args.data is None:
        yield ""
        return
    tokenizer = AutoTokenizer.from_pretrained(locate_base(args.base))
    device = _device()
    with tempfile.TemporaryDirectory() as folder:
        with torch.device(device):
            torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
            LlamaForCausalLM(_shape(args, shape, len(tokenizer))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def _shape(args: argparse.Namespace, shape: str, vocabulary: int) -> Any:
    from transformers import LlamaConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if not args.tiny:
        sizes = {
            "7b": {},
            "1b": {
                "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
            },
        }[shape]  # fmt: skip
    return LlamaConfig(vocab_size=vocabulary, **sizes)


def clients(args: argparse.Namespace) -> dict[str, Any]:
    """The endpoint, asked by 1, 32 and 128 clients at a time."""
    how_many = ["--concurrency", "2", "--requests", "4"] if args.tiny else ["--concurrency", "1", "32", "128"]
    command = ["benchmarks/serving.py", "--model", args.model, "--replicas", "1", "--precision", "auto", *how_many]
    return {"output": _python(*command).splitlines()[1:]}


def endpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Texts per second of the endpoint's scorer in process, for batches of 1, 32 and 128 texts."""
    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.scoring.open import open_scorer

    scorer, tasks = open_scorer(args.model), select_tasks(["profile"])
    found = {}
    for count in (1, 2) if args.tiny else (1, 32, 128):
        asked = [question for text in _texts(args, count) for question in questions_for(text, tasks)]
        found[f"texts_s_{count}"] = count / _best(lambda asked=asked: scorer.score(asked), repeats=3)
    return found


Step = Callable[[argparse.Namespace], dict[str, Any]]
STEPS: dict[str, tuple[float, Step]] = {
    "peaks": (40, peaks),
    "trunk": (60, trunk),
    "trunk-compiled": (90, lambda args: trunk(args, compiled=True)),
    "heads": (90, heads),
    "job": (150, job),
    "heads-default": (60, lambda args: heads(_with_the_default(args))),
    "job-default": (90, lambda args: job(_with_the_default(args))),
    "exact": (60, exact),
    "7b": (120, shape_7b),
    "training": (120, training),
    "training-7b": (150, training_7b),
    "zero": (180, zero),
    "endpoint": (40, endpoint),
    "clients": (120, clients),
}
"""Limit in seconds, and what is done."""


def _with_the_default(args: argparse.Namespace) -> argparse.Namespace:
    from emollm.core.bases import DEFAULT_MODEL

    return argparse.Namespace(**{**vars(args), "model": DEFAULT_MODEL})


def _device() -> str:
    from emollm.models.device import resolve_device

    return resolve_device()


def _name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _best(work: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest run, the device's work included; the first run warms up."""
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    times = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return min(times[1:] or times)


def _seconds(work: Callable[[], Any]) -> float:
    """Of one run, the device's work included."""
    return _best(work, repeats=1)


def _busy(work: Callable[[], Any]) -> float | None:
    """The GPU's utilisation while `work` runs, on average over its seconds; None without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1"]
    try:
        watch = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        work()
        return None
    try:
        work()
    finally:
        watch.terminate()
    used = [int(line) for line in watch.communicate()[0].split() if line.isdigit()]
    return sum(used) / len(used) / 100 if used else None


def _texts(args: argparse.Namespace, count: int) -> list[str]:
    """Posts of the file, from the start again where it has fewer."""
    import itertools

    from benchmarks.host import SAMPLE_POSTS, read_posts

    return list(itertools.islice(itertools.cycle(read_posts(args.posts or SAMPLE_POSTS)), count))


def _python(*command: str) -> str:
    """The output of one of the project's commands; raises with its last line where it fails."""
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    if ran.returncode:
        raise SystemExit((ran.stderr.strip().splitlines() or ["no message"])[-1])
    return ran.stdout


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
