"""Heads on a frozen base model, `--freeze`: features with Ray Data, heads in closed form."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emollm.core.bases import Architecture, anywhere, model_folder
from emollm.core.card import AffectCard, write_card
from emollm.core.errors import ConfigError, EmollmError
from emollm.core.folders import check_new, new_folder, write_run
from emollm.core.heads_card import FeatureSpec, HeadsCard, Piece, Prompt
from emollm.core.options import with_values
from emollm.core.prompts import Layout, Post
from emollm.core.tasks import Task
from emollm.runtime.errors import worker_error
from emollm.runtime.placement import check_resources, with_gpus
from emollm.runtime.pools import map_on_actors, quiet_ray_data, release_actors, reports_to
from emollm.runtime.session import ray_session
from emollm.scoring.heads.derive import derived_heads, with_derived
from emollm.scoring.heads.extract import POOLINGS, PROMPTS, ReadPosts, candidate_layers, column
from emollm.scoring.heads.fit import FittedHeads, fit_heads
from emollm.scoring.heads.labels import LabelledText, folds, read_labels
from emollm.scoring.heads.refit import Quality, Start, refit_heads
from emollm.scoring.heads.ridge import Features
from emollm.scoring.heads.weights import load_bank
from emollm.training.distil import AskTeacher, mean_labels, merged, soft_labels, teacher_tasks
from emollm.training.options import TrainConfig
from emollm.training.rows import training_facts, training_rows, training_tasks
from emollm.training.start import copy_adapter, start_card, with_start

_POSTS_AT_ONCE = {"cpu": 64, "gpu": 8192}
"""In a block, by the kind of the reading actors: the model's own batches are cut from it by tokens."""
Progress = Callable[[int, int], None]


def fit_frozen(
    config: TrainConfig,
    *,
    on_posts: Progress = lambda _new, _total: None,
    ask_teacher: AskTeacher | None = None,
) -> dict[str, Any]:
    """Fit heads and write the model directory; `on_posts` gets (new posts, all posts) as they are read.

    Returns a summary, also in `run.json`. The folder appears complete or not at all.
    """
    check_new(config.out.absolute(), overwrite=config.overwrite)
    config = with_start(config)
    started = time.monotonic()
    with ray_session(config.cluster):
        config = with_values(config, cluster=with_gpus(config.cluster))
        labelled, tasks = labels_of(config, ask_teacher)
        card, candidates = card_and_candidates(config, labelled)
        with new_folder(config.out, overwrite=config.overwrite) as folder:
            with features_of(config, labelled.posts, candidates, on_posts) as features:
                fitted, tasks, compared = _fit_or_refit(config, features, labelled, tasks, candidates)
            card = with_heads(card, fitted, candidates.prompt, tasks, precision=states_precision(config))
            if config.start_from:
                copy_adapter(config, folder)
            write_card(folder, card)
            fitted.head_weights.save(folder)
            summary = {
                "texts": len(labelled.texts),
                "feature_specs": [column(feature_spec) for feature_spec in fitted.feature_specs],
                "held_out": _held_out(fitted),
                "explained": {name: round(value, 4) for name, value in fitted.explained.items()},
                "compared": compared,
                "seconds": round(time.monotonic() - started),
            }
            write_run(folder, job="train", config=config.model_dump(mode="json"), summary=summary)
    return summary


def _fit_or_refit(
    config: TrainConfig, features: Features, labelled: LabelledText, tasks: tuple[Task, ...], candidates: Candidates
) -> tuple[FittedHeads, tuple[Task, ...], dict[str, Quality]]:
    """The heads, the tasks they are of, and how good each was where others stood for choice."""
    start = start_card(config)
    if start is None or start.heads is None:
        return fit_candidates(config, features, labelled, tasks, candidates), tasks, {}
    assert config.start_from is not None
    theirs = Start(load_bank(model_folder(config.start_from), start.heads), start.heads, start.tasks)
    fitted, compared = refit_heads(features, labelled, calibration_tenth(labelled), tasks, theirs, **_fit_on(config))
    names = {task.name for task in tasks}
    return fitted, (*tasks, *(task for task in start.tasks if task.name not in names)), compared


def fit_candidates(
    config: TrainConfig, features: Features, labelled: LabelledText, tasks: tuple[Task, ...], candidates: Candidates
) -> FittedHeads:
    fixed = candidates.feature_specs if candidates.all_used else None
    return fit_heads(features, labelled, tasks, feature_specs=fixed, **_fit_on(config))


