"""The same posts through vLLM on the CPU, to compare with benchmarks/scoring.py. Two steps, for vLLM needs an
environment of its own (docs/scoring.md has the commands):

    python benchmarks/scoring_vllm.py export --model DIR --to DIR [--posts FILE] [--num-posts 24]
    VLLM_PYTHON benchmarks/scoring_vllm.py run --from DIR [--dtype float32] [--ways greedy structured ...]

Each way runs in a process of its own, on one thread, with prompts as token ids; time is CPU time of the process from
the first prompt to the last answer. The first run of a way may compile; it is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAYS = {
    "greedy": (False, False),
    "greedy+prefix": (False, True),
    "structured": (True, False),
    "structured+prefix": (True, True),
}
"""Structured output, prefix cache."""
NEW_TOKENS = 64
"""More than the longest answer: a set of all eleven emotions is 45 tokens."""
DECIMAL = r"0\.\d{1,3}|0|1|1\.0{1,3}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write the merged model, and each prompt with its answers")
    exporting.add_argument("--model", required=True)
    exporting.add_argument("--to", type=Path, required=True)
    exporting.add_argument("--posts", type=Path)
    exporting.add_argument("--num-posts", type=int, default=24)
    running = commands.add_parser("run", help="in vLLM's environment: answer them")
    running.add_argument("--from", dest="folder", type=Path, required=True)
    running.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    running.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    running.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.command == "export":
        export(args)
    elif args.one:
        print(json.dumps(run(args)))
    else:
        print(f"{'':20}posts/s prompts/s  valid  MiB")
        for way in args.ways:
            out = subprocess.check_output([sys.executable, __file__, *sys.argv[1:], "--one", way], text=True)
            one = json.loads(out.splitlines()[-1])
            print(f"{way:20}{one['posts_s']:7.2f} {one['prompts_s']:9.1f} {one['valid']:6.1%} {one['mib']:5.0f}")


def export(args: argparse.Namespace) -> None:
    from scoring import SAMPLE_POSTS, read_posts

    from emollm.models import load_model, prompt_encoder
    from emollm.prompts import questions_for, render
    from emollm.tasks import select_tasks

    loaded = load_model(args.model)
    args.to.mkdir(parents=True)
    loaded.model.save_pretrained(args.to / "model")
    loaded.tokenizer.save_pretrained(args.to / "model")
    encoder = prompt_encoder(loaded)
    tasks = select_tasks(["profile"], loaded.card.tasks)
    posts = read_posts(args.posts or SAMPLE_POSTS, args.num_posts)
    with (args.to / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for question in (q for post in posts for q in questions_for(post, tasks)):
            row = {"ids": encoder.prompt(render(question)).ids, "answers": answers_regex(question)}
            file.write(json.dumps({**row, "end": loaded.tokenizer.eos_token_id, "posts": len(posts)}) + "\n")


def answers_regex(question: Any) -> str:
    """The closed answers of a question as a regular expression."""
    from emollm.answers import answer_string
    from emollm.tasks import Kind

    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return DECIMAL
        case Kind.LABEL_SET:
            labels = "|".join(re.escape(label) for label in task.labels)
            return f"({re.escape(task.no_label)}|({labels})(, ({labels}))*){re.escape(task.answer_end)}"
        case _:
            space = [c.value for c in task.classes] or task.labels
            return "|".join(re.escape(answer_string(task, value, question.emotion)) for value in space)


def run(args: argparse.Namespace) -> dict[str, float]:
    structured, prefix_cache = WAYS[args.one]
    # In this process, so that its CPU time is all the time; on whichever core is free.
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "OMP_NUM_THREADS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    import torch
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    torch.set_num_threads(1)
    rows = [json.loads(line) for line in (args.folder / "prompts.jsonl").open(encoding="utf-8")]
    llm = LLM(
        str(args.folder / "model"),
        dtype=args.dtype,
        max_model_len=1024,
        enable_prefix_caching=prefix_cache,
        block_size=32,  # its default of 128 holds no shared prefix of prompts this short
        max_num_seqs=128,
        disable_log_stats=True,
    )
    sampling = [
        SamplingParams(
            temperature=0,
            max_tokens=NEW_TOKENS,
            stop_token_ids=[row["end"]],
            structured_outputs=StructuredOutputsParams(regex=row["answers"]) if structured else None,
        )
        for row in rows
    ]
    llm.generate([{"prompt_token_ids": [1, 2, 3]}], sampling[:1], use_tqdm=False)
    started = time.process_time()
    outputs = llm.generate([{"prompt_token_ids": row["ids"]} for row in rows], sampling, use_tqdm=False)
    seconds = time.process_time() - started
    valid = [re.fullmatch(row["answers"], out.outputs[0].text.strip()) for row, out in zip(rows, outputs, strict=True)]
    return {
        "posts_s": rows[0]["posts"] / seconds,
        "prompts_s": len(rows) / seconds,
        "valid": sum(found is not None for found in valid) / len(rows),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
