"""The whole road on this machine, in minutes: python jobs/quickstart.py"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from emollm.bases import DEFAULT_BASE
from emollm.config import ClusterConfig, Config, read_config, run_job


class QuickstartConfig(Config):
    """Build data, fine-tune, evaluate before and after, annotate: on samples in the box, in a few minutes."""

    out: Path = Path("runs/quickstart")
    """Folder for everything it makes: data, model, evaluations, annotated posts."""
    base: str = DEFAULT_BASE
    """Base model to fine-tune."""
    semeval: Path | None = None
    """Folder of SemEval-2018 files. None: the samples in the box."""
    posts: Path | None = None
    """Posts to annotate. None: the samples in the box."""
    train_rows: int = Field(768, ge=16)
    """Rows to train on; 768 take about three minutes on two cores."""
    eval_rows: int = Field(16, ge=2)
    """Held-out questions a task and emotion to evaluate on."""
    max_posts: int = Field(32, ge=1)
    """Posts to annotate."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""


def main(argv: Sequence[str]) -> None:
    config = read_config(QuickstartConfig, argv, prog="quickstart")
    run(config)


def run(config: QuickstartConfig) -> None:
    from emollm.annotation.pipeline import AnnotateConfig, annotate_corpus
    from emollm.build import SAMPLES, AaidConfig, build_aaid
    from emollm.evaluation.run import EvaluateConfig, evaluate
    from emollm.models import locate_base
    from emollm.progress import console, progress_bar
    from emollm.ray_session import ray_session
    from emollm.training.config import TrainConfig
    from emollm.training.fit import fit

    data, model, annotated = config.out / "data", config.out / "model", config.out / "annotated"
    times: dict[str, float] = {}

    @contextmanager
    def step(title: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        times[title] = time.monotonic() - started

    def evaluation(which: str, out: str) -> list[Any]:
        with progress_bar(f"evaluate {out}", None, "questions") as advance:
            return evaluate(
                EvaluateConfig(
                    model=which,
                    data=data,
                    tasks=("profile",),
                    max_rows=config.eval_rows,
                    out=config.out / f"evaluation-{out}",
                    overwrite=True,
                    cluster=config.cluster,
                ),
                on_rows=lambda new, total: advance(new, total=total),
            )

    with step("base model"), console.status(f"base model {config.base}"):
        locate_base(config.base)
    with step("data"), console.status("building instructions"):
        semeval = config.semeval or SAMPLES / "semeval2018"
        build_aaid(AaidConfig(semeval=semeval, out=data, overwrite=True))
    with step("Ray"), console.status("starting Ray"):
        session = ray_session(config.cluster)
        session.__enter__()
    try:
        with step("evaluate base"):
            before = evaluation(config.base, "base")
        with step("fine-tune"), progress_bar("fine-tune", None, "steps") as advance:
            fit(
                TrainConfig(
                    data=data,
                    out=model,
                    base=config.base,
                    num_wordings=1,
                    max_rows=config.train_rows,
                    global_batch_size=8 * config.cluster.num_workers,
                    micro_batch_size=4,
                    overwrite=True,
                    cluster=config.cluster,
                ),
                on_step=lambda report: advance(
                    1, note=f"loss {report.loss:.2f}  {report.rows / report.seconds:.1f} rows/s", total=report.num_steps
                ),
            )
        with step("evaluate tuned"):
            after = evaluation(str(model), "tuned")
        with step("annotate"), progress_bar("annotate", None, "posts") as advance:
            annotate_corpus(
                AnnotateConfig(
                    model=str(model),
                    input=config.posts or SAMPLES / "posts.jsonl",
                    out=annotated,
                    tasks=("V-oc", "E-c"),
                    max_posts=config.max_posts,
                    overwrite=True,
                    cluster=config.cluster,
                ),
                on_posts=lambda new, total: advance(new, total=total),
            )
    finally:
        session.__exit__(None, None, None)
    _show(config, before, after, times)


def _show(config: QuickstartConfig, before: list[Any], after: list[Any], times: dict[str, float]) -> None:
    import pyarrow.parquet as pq
    from rich.console import Console
    from rich.table import Table

    from emollm.evaluation.report import results_table

    console = Console(highlight=False)
    console.print()
    console.print(results_table({"base": before, "fine-tuned": after}, title="Held-out sample posts"))
    posts = Table(title="Annotated", title_justify="left", show_lines=False)
    posts.add_column("post", max_width=60, no_wrap=True, overflow="ellipsis")
    posts.add_column("valence -3..3", justify="right")
    posts.add_column("emotions")
    for row in pq.read_table(config.out / "annotated").slice(0, 5).to_pylist():
        emotions = "–" if row["e_c"] is None else ", ".join(row["e_c"]) or "none"
        posts.add_row(row["text"], "–" if row["v_oc"] is None else f"{row['v_oc']:+d}", emotions)
    console.print(posts)
    console.print("[dim]" + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()) + "[/dim]")
    console.print(
        "\nNext:\n"
        f"  make serve                                          the model at http://127.0.0.1:8000/docs\n"
        f"  make annotate INPUT=posts.jsonl OUT=runs/mine       your own posts, all eleven questions\n"
        f"  make train    DATA={config.out}/data OUT=runs/better   longer, on all rows"
    )


if __name__ == "__main__":
    run_job(main)
