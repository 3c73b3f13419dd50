"""Several annotators of one corpus: emollm merge a.parquet,b.parquet,vader --out merged.parquet"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.errors import ConfigError
from emollm.core.options import Config, ModelRef, read_config
from emollm.review.combine import SetRule

if TYPE_CHECKING:
    from emollm.review.annotated import Annotated
    from emollm.review.combine import Agreed

TOOLS = ("vader", "textblob")


class MergeConfig(Config):
    """Merge annotations of one corpus: their agreement, one answer per question, and posts to review."""

    files: tuple[str, ...] = Field(min_length=2)
    """Annotated posts with `id`, of models or people, comma-separated; `vader` and `textblob` annotate the posts of the
    first file with valence. Files may be given without the option's name, one after the other."""
    out: Path
    """File to write: .parquet, .csv or .jsonl. The agreement is written next to it, as .agreement.json."""
    sets: SetRule = "vote"
    """Labels of a merged set. vote: those with more than half of the weight. union: of any annotator. intersection: of
    all."""
    gold: str | None = None
    """File of posts with known labels, with `id` and the same columns: annotators are weighted by their distance from
    it. None: equal weights."""
    review: Path | None = None
    """Also write the posts on which they disagree most, as `emollm review pick` does."""
    review_rows: int = Field(200, ge=1)
    """Largest number of posts for --review."""
    model: ModelRef = DEFAULT_MODEL
    """The model whose tasks the columns belong to, in addition to emollm's own."""
    text_column: str = "text"
    """Column with the text of the posts."""
    overwrite: bool = False
    """Replace existing files."""


def main(argv: Sequence[str]) -> None:
    config = read_config(MergeConfig, _joined(argv), prog="merge")

    from emollm.commands.in_process import FORMATS, write_table
    from emollm.core.folders import write_json
    from emollm.core.progress import table_console
    from emollm.review.annotated import known_tasks, read_annotated
    from emollm.review.combine import align, combine, compare
    from emollm.review.pick import pick
    from emollm.review.sheet import write_review

    file_format = config.out.suffix.removeprefix(".")
    if file_format not in FORMATS:
        raise ConfigError(f"--out {config.out}: end it in .parquet, .csv or .jsonl")
    beside = config.out.with_suffix(".agreement.json")
    for path in filter(None, (config.out, beside, config.review)):
        if path.exists() and not config.overwrite:
            raise ConfigError(f"{path} exists; pass --overwrite to replace it, or name another")
    tasks = known_tasks(config.model)
    files = [name for name in config.files if name not in TOOLS]
    if not files:
        raise ConfigError("name a file of annotated posts first; vader and textblob have no posts of their own")
    people = [read_annotated(name, tasks, text_column=config.text_column) for name in files]
    people += [_tool(name, people[0]) for name in config.files if name in TOOLS]
    gold = read_annotated(config.gold, tasks, text_column=config.text_column) if config.gold else None
    aligned = align(people)
    agreed = compare(aligned, gold)
    write_table(iter([combine(aligned, agreed, sets=config.sets)]), config.out, file_format)
    write_json(beside, [_as_json(one) for one in agreed])
    if config.review:
        picked = pick(people[0], config.review_rows, by="disagreement", others=people[1:])
        write_review(people[0], picked, config.review)
    table_console().print(agreement_table(agreed))
    print(f"{config.out}: {len(aligned.ids):,} posts of {len(people)} annotators; the agreement: {beside}")


def _joined(argv: Sequence[str]) -> list[str]:
    """Values before the first option are the files."""
    words = list(argv)
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return [f"--files={','.join(words[:count])}", *words[count:]] if count else words


def _tool(name: str, posts: Annotated) -> Annotated:
    """A sentiment tool as an annotator of valence."""
    from emollm.commands.report import lexicons
    from emollm.core.prompts import column_name
    from emollm.evaluation.baselines.polarity import VALENCE, valence_value
    from emollm.review.annotated import Annotated

    polarity = lexicons((name,))[name]
    questions = [q for q in posts.questions if q.task.name in VALENCE]
    if not questions:
        raise ConfigError(f"{name} scores only valence, and the posts have no such column, for example v_reg")
    scores = [polarity(text) for text in posts.texts]
    values = {column_name(q): [valence_value(q.task, score) for score in scores] for q in questions}
    return Annotated(name, posts.ids, posts.texts, questions, values)  # type: ignore[arg-type]


def agreement_table(agreed: Sequence[Agreed]) -> Any:
    """One row per question and pair of annotators."""
    from rich.table import Table

    table = Table(title="Agreement of the annotators", title_justify="left")
    for name in ("question", "alpha", "annotators", "measure", "agreement", "posts"):
        table.add_column(name, justify="right" if name in ("alpha", "agreement", "posts") else "left")
    for one in agreed:
        for i, ((a, b), (found, posts)) in enumerate(one.pairs.items()):
            first = (one.column, f"{one.alpha:.3f}") if i == 0 else ("", "")
            table.add_row(*first, f"{a} ~ {b}", one.measure, f"{found:.3f}", f"{posts:,}")
    return table


def _as_json(one: Agreed) -> dict[str, Any]:
    import math

    def clean(number: float) -> float | None:
        return None if math.isnan(number) else number

    return {
        "column": one.column, "alpha": clean(one.alpha), "measure": one.measure, "weights": one.weights,
        "pairs": [{"annotators": list(pair), "agreement": clean(found), "posts": posts}
                  for pair, (found, posts) in one.pairs.items()],
    }  # fmt: skip
