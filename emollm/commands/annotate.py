"""Annotate posts: emollm annotate posts.csv; a corpus: emollm annotate --input DIR --out DIR"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from emollm.annotation.options import AnnotateConfig
from emollm.core.errors import ConfigError
from emollm.core.options import Location, read_config

if TYPE_CHECKING:
    import pyarrow as pa

IN_PROCESS_POSTS = 5000
"""Larger files are annotated with Ray: its job continues where it was stopped, so minutes of work are not lost."""


class FileConfig(AnnotateConfig):
    """Annotate posts with affect columns: a file into a file next to it, or a corpus into a folder of Parquet files.

    A small file is annotated at once, with one process per core; a large one, or any with --ray,
    by a job on Ray that continues where it was stopped when it is run again.
    """

    out: Location | None = None  # type: ignore[assignment]
    """A file (.parquet, .csv or .jsonl), or a folder, which a job on Ray fills. None: posts.affect.parquet next to
    posts.csv, with all columns of the input."""
    format: Literal["parquet", "csv", "jsonl"] | None = None
    """Format of the output file. None: from the name of --out, else parquet."""
    ray: bool | None = None
    """Whether to use Ray. None: if --out is a folder, or for more than 5,000 posts if Ray is installed."""
    processes: int | None = Field(None, ge=1)
    """Processes without Ray, one thread each. None: one per core, fewer for few posts; one if there is a GPU."""

    @model_validator(mode="after")
    def _out_fits(self) -> Self:
        if self.out is None and (
            "://" in self.input or any(c in self.input for c in "*?[") or Path(self.input).is_dir()
        ):
            raise ValueError(f"--out is required: {self.input} is not one local file, so name a folder to write")
        if self.out is not None and (self.out == self.input or Path(self.out).resolve() == Path(self.input).resolve()):
            raise ValueError(f"--out {self.out} is the input; name another file")
        if self.out is not None and not Path(self.out).is_dir() and Path(self.out).suffix in _OTHER_FILES:
            raise ValueError(f"--out {self.out}: files end in .parquet, .csv or .jsonl; a folder has no ending")
        if self.format and self.out is not None and not _is_file(self.out):
            raise ValueError(f"--format is for a file, and --out {self.out} is a folder; end it in .{self.format}")
        if self.ray is False and self.out is not None and not _is_file(self.out):
            raise ValueError(f"--no-ray writes a file; end --out {self.out} in .parquet, .csv or .jsonl")
        return self

    @property
    def out_file(self) -> Path | None:
        """The file to write; None if the output is a folder."""
        if self.out is None:
            path = Path(self.input)
            name = path.name.removesuffix(".gz")
            return path.with_name(f"{name.rpartition('.')[0] or name}.affect.{self.format or 'parquet'}")
        return Path(self.out) if _is_file(self.out) else None

    def as_job(self, out: str) -> AnnotateConfig:
        """The same options for the job on Ray, with the folder `out`."""
        own = {name: value for name, value in self if name in AnnotateConfig.model_fields}
        return AnnotateConfig.model_validate({**own, "out": out})


_OTHER_FILES = (".tsv", ".txt", ".json", ".ndjson", ".gz", ".zst", ".xlsx", ".xls", ".ods", ".pq", ".feather", ".arrow")
"""Endings of files that are not written; a folder of such a name would be a surprise."""


def _is_file(out: str) -> bool:
    return "://" not in out and Path(out).suffix in (".parquet", ".csv", ".jsonl") and not Path(out).is_dir()


def main(argv: Sequence[str]) -> None:
    config = read_config(FileConfig, argv, prog="annotate", bare=("input", "out"))
    out = config.out_file
    if out is None:
        assert config.out is not None
        _run_job(config.as_job(config.out))
    else:
        _annotate_file(config, out)


def _annotate_file(config: FileConfig, out: Path) -> None:
    from emollm.annotation.job import choose_columns, choose_extras
    from emollm.commands.in_process import read_posts, write_table
    from emollm.core.ask import asked_tasks
    from emollm.core.options import with_values
    from emollm.core.tasks import select_tasks
    from emollm.data.files.inputs import find_files
    from emollm.data.files.readers import count_rows
    from emollm.scoring.open import known_tasks, resolve_engine

    if out.exists() and not config.overwrite:
        raise ConfigError(f"the output {out} exists; pass --overwrite to replace it, or name another --out")
    file_format = config.format or out.suffix.removeprefix(".")
    if config.carry == ():
        config = with_values(config, carry=("*",))
    tasks = select_tasks(asked_tasks(config.tasks), known_tasks(config.model, config.engine))
    extras = choose_extras(config, tasks, resolve_engine(config.model, config.engine))
    source, files = find_files(config.input)
    columns = choose_columns(config, tasks, source, files, config.output_columns(config.engine, extras))
    posts = min(count_rows(source, files[0], columns), config.max_posts or sys.maxsize)
    if _with_ray(config, posts):
        if config.ray is None:
            print(f"{posts:,} posts: annotating them with Ray; a stopped run continues", file=sys.stderr)
        # Hidden: the user need not see what is left of a stopped run.
        folder = out.with_name(f".{out.name}.job")
        _run_job(config.as_job(str(folder)))
        write_table(_tables(folder), out, file_format)
        shutil.rmtree(folder)
    else:
        table = read_posts(source, files[0], columns, max_posts=config.max_posts)
        write_table(iter([_annotated(table, config, tasks, extras)]), out, file_format)
    print(f"{out}: {posts:,} posts")


def _with_ray(config: FileConfig, posts: int) -> bool:
    if config.ray is None:
        return posts > IN_PROCESS_POSTS and importlib.util.find_spec("ray") is not None
    return config.ray


def _annotated(table: pa.Table, config: FileConfig, tasks: Any, extras: Any) -> pa.Table:
    from emollm.annotation.identity import file_metadata
    from emollm.commands.in_process import annotate_table
    from emollm.core.progress import progress_bar

    with progress_bar("annotating", table.num_rows, "posts") as advance:
        found = annotate_table(table, config, tasks, extras=extras, processes=config.processes, on_posts=advance)
    return found.replace_schema_metadata(file_metadata(config, tasks))


def _tables(folder: Path) -> Any:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as opened:
            for i in range(opened.num_row_groups):
                yield opened.read_row_group(i)


def _run_job(config: AnnotateConfig) -> None:
    from emollm.annotation.pipeline import annotate_corpus
    from emollm.annotation.report import estimate_lines, summary_lines
    from emollm.core.progress import progress_bar

    try:
        with progress_bar("annotating", None, "posts") as advance:
            summary = annotate_corpus(config, on_progress=lambda p: advance(p.new, total=p.total, note=p.note))
    except KeyboardInterrupt:
        print(f"interrupted; run the same command to continue {config.out}", file=sys.stderr)
        sys.exit(130)
    lines = estimate_lines(summary, config) if config.dry_run else summary_lines(summary, config)
    print("\n".join(lines))
