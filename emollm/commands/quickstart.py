"""All steps on this machine, in minutes: emollm quickstart"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from emollm.core.bases import BASE_PREFIX, DEFAULT_BASE, DEFAULT_MODEL
from emollm.core.options import ClusterConfig, Config, ModelRef, need, read_config

if TYPE_CHECKING:
    import pyarrow as pa

TASKS = ("V-reg", "EI-reg", "E-c")
_LAYERS = (14, 22)
"""Layers of SmolLM2's 30. The layers above are not computed, which saves a quarter of the time."""
_ADAPTED_FROM = 15
"""Only layers above the first feature layer get adapters, so the backward pass takes a third of the time."""
_SHOWN = 12


class QuickstartConfig(Config):
    """Build data, fine-tune, evaluate before and after, annotate: on the bundled samples, in a few minutes."""

    out: Path = Path("runs/quickstart")
    """Folder for all outputs: data, model, evaluations, annotated posts."""
    base: ModelRef = DEFAULT_BASE
    """Base model to fine-tune."""
    semeval: Path | None = None
    """Folder of SemEval-2018 files. None: the bundled samples."""
    posts: Path | None = None
    """Posts to annotate. None: the bundled samples."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training texts."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of the adapters. It is small, since the heads start with their best fit to the base model."""
    base_rows: int = Field(20, ge=2)
    """Questions per task and emotion for the base model, which is slow; the other models answer all questions."""
    max_rows: int | None = Field(None, ge=16)
    """Use at most the first N rows of training data and of held-out questions. None: all."""
    max_posts: int = Field(220, ge=1)
    """Posts to annotate."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers, their CPUs and GPUs."""


