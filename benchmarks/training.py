"""How fast training is, against Hugging Face's Trainer: python benchmarks/training.py --data DIR [--base NAME]

All train the same model on the same rows, each in a process of its own, one after the other. The Trainer is set as
the released code sets it: rows as they come, padded to the longest of a micro-batch, logits at every position,
activations recomputed in the backward pass; and once without the last.

Times are CPU seconds of the process where there is no GPU, so that a busy machine blurs them less; the first step is
left out. `of peak` is the share of the matrix-multiply speed that useful work (no padding, no recomputation) reached:
on a GPU the model FLOPs utilisation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WAYS: dict[str, str] = {
    "trainer": "transformers.Trainer, rows in random order, padded, full logits, gradient checkpointing",
    "trainer-kept": "the same without gradient checkpointing",
    "emollm": "the loop of jobs/train.py: logits where a label is, common beginnings of prompts once",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--data", type=Path, required=True, help="data folder of jobs/build_data.py")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--zero-stage", type=int, choices=(0, 2, 3), default=0, help="of emollm")
    parser.add_argument("--offload", choices=("none", "optimizer", "all"), default="none", help="of emollm")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps, the first of them not timed")
    parser.add_argument("--batch", type=int, default=256, help="rows a step, as published")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows through the model at once")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--count", action="store_true", help="train nothing: count tokens, padded and as trees")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count:
        count(args)
        return
    if args.one:
        print(json.dumps(measure(args)))
        return
    print(f"{'':14}rows/s  tokens/s  of peak    GiB   loss   against the first")
    first = 0.0
    for way in args.ways:
        command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--one", way]
        one = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        first = first or one["rows_s"]
        print(
            f"{way:14}{one['rows_s']:6.2f} {one['tokens_s']:9.0f} {one['of_peak']:8.1%} {one['gib']:6.2f} "
            f"{one['loss']:6.3f} {one['rows_s'] / first:6.1f}x",
            flush=True,
        )
    for way in args.ways:
        print(f"  {way}: {WAYS[way]}")


def count(args: argparse.Namespace) -> None:
    """Tokens that go through the model in three steps of several sizes."""
    from emollm.models.load import load_base, prompt_encoder
    from emollm.training.batches import cut_by_length, cut_by_prompt, steps
    from emollm.training.options import TrainConfig
    from emollm.training.row_tokens import encode_rows
    from emollm.training.rows import training_rows
    from emollm.training.sharing import num_tokens

    config = TrainConfig.model_validate({"data": args.data, "out": "unused", "base": args.base, "max_rows": 4000})
    rows = encode_rows(training_rows(config), prompt_encoder(load_base(args.base)))
    print("rows a step  at once   padded    trees  fewer")
    for size in (32, 64, 128, 256, 512):
        for micro in (8, 16):
            padded = trees = 0
            for batch in steps(rows, global_batch_size=size, num_steps=3, seed=1):
                for part in cut_by_length(batch, micro):
                    padded += len(part) * max(map(len, part))
                trees += sum(num_tokens(part) for part in cut_by_prompt(batch, micro))
            print(f"{size:11} {micro:8} {padded:8} {trees:8} {padded / trees:5.2f}x")


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One way, from the second step on."""
    import torch
    import torch.distributed as dist

    from emollm.models.load import LoadedModel, attach_lora, load_base, prompt_encoder
    from emollm.training.loop import peak_memory_gib
    from emollm.training.options import TrainConfig
    from emollm.training.row_tokens import encode_rows
    from emollm.training.rows import training_rows

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.set_num_threads(1)
    if args.one == "emollm":  # the Trainer would wrap the model for a group of one
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        dist.init_process_group("nccl" if on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    config = TrainConfig.model_validate(
        {
            "data": args.data, "out": "unused", "base": args.base, "method": args.method, "num_evaluations": 0,
            "max_rows": args.steps * args.batch, "global_batch_size": args.batch, "micro_batch_size": args.micro_batch,
            "learning_rate": 1e-4, "precision": "bf16" if on_gpu else "float32",
            "zero_stage": args.zero_stage, "offload": args.offload,
            "gradient_checkpointing": args.one == "trainer",
            "cluster": {"num_workers": 1},
        }
    )  # fmt: skip
    torch.manual_seed(config.seed)
    loaded = load_base(args.base, dtype=torch.bfloat16 if on_gpu else torch.float32, device=device)
    if args.method == "lora":
        model = attach_lora(loaded.model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=0.0)
        loaded = LoadedModel(model, loaded.tokenizer, loaded.card)
    rows = encode_rows(training_rows(config), prompt_encoder(loaded))
    peak = matmul_flops_s(device, torch.bfloat16 if on_gpu else torch.float32)
    clock = _clock(on_gpu)
    run: Callable[..., list[tuple[float, float]]] = with_loop if args.one == "emollm" else with_trainer
    ends = run(loaded, rows, config, clock, device)
    seconds = ends[-1][0] - ends[0][0]
    timed = len(ends) - 1
    tokens_a_row = len(rows.tokens) / len(rows)
    num_rows = timed * args.batch
    multiplied = sum(p.numel() for n, p in loaded.model.named_parameters() if p.dim() == 2 and "embed" not in n)
    flops = (4 + 2 * (args.method == "full")) * multiplied * tokens_a_row * num_rows
    return {
        "rows_s": num_rows / seconds,
        "tokens_s": num_rows * tokens_a_row / seconds,
        "of_peak": flops / seconds / peak,
        "gib": peak_memory_gib(device),
        "loss": sum(loss for _, loss in ends) / len(ends),
    }


def with_loop(loaded: Any, rows: Sequence[Any], config: Any, clock: Callable[[], float], device: str) -> Any:
    from emollm.training.loop import StepReport, train

    ends: list[tuple[float, float]] = []

    def on_step(report: StepReport) -> None:
        ends.append((clock(), report.loss))

    train(loaded, rows, config, rank=0, world_size=1, device=device, on_step=on_step)
    return ends


def with_trainer(loaded: Any, rows: Sequence[Any], config: Any, clock: Callable[[], float], device: str) -> Any:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from emollm.training.batches import collate_decoder

    pad = loaded.tokenizer.pad_token_id
    ends: list[tuple[float, float]] = []

    def collate(batch: list[Any]) -> dict[str, Any]:
        micro = collate_decoder(batch, pad=pad)
        lengths = torch.tensor([[len(row)] for row in batch])
        labels = micro.labels_BT.roll(1, dims=1)  # the Trainer's models shift labels themselves
        labels[:, 0] = -100
        mask = (torch.arange(labels.shape[1]) < lengths).long()
        return {**micro.inputs, "attention_mask": mask, "labels": labels}

    class Ends(TrainerCallback):
        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if logs and "loss" in logs:
                ends.append((clock(), logs["loss"]))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=config.micro_batch_size,
            max_steps=len(rows) // config.global_batch_size, gradient_accumulation_steps=config.accumulation_steps,
            learning_rate=config.learning_rate, bf16=device == "cuda", use_cpu=device == "cpu",
            report_to=[], save_strategy="no", logging_steps=1, remove_unused_columns=False,
            disable_tqdm=True, seed=config.seed, weight_decay=config.weight_decay,
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )  # fmt: skip
        loaded.model.train()
        Trainer(
            model=loaded.model, args=arguments, train_dataset=list(rows), data_collator=collate, callbacks=[Ends()]
        ).train()
    return ends


def matmul_flops_s(device: str, dtype: Any) -> float:
    """Multiply-add FLOP/s of a matrix product of a layer's shape, the best of some."""
    import torch

    size = 4096 if device == "cuda" else 1024
    a, b = torch.randn(size, size, dtype=dtype, device=device), torch.randn(size, size, dtype=dtype, device=device)
    clock, best = _clock(device == "cuda"), 0.0
    for _ in range(8):
        started = clock()
        a @ b
        best = max(best, 2 * size**3 / (clock() - started))
    return best


def _clock(on_gpu: bool) -> Callable[[], float]:
    """Seconds: of the wall, all work done, on a GPU; of this process's CPU elsewhere."""
    if not on_gpu:
        return lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    import torch

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


if __name__ == "__main__":
    main()
