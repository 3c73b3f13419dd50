"""Options of a report on an annotated corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from emollm.core.options import Config, Location

Period = Literal["auto", "hour", "day", "week", "month", "quarter", "year"]
Correction = Literal["auto", "none", "adjusted", "pacc", "ppi"]
BESIDE = ("vader", "textblob")


class ReportConfig(Config):
    """Report what an annotated corpus says of groups and times: a page, and the same numbers as CSV files.

    Shares and means have 95% intervals that respect repeated authors; with labelled rows they are corrected for what
    the model gets wrong.
    """

    output: Location
    """What `emollm annotate` wrote: a folder, or a Parquet file."""
    out: Path | None = None
    """Folder for the report. None: OUTPUT.report beside it."""
    by: tuple[str, ...] = ()
    """Columns that form the groups, such as lang or lang,source. Carry them along when annotating (--carry)."""
    over: str | None = None
    """Column with the time of each post."""
    period: Period = "auto"
    """Length of a period. auto: the shortest that makes at most 60 of them."""
    timezone: str = "UTC"
    """Zone in which periods begin, such as Europe/Lisbon; times without a zone are taken to be in it."""
    time_format: str | None = None
    """Format of the times as strptime has it, such as %d/%m/%Y. None: ISO 8601, seconds or milliseconds since 1970,
    RFC 2822 and Twitter's."""
    since: str | None = None
    """Leave out posts before this time."""
    until: str | None = None
    """Leave out posts from this time on."""
    author: str | None = None
    """Column with the author: posts of one author are drawn together for the intervals. None: posts are independent."""
    labelled: Location | None = None
    """Labelled rows: a file with `id` and columns gold_QUESTION (gold_e_c, gold_v_reg), or an annotated output that
    has such columns itself. 100 rows drawn at random from the corpus are a good number."""
    correct: Correction = "auto"
    """How labelled rows correct the estimates. ppi: prediction-powered inference, for rows drawn from this corpus.
    adjusted, pacc: adjusted count and its form with probabilities, for rows from elsewhere. auto: ppi where the rows'
    ids are in the corpus, else pacc."""
    compare: tuple[str, ...] = ()
    """Two groups, or two periods, to compare. None: two groups with each other, each of several with all others."""
    answers: tuple[str, ...] = ()
    """Answers to compare: v_reg, e_c=anger, or e_c for all of its labels. P-values are corrected for these alone, so
    choose before you look. None: all."""
    audit: Path | None = None
    """Folder that `emollm audit` wrote of the same model: differences within the model's own bias are marked."""
    beside: tuple[str, ...] = ()
    """Lexicons to show beside the model: vader, textblob."""
    taxonomy: tuple[str, ...] = ()
    """Label sets to add, made of others' probabilities: ekman, sentiment, plutchik, or task files with [[map]]."""
    max_groups: int = Field(30, ge=1)
    """Largest groups to show by name; the posts of all others are one group, `(other)`."""
    resamples: int = Field(500, ge=100)
    """Bootstrap draws behind each interval."""
    sample_posts: int = Field(100_000, ge=0)
    """Posts, drawn at random, from which words and examples are taken."""
    texts: bool = True
    """Whether example posts are shown. --no-texts makes a report that may leave the house."""
    seed: int = 0
    """Of draws and samples."""
    overwrite: bool = False
    """Replace an earlier report."""

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("unknown zone; name one as in Europe/Lisbon, or UTC") from None
        return name

    @field_validator("beside")
    @classmethod
    def _lexicons_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in BESIDE]:
            raise ValueError(f"unknown lexicon {unknown[0]!r}; choose from: {', '.join(BESIDE)}")
        return names

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.compare and len(self.compare) != 2:
            raise ValueError(f"--compare takes two groups or two periods, not {len(self.compare)}")
        if self.compare and not (self.by or self.over):
            raise ValueError("--compare needs groups (--by COLUMN) or periods (--over COLUMN)")
        if (self.since or self.until) and not self.over:
            raise ValueError("--since and --until need the column with the times: --over COLUMN")
        if self.correct not in ("auto", "none") and not self.labelled:
            raise ValueError(f"--correct {self.correct} needs labelled rows: --labelled FILE")
        return self

    @property
    def out_folder(self) -> Path:
        if self.out is not None:
            return self.out
        path = Path(self.output)
        return path.with_name(f"{path.name.removesuffix('.parquet')}.report")