class _Steps:
    """How long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - started

    def told(self) -> str:
        whole = sum(self.seconds.values())
        return ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items()) + f"; {whole / 60:.1f} min"


def main(argv: Sequence[str]) -> None:
    config = read_config(QuickstartConfig, argv, prog="quickstart")
    need("deepspeed")

    from emollm.core.progress import console
    from emollm.data.aaid import SAMPLES, AaidConfig, build_aaid
    from emollm.models.load import locate_base
    from emollm.runtime.session import ray_session

    step, data, model = _Steps(), config.out / "data", config.out / "model"
    with step("base model"), console.status(f"preparing {config.base}"):
        locate_base(config.base)
    with step("data"), console.status("building instructions"):
        build_aaid(AaidConfig(semeval=config.semeval or SAMPLES / "semeval2018", out=data, overwrite=True))
    with contextlib.ExitStack() as stack:
        console.print("starting Ray ...")
        with step("Ray"):
            stack.enter_context(ray_session(config.cluster))
        untrained = f"{BASE_PREFIX}{config.base}" if Path(config.base).is_dir() else config.base
        results = {"base model": _evaluate(config, step, untrained, "base", max_rows=config.base_rows)}
        _fine_tune(config, step)
        results["fine-tuned"] = _evaluate(config, step, str(model), "tuned", max_rows=config.max_rows)
        results["bundled default"] = _evaluate(config, step, DEFAULT_MODEL, "default", max_rows=config.max_rows)
        _annotate(config, step)
    _show(config, results, step)


def _evaluate(config: QuickstartConfig, step: _Steps, model: str, name: str, *, max_rows: int | None) -> list[Any]:
    from emollm.core.progress import progress_bar
    from emollm.evaluation.options import EvaluateConfig
    from emollm.evaluation.run import evaluate

    asked = EvaluateConfig(
        model=model,
        data=config.out / "data",
        tasks=TASKS,
        max_rows=max_rows,
        out=config.out / f"evaluate-{name}",
        overwrite=True,
        cluster=config.cluster,
    )
    with step(f"evaluate {name}"), progress_bar(f"evaluate {name}", None, "questions") as advance:
        return evaluate(asked, on_rows=lambda new, total: advance(new, total=total)).main


def _fine_tune(config: QuickstartConfig, step: _Steps) -> None:
    from emollm.training.options import HeadOptions, TrainConfig
    from emollm.training.ray_train import fit
    from emollm.training.report import training_bar

    training = TrainConfig(
        data=config.out / "data",
        out=config.out / "model",
        base=config.base,
        tasks=TASKS,
        objective="heads",
        heads=HeadOptions(layers=_LAYERS if config.base == DEFAULT_BASE else None),
        lora_rank=8,
        lora_alpha=16,
        lora_first_layer=_ADAPTED_FROM if config.base == DEFAULT_BASE else 1,
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        num_wordings=1,
        max_rows=config.max_rows,
        global_batch_size=8 * config.cluster.num_workers,
        num_evaluations=0,  # the held-out posts select nothing
        overwrite=True,
        cluster=config.cluster,
    )
    with step("fine-tune"), training_bar() as receive:
        fit(training, on_step=receive.step, on_note=receive.note)


def _annotate(config: QuickstartConfig, step: _Steps) -> None:
    from emollm.annotation.options import AnnotateConfig
    from emollm.annotation.pipeline import annotate_corpus
    from emollm.core.progress import progress_bar
    from emollm.data.aaid import SAMPLES

    annotation = AnnotateConfig(
        model=str(config.out / "model"),
        input=str(config.posts or SAMPLES / "posts.jsonl"),
        out=str(config.out / "annotated"),
        tasks=TASKS,
        max_posts=config.max_posts,
        overwrite=True,
        cluster=config.cluster,
    )
    with step("annotate"), progress_bar("annotate", None, "posts") as advance:
        annotate_corpus(annotation, on_progress=lambda p: advance(p.new, total=p.total, note=p.note))


def _show(config: QuickstartConfig, results: Mapping[str, Sequence[Any]], step: _Steps) -> None:
    import pyarrow.parquet as pq
    from rich.console import Console

    from emollm.annotation.report import posts_table

    console = Console(highlight=False, record=True, width=100)
    console.print()
    console.print(_scores(results))
    console.print(f"[dim]base model: not fine-tuned, prompted, the first {config.base_rows} questions of each[/dim]\n")
    shown = _spread(pq.read_table(config.out / "annotated"))
    console.print(posts_table(shown, title="Unlabelled posts, annotated by the fine-tuned model"))
    console.print(f"[dim]{step.told()}[/dim]\n")
    console.print("The same with your own labels, a CSV with a text column, is two commands (docs/data.md):")
    console.print("  emollm build-data own --data mine.toml --out data/mine")
    console.print("  emollm train --data data/mine --out models/mine --objective heads")
    console.print(f"The report: {config.out}/evaluate-tuned/report.html", soft_wrap=True)
    console.print(f"Over HTTP, with a page: emollm serve --model {config.out}/model")
    # rich would make the picture load its font from a server.
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="emollm quickstart"), flags=re.DOTALL)
    (config.out / "summary.svg").write_text(picture, encoding="utf-8")


def _scores(results: Mapping[str, Sequence[Any]]) -> Any:
    """The headline metric of each task, one column per model."""
    from rich.table import Table

    from emollm.evaluation.report.terminal import format_score

    table = Table(title="Held-out posts, before and after", title_justify="left")
    for name in ("task", "metric", "questions", *results):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for task in TASKS:
        found = {name: next((r for r in mine if r.task == task), None) for name, mine in results.items()}
        tuned = found["fine-tuned"]
        if tuned is None:
            continue
        metric = next(iter(tuned.scores))
        cells = ["" if r is None else format_score(r.scores[metric]) for r in found.values()]
        cells[1] = f"[bold]{cells[1]}[/bold]"
        table.add_row(task, metric, f"{tuned.rows:,}", *cells)
    return table


def _spread(posts: pa.Table) -> pa.Table:
    """Posts over the whole range of valence: both ends, and the most confident post of each equal part in between."""
    import numpy as np

    good = posts.filter(posts["error"].is_null())
    order = np.argsort(good["v_reg"].to_numpy())[::-1]
    sure = good["e_c_confidence"].to_numpy()
    between = [part for part in np.array_split(order[1:-1], max(1, _SHOWN - 2)) if len(part)]
    chosen = [order[0], *(part[np.argmax(sure[part])] for part in between), order[-1]]
    return good.take([int(row) for row in dict.fromkeys(chosen)])
