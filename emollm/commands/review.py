"""Pick posts for human review, and merge the labels: emollm review pick posts.affect.parquet --out review.csv"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.errors import ConfigError
from emollm.core.options import Config, Location, ModelRef, read_config, split_command
from emollm.review.pick import By


class PickConfig(Config):
    """Select annotated posts for human review, and write them as a file to be filled in."""

    posts: Location
    """Annotated posts: a file of `emollm annotate`, or a folder; the option's name may be left out."""
    out: Path
    """Review file to write: .parquet, .csv or .jsonl."""
    rows: int = Field(200, ge=1)
    """Largest number of posts."""
    by: By = "mixed"
    """Selection criterion. uncertain: low confidence. atypical: unusual combinations of answers. disagreement:
    large distance to --against. mixed: the first of each in turn. random: a random sample, for measurements."""
    against: tuple[Location, ...] = ()
    """Other annotations of the same posts, by another model, engine or tool, comma-separated."""
    model: ModelRef = DEFAULT_MODEL
    """The model whose tasks the columns belong to, beside emollm's own."""
    text_column: str = "text"
    """Column with the text of the posts."""
    seed: int = 0
    """Seed of --by random."""
    overwrite: bool = False
    """Replace an existing file."""


class MergeConfig(Config):
    """Turn filled-in review files into own data: a folder with labels.csv and labels.toml for `build-data own`."""

    files: tuple[Path, ...] = Field(min_length=1)
    """Review files with labels in the columns of the questions, comma-separated; the option's name may be left out."""
    out: Path
    """Folder to write."""
    model: ModelRef = DEFAULT_MODEL
    """The model whose tasks the columns belong to, beside emollm's own."""
    overwrite: bool = False
    """Replace an existing folder."""


def main(argv: Sequence[str]) -> None:
    command, rest = split_command(argv, prog="review", commands={"pick": PickConfig, "merge": MergeConfig})
    if command == "pick":
        _pick(read_config(PickConfig, rest, prog="review pick", bare=("posts", "out")))
    else:
        _merge(read_config(MergeConfig, rest, prog="review merge", bare=("files", "out")))


def _pick(config: PickConfig) -> None:
    from emollm.review.annotated import known_tasks, read_annotated
    from emollm.review.pick import pick
    from emollm.review.sheet import write_review

    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"{config.out} exists; pass --overwrite to replace it, or name another --out")
    tasks = known_tasks(config.model)
    first, *others = (
        read_annotated(where, tasks, text_column=config.text_column) for where in (config.posts, *config.against)
    )
    picked = pick(first, config.rows, by=config.by, others=others, seed=config.seed)
    write_review(first, picked, config.out)
    reasons = {why: sum(one.why == why for one in picked) for why in dict.fromkeys(one.why for one in picked)}
    told = ", ".join(f"{count:,} {why}" for why, count in reasons.items())
    print(f"{config.out}: {len(picked):,} of {len(first.ids):,} posts ({told})")
    print(f"fill in the columns of the questions, then: emollm review merge {config.out} --out labels")


def _merge(config: MergeConfig) -> None:
    from emollm.review.annotated import known_tasks
    from emollm.review.sheet import TOML_FILE, merge_reviews

    counts = merge_reviews(config.files, known_tasks(config.model), config.out, overwrite=config.overwrite)
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"{config.out}: labels of {told}")
    print(f"train with them: emollm build-data own --data {config.out / TOML_FILE} --also EARLIER_DATA --out data/next")
