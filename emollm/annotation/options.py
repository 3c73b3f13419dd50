"""Options of an annotation job."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from emollm.core.options import ClusterConfig, Location
from emollm.scoring.options import ScorerConfig


class AnnotateConfig(ScorerConfig):
    """Annotate a corpus of posts with affect columns, into Parquet.

    A job that died is continued by running it again; one that has finished is left alone.
    """

    input: Location
    """Posts: a file, a folder, or a pattern such as 'posts/**/*.parquet'; local, s3:// or gs://. Parquet, JSON lines,
    CSV or plain text (a post a line); .gz is read too."""
    out: Location
    """Folder to write, local, s3:// or gs://. On a cluster: one that all nodes share."""
    tasks: tuple[str, ...] = ("profile",)
    """Tasks to ask; `profile` is all five of SemEval-2018, eleven questions a post."""
    id_column: str | None = None
    """Column with the id of a post. None: `id` where there is one; else ids are made of file, row and text."""
    text_column: str = "text"
    """Column with the post."""
    carry: tuple[str, ...] = ()
    """Other columns to carry into the output; '*' is all of them."""
    max_posts: int | None = Field(None, ge=1)
    """Annotate only the first so many posts. None: all."""
    block_posts: int | None = Field(None, ge=1)
    """Posts kept or lost together when something dies: make it minutes of an actor's work. None: 256 on CPUs, 2,048
    on GPUs, more where there are millions, fewer where actors would have nothing to do."""
    batch_size: int | None = Field(None, ge=1)
    """Posts an actor scores at once; inside, prompts are batched by tokens. None: as many as take a few seconds."""
    hang_minutes: float = Field(10.0, gt=0)
    """End an actor that takes longer over one portion, and go on as after a crash. More than an actor needs for
    --batch-size posts."""
    file_posts: int = Field(100_000, ge=1)
    """Posts a file of the finished output."""
    max_workers: int | None = Field(None, ge=1)
    """Scoring actors at most: the pool grows from --cluster.num-workers where there is room. None: it does not grow."""
    max_error_rate: float = Field(0.5, ge=0, le=1)
    """Stop when more than this share of posts has an error, looked at from 200 posts on."""
    retry_errors: bool = False
    """Score the posts again that have an error in an earlier run's output, and those only."""
    dry_run: int | None = Field(None, ge=1)
    """Score only so many posts, keep nothing, and estimate time, GPU-hours and size of the whole."""
    overwrite: bool = False
    """Replace the output of another annotation job, or of this one if it is finished."""
    cluster: ClusterConfig = ClusterConfig()
    """Scoring actors, their CPUs and GPUs."""

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.overwrite and self.retry_errors:
            raise ValueError("--overwrite starts over and --retry-errors continues; give one of them")
        if self.max_workers is not None and self.max_workers < self.cluster.num_workers:
            raise ValueError(
                f"--max-workers {self.max_workers} is less than --cluster.num-workers {self.cluster.num_workers}"
            )
        return self
