"""The tables of docs/scaling.md, by the plan of a training: python -m benchmarks.scaling_table --write docs/scaling.md

Nothing is run. What was measured on GPUs stands in the page's text and in LOG.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from emollm.core.bases import SERIES
from emollm.core.options import ClusterConfig
from emollm.training.options import TrainConfig
from emollm.training.plan import Model, Plan, describe_model, plan_of
from emollm.training.workload import Workload

ROWS = 234_040
"""AAID, one row per wording."""
PROMPT_TOKENS, ANSWER_TOKENS = 97.0, 7.0
"""Mean of 999 AAID rows with SmolLM2's tokenizer, measured; others' differ by some 15%."""
GPUS_PER_MACHINE = 8
LINK = {"EFA": 50e9, "TCP": 6e9}
"""Bytes/s between machines for all GPUs of one together: 400 Gbit/s, and an assumed half of 100 Gbit/s without EFA."""
READ_TOKENS = {"constrained": 208 + 286, "constrained, --no-exact": 208 + 83, "heads": 39}
"""Tokens per post of the full profile, measured with SmolLM2's tokenizer: prompts and answers, or the post alone."""
PEAK_FLOPS_S, UTILISATION = 312e12, 0.4
"""bf16 of an A100, and the share of it that is assumed at best."""


def trainings() -> Iterator[tuple[str, Model, Plan]]:
    """The recipe of each model of the series on 2, 8 and 64 GPUs; with 8 and more nothing is offloaded."""
    work = Workload(
        rows=ROWS,
        lengths_N=np.array([PROMPT_TOKENS + ANSWER_TOKENS]),
        answers_N=np.array([ANSWER_TOKENS]),
        text_lengths_N=np.zeros(1),
        are_counted=True,
    )
    for name in SERIES:
        for gpus in (2, 8, 64):
            options = {"offload": "none"} if gpus > 2 else {}
            config = TrainConfig.model_validate(
                {
                    "data": "aaid",
                    "out": name,
                    "recipe": name,
                    "micro_batch_size": 4 if gpus == 64 else 8,
                    "cluster": ClusterConfig(num_workers=gpus, gpus_per_worker=1, cpus_per_worker=8),
                    **options,
                }
            )
            model = describe_model(config)
            yield name, model, plan_of(config, model, work)


def training_table() -> str:
    head = ["model", "GPUs", "offloaded", "GB per GPU", "GB of the host", "fits", "PFLOP", "arithmetic",
            "traffic by EFA / TCP"]  # fmt: skip
    rows = []
    for name, model, plan in trainings():
        gpus = plan.config.cluster.num_workers
        gib = plan.total_gib
        card = next((f"{size} GB" for size in (40, 80) if gib * 2**30 < 0.9e9 * size), "neither")
        # ZeRO 3 sends each weight twice and each gradient once, 2 bytes each; inside a machine it hardly counts.
        hours = {link: plan.steps * 6 * model.parameters / rate / 3600 for link, rate in LINK.items()}
        exchange = f"{_time(hours['EFA'])} / {_time(hours['TCP'])}" if gpus > GPUS_PER_MACHINE else "-"
        rows.append(
            [
                name if gpus == 2 else "",
                f"{gpus}",
                plan.config.offload,
                f"{gib * 2**30 / 1e9:.0f}",
                f"{plan.host_gib * 2**30 / 1e9:.0f}" if plan.host_gib else "-",
                card,
                f"{plan.flops / 1e15:,.0f}" if gpus == 2 else "",
                _time(plan.hours),
                exchange,
            ]
        )
    return _table(head, rows)


def annotation_table() -> str:
    rows = []
    for base in ("smollm2-135m-instruct", "llama-2-7b"):
        model = describe_model(TrainConfig(data=Path("aaid"), out=Path("o"), base=base))
        for engine, tokens in READ_TOKENS.items():
            flops = 2.0 * model.multiplied * tokens
            if engine != "heads":  # each answer's tokens go through the vocabulary head
                flops += 2.0 * model.vocabulary * model.width * (tokens - 208)
            bound = PEAK_FLOPS_S * UTILISATION / flops
            hours = [_time(posts / bound / 3600) for posts in (1e6, 1e8, 1e10)]
            rows.append([base, engine, f"{tokens}", f"{flops / 1e9:,.0f}", f"{bound:,.0f}", *hours])
    head = ["model", "engine", "tokens", "GFLOP per post", "posts/s at most", "1e6 posts", "1e8", "1e10"]
    return _table(head, rows)


TABLES = {"training": training_table, "annotation": annotation_table}


def filled(page: str) -> str:
    """The page with its tables worked out anew: each stands between `<!-- NAME -->` and `<!-- end -->`."""
    for name, table in TABLES.items():
        place = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, found = re.subn(place, lambda at, of=table: f"{at[1]}{of()}\n{at[2]}", page, flags=re.DOTALL)
        assert found == 1, f"the page has {found} places for the table {name}"
    return page


def _time(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "< 1 min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, help="page whose tables are brought up to date; else they are printed")
    if page := parser.parse_args().write:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(table() for table in TABLES.values()))
