"""Options of an annotation job."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from emollm.core.options import ClusterConfig, Location, TaskRef
from emollm.core.sentences import LongTexts
from emollm.data.files.columns import Reading, reading
from emollm.scoring.columns import OutputColumns
from emollm.scoring.extras import Extras
from emollm.scoring.options import ExtrasConfig
from emollm.scoring.rows import Beside


class AnnotateConfig(ExtrasConfig):
    """Annotate a corpus of posts with affect columns, into Parquet.

    Run the same command again to continue an interrupted job; a finished one is left as it is.
    """

    input: Location
    """Posts: a file, a folder, or a pattern such as 'posts/**/*.parquet'; local, s3:// or gs://. Parquet, JSON (one
    object per line, or an array), CSV, TSV or plain text (one post per line); .gz, .bz2 and .zst are read too."""
    out: Location
    """Output folder, local, s3:// or gs://. On a cluster: a folder that all nodes share."""
    tasks: tuple[TaskRef, ...] = ("profile",)
    """Tasks to answer. `profile`: the five of SemEval-2018, and intensities in any post where the model has them. A
    name that ends in .toml is a file of tasks of your own, which the model need not know: docs/ask.md."""
    id_column: str | None = None
    """Column with the post ids. None: `id` if there is one, else ids are derived from file, row and text. '': derived
    in any case."""
    text_column: str = "text"
    """Column with the text of the posts."""
    context_column: str | None = None
    """Column with what comes before the post: text, or a list of earlier posts, oldest first. It is carried along."""
    target_column: str | None = None
    """Column with the name or aspect that the tasks are asked about. It is carried along."""
    carry: tuple[str, ...] = ()
    """Input columns to copy to the output; '*' is all of them."""
    encoding: str | None = None
    """Encoding of text files, such as windows-1252. None: UTF-8, or UTF-16 and UTF-32 as the file shows."""
    delimiter: str | None = None
    """Delimiter of CSV files, such as ';' or tab; with it .txt files are read as CSV. None: found by the first line."""
    column_names: tuple[str, ...] = ()
    """Names of the columns of CSV files that have no header."""
    max_posts: int | None = Field(None, ge=1)
    """Annotate at most this many posts, from the start. None: all."""
    block_posts: int | None = Field(None, ge=1)
    """Commit size: posts per committed block; a crash loses at most the blocks in flight. None: 256 on CPUs, on
    GPUs 16,384 with heads and 2,048 with other engines; more for millions of posts, fewer if actors would be idle."""
    batch_size: int | None = Field(None, ge=1)
    """Posts per call of an actor, which batches them by tokens. None: as many as take a few seconds."""
    hang_minutes: float = Field(10.0, gt=0)
    """Minutes after which an actor that has not finished --batch-size posts is treated as crashed."""
    file_posts: int = Field(100_000, ge=1)
    """Posts per Parquet file of the output."""
    max_workers: int | None = Field(None, ge=1)
    """Largest number of scoring actors: the pool grows from --cluster.num-workers as resources allow. None: it does not
    grow."""
    max_error_rate: float = Field(0.5, ge=0, le=1)
    """Stop if more than this share of posts has an error, checked after 200 posts."""
    retry_errors: bool = False
    """Score only the posts that have an error in an earlier run's output."""
    long: LongTexts = "cut"
    """How to handle texts beyond the model's limit. cut: truncate and flag them. windows: read the whole text in
    overlapping windows of sentences. sentences: one row per sentence, with ids such as ID#3."""
    max_windows: int | None = Field(None, ge=1)
    """With --long windows: largest number of windows per text; tokens_cut counts the unread tokens. None: all."""
    dry_run: int | None = Field(None, ge=1)
    """Score this many posts, write nothing, and estimate time, GPU-hours and size of the whole job."""
    overwrite: bool = False
    """Replace the output of another annotation job, or of this one if it has finished."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""

    def row_options(self) -> dict[str, Any]:
        """Keyword arguments of `AnnotatePosts` about long texts, context and target."""
        return {"windows": self.long == "windows", "max_windows": self.max_windows, "beside": self.beside}

    def output_columns(self, engine: str, extras: Extras) -> OutputColumns:
        """Which columns the output has."""
        windows, notes = self.long == "windows", any(self.beside)
        return OutputColumns(engine=engine, windows=windows, notes=notes, extras=extras)

    @property
    def reading(self) -> Reading:
        return reading(self.encoding, self.delimiter, self.column_names)

    @property
    def beside(self) -> Beside:
        """The columns with context and target."""
        return Beside(self.context_column, self.target_column)

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        _ = self.reading
        if self.overwrite and self.retry_errors:
            raise ValueError("--overwrite starts over and --retry-errors continues; give one of them")
        if self.max_windows is not None and self.long != "windows":
            raise ValueError(f"--max-windows {self.max_windows} needs --long windows")
        if self.long == "windows" and any(self.beside):
            raise ValueError(
                "--long windows takes a post apart, and --context-column and --target-column are of a whole"
            )
        if self.max_workers is not None and self.max_workers < self.cluster.num_workers:
            raise ValueError(
                f"--max-workers {self.max_workers} is less than --cluster.num-workers {self.cluster.num_workers}"
            )
        return self