def _fit_on(config: TrainConfig) -> dict[str, Any]:
    """On this process's GPU where the job has any, else on as many cores as the job has reserved, if they are here."""
    from emollm.models.device import resolve_device

    cluster = config.cluster
    device = resolve_device() if cluster.gpus else "cpu"
    reserved = int(cluster.num_workers * cluster.cpus_per_worker)
    return {
        "device": None if device == "cpu" else device,
        "num_threads": max(1, min(reserved, os.cpu_count() or 1)),
    }


def states_precision(config: TrainConfig) -> Literal["float32", "bf16"]:
    """The arithmetic in which a frozen base is read: float32 unless bf16 is asked for."""
    return "bf16" if config.precision == "bf16" else "float32"


def calibration_tenth(labelled: LabelledText) -> NDArray[np.bool_]:
    """[N]: the tenth of the texts for the calibration of heads that are trained with their backbone."""
    tenth_N: NDArray[np.bool_] = folds(labelled.texts, parts=10) == 0
    return tenth_N


def _held_out(fitted: FittedHeads) -> dict[str, dict[str, float]]:
    """The cross-validated metrics of each task, averaged over its emotions."""
    per_task: dict[str, list[dict[str, float]]] = {}
    for head in fitted.heads:
        per_task.setdefault(head.task, []).append(head.metrics)
    return {
        task: {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        for task, metrics in per_task.items()
    }


def labels_of(config: TrainConfig, ask_teacher: AskTeacher | None = None) -> tuple[LabelledText, tuple[Task, ...]]:
    """The labels for training: gold labels, those of teachers, or both."""
    golds: LabelledText | None = None
    tasks: tuple[Task, ...] = ()
    if config.data is not None:
        tasks = training_tasks(config)
        golds = read_labels(training_rows(config), tasks)
    if not config.teacher:
        assert golds is not None
        return golds, tasks
    asked = teacher_tasks(config, tasks)
    if ask_teacher is None:
        raise ConfigError("--teacher needs a function that gets its answers: pass ask_teacher, as `emollm train` does")
    soft = mean_labels([soft_labels(ask_teacher(config, who, theirs), theirs) for who, theirs in asked.items()])
    their_tasks = tuple({task.name: task for theirs in asked.values() for task in theirs}.values())
    if golds is None:
        return soft, their_tasks
    known = {task.name for task in tasks}
    return merged(golds, soft), (*tasks, *(task for task in their_tasks if task.name not in known))


class Candidates(NamedTuple):
    """The candidate features of the heads, and the prompt around the post."""

    prompt: Prompt
    feature_specs: tuple[FeatureSpec, ...]
    all_used: bool
    """Whether all of them are read, or the best are chosen by cross-validation."""


def card_and_candidates(config: TrainConfig, labelled: LabelledText) -> tuple[AffectCard, Candidates]:
    """The card of the model to be, without heads yet, and what they may read: of the pieces beside a post those that
    the labelled texts have. Raises ConfigError for a wrong layer.
    """
    from emollm.models.load import describe_base

    base, settings = describe_base(config.base)
    architecture, num_layers = base.architecture, settings.get_text_config().num_hidden_layers
    start = start_card(config)
    card = AffectCard(
        name=config.out.name,
        base=base,
        adapter="lora" if start else "heads",
        layout=Layout(),
        max_post_tokens=config.max_post_tokens,
        training=training_facts(config),
    )
    return card, candidates_of(config, architecture, num_layers, labelled.pieces)


def candidates_of(
    config: TrainConfig, architecture: Architecture, num_layers: int, pieces: tuple[Piece, ...] = ()
) -> Candidates:
    """What heads may read of texts that have `pieces` beside them. Raises ConfigError for a layer that the base does
    not have.
    """
    prompt, start = prompt_of(config, architecture, pieces), start_card(config)
    if start and start.heads:
        return Candidates(prompt, start.heads.feature_specs, True)
    layers = config.heads.layers or candidate_layers(num_layers)
    if wrong := [layer for layer in layers if not 1 <= layer <= num_layers]:
        raise ConfigError(f"--heads.layers {wrong[0]}: {config.base} has layers 1 to {num_layers}")
    poolings = config.heads.poolings or POOLINGS[architecture]
    specs = tuple(FeatureSpec(layer=k, pooling=p) for k in layers for p in poolings)
    return Candidates(prompt, specs, config.heads.use_all_features)


def prompt_of(config: TrainConfig, architecture: Architecture, pieces: tuple[Piece, ...]) -> Prompt:
    """The prompt around a post that has `pieces` beside it."""
    start = start_card(config)
    if start and start.heads:
        # Its adapter was trained for what its heads read.
        return start.heads.prompt
    options, default = config.heads, PROMPTS[architecture]
    return Prompt(
        prefix=default.prefix if options.prefix is None else options.prefix,
        suffix=default.suffix if options.suffix is None else options.suffix,
        emoji=options.emoji,
        beside=pieces,
    )


def with_heads(
    card: AffectCard, fitted: FittedHeads, prompt: Prompt, tasks: tuple[Task, ...], *,
    precision: Literal["float32", "bf16"] = "float32",
) -> AffectCard:  # fmt: skip
    """The card with the fitted heads and the heads derived from them."""
    derived = derived_heads(fitted.heads)
    heads = HeadsCard(
        prompt=prompt,
        feature_specs=fitted.feature_specs,
        heads=(*fitted.heads, *derived),
        precision=precision,
    )
    return card.model_copy(update={"heads": heads, "tasks": with_derived(tasks, derived)})


@contextmanager
def features_of(
    config: TrainConfig, posts: list[Post], candidates: Candidates, on_posts: Progress, *, device: str | None = None
) -> Iterator[dict[FeatureSpec, NDArray[np.float32]]]:
    """[N, D] of each feature_spec, mapped from files next to `out` that are removed at the end of the block.

    Ray's actors read the posts, or with `device` this process does; states are written to files at once, and no
    process holds more than a few batches, so a corpus may be larger than memory.
    """
    pieces = {name: pa.array([getattr(post, name) for post in posts], pa.string()) for name in Post._fields}
    rows = pa.table({"index": pa.array(range(len(posts)), pa.int64()), **pieces})
    # Long posts first and similar lengths together: less padding, and no long batch at the end.
    rows = rows.take(pa.array(sorted(range(len(posts)), key=lambda i: -sum(map(len, posts[i]))), pa.int64()))
    at_once = _at_once(config)
    blocks = [rows.slice(start, at_once) for start in range(0, len(posts), at_once)]
    options: dict[str, Any] = {
        "base": anywhere(config.base), "prompt": candidates.prompt, "feature_specs": candidates.feature_specs,
        "max_post_tokens": config.max_post_tokens, "precision": states_precision(config), "adapted": config.start_from,
    }  # fmt: skip
    config.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{config.out.name}.features-", dir=config.out.absolute().parent
    ) as folder:
        on_posts(0, len(posts))
        if device is None:
            tables = _read_on_actors(config, blocks, options, lambda new: on_posts(new, len(posts)))
        else:
            num_threads = max(1, int(config.cluster.cpus_per_worker))
            tables = map(ReadPosts(**options, device=device, num_threads=num_threads), blocks)
        files: dict[FeatureSpec, Any] = {}
        for table in tables:
            index = table["index"].to_numpy()
            for feature_spec in candidates.feature_specs:
                column_ = table[column(feature_spec)].combine_chunks()
                found = column_.flatten().to_numpy(zero_copy_only=False).reshape(len(index), -1)
                if feature_spec not in files:
                    path = Path(folder) / f"{column(feature_spec)}.npy"
                    shape = (len(posts), found.shape[1])
                    files[feature_spec] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
                files[feature_spec][index] = found
        yield files


def _at_once(config: TrainConfig) -> int:
    return _POSTS_AT_ONCE["gpu" if config.cluster.gpus else "cpu"]


def _read_on_actors(
    config: TrainConfig, blocks: list[pa.Table], options: dict[str, Any], on_new: Callable[[int], None]
) -> Iterator[pa.Table]:
    import ray

    from emollm.models.load import load_base  # noqa: F401  its environment must stand before Ray's workers start

    check_resources(config.cluster, what="reading actors", reads_data=True)
    quiet_ray_data()
    with reports_to(on_new) as queue:
        states = map_on_actors(
            ray.data.from_arrow(blocks), ReadPosts, {**options, "reports": queue}, config.cluster,
            batch_size=_at_once(config),
        )  # fmt: skip
        failure: EmollmError | None = None
        try:
            yield from states.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
        except ray.exceptions.RayError as error:
            failure = worker_error(error, doing="reading posts")
        del states
        release_actors()
        if failure:
            raise failure
