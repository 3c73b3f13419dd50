"""The whole road on this machine, in minutes: emollm quickstart"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from emollm.core.bases import BASE_PREFIX, DEFAULT_BASE
from emollm.core.options import ClusterConfig, Config, read_config

# One question each a post. With the eight questions about intensities beside them, minutes would teach neither.
TASKS = ("V-reg", "E-c")


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
    train_rows: int = Field(800, ge=16)
    """Rows to train on; 800 take about three and a half minutes on two cores."""
    eval_rows: int = Field(80, ge=2)
    """Held-out posts to evaluate on."""
    max_posts: int = Field(60, ge=1)
    """Posts to annotate."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""


def main(argv: Sequence[str]) -> None:
    config = read_config(QuickstartConfig, argv, prog="quickstart")

    from emollm.annotation.pipeline import AnnotateConfig, annotate_corpus
    from emollm.core.progress import console, progress_bar
    from emollm.data.aaid import SAMPLES, AaidConfig, build_aaid
    from emollm.evaluation.options import EvaluateConfig
    from emollm.evaluation.run import evaluate
    from emollm.models.load import locate_base
    from emollm.runtime.session import ray_session
    from emollm.training.options import TrainConfig
    from emollm.training.ray_train import fit

    data, model, annotated = config.out / "data", config.out / "model", config.out / "annotated"
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[title] = time.monotonic() - started

    def evaluated(which: str, title: str) -> list[Any]:
        evaluation = EvaluateConfig(
            model=which,
            data=data,
            tasks=TASKS,
            max_rows=config.eval_rows,
            out=config.out / title.replace(" ", "-"),
            overwrite=True,
            cluster=config.cluster,
        )
        with step(title), progress_bar(title, None, "questions") as advance:
            return evaluate(evaluation, on_rows=lambda new, total: advance(new, total=total)).main

    with step("base model"), console.status(f"getting {config.base} ready"):
        locate_base(config.base)
    with step("data"), console.status("building instructions"):
        build_aaid(AaidConfig(semeval=config.semeval or SAMPLES / "semeval2018", out=data, overwrite=True))
    with contextlib.ExitStack() as stack:
        console.print("starting Ray ...")
        with step("Ray"):
            stack.enter_context(ray_session(config.cluster))
        untrained = f"{BASE_PREFIX}{config.base}" if Path(config.base).is_dir() else config.base
        before = evaluated(untrained, "evaluate base")
        training = TrainConfig(
            data=data,
            out=model,
            base=config.base,
            tasks=TASKS,
            # One wording, the one that is asked later: with so few rows, ten would teach less.
            num_wordings=1,
            max_rows=config.train_rows,
            global_batch_size=8 * config.cluster.num_workers,
            evaluations=0,  # the next step is one
            overwrite=True,
            cluster=config.cluster,
        )
        with step("fine-tune"), progress_bar("fine-tune", None, "steps") as advance:

            def on_step(report: Any) -> None:
                note = f"loss {report.loss:.2f}  {report.rows / report.seconds:.1f} rows/s"
                advance(1, note=note, total=report.num_steps)

            fit(training, on_step=on_step)
        after = evaluated(str(model), "evaluate tuned")
        annotation = AnnotateConfig(
            model=str(model),
            input=config.posts or SAMPLES / "posts.jsonl",
            out=annotated,
            tasks=TASKS,
            max_posts=config.max_posts,
            overwrite=True,
            cluster=config.cluster,
        )
        with step("annotate"), progress_bar("annotate", None, "posts") as advance:
            annotate_corpus(annotation, on_progress=lambda p: advance(p.new, total=p.total, note=p.note))
    _show(config, before, after, seconds)


def _show(config: QuickstartConfig, before: list[Any], after: list[Any], seconds: dict[str, float]) -> None:
    import pyarrow.parquet as pq
    from rich.console import Console

    from emollm.annotation.report import posts_table
    from emollm.evaluation.report.terminal import results_table

    console = Console(highlight=False, record=True, width=100)
    console.print()
    console.print(results_table({"base": before, "fine-tuned": after}, title="Held-out posts, before and after"))
    console.print(posts_table(pq.read_table(config.out / "annotated").slice(0, 10), title="Annotated posts"))
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    console.print(f"[dim]{took}[/dim]\n\nEverything is in [bold]{config.out}[/bold]. Next:")
    console.print(f"  make serve MODEL={config.out}/model                  ask it over HTTP: 127.0.0.1:8000/docs")
    console.print("  make annotate INPUT=posts.jsonl OUT=runs/mine        your posts, by the model in the box")
    console.print("  make train OUT=runs/better ARGS='--num-wordings 1'   all tasks, all 3,222 rows")
    # rich would have the picture fetch its font from a server.
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make quickstart"), flags=re.DOTALL)
    (config.out / "summary.svg").write_text(picture, encoding="utf-8")
