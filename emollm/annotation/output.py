"""The output folder during a run and after it.

    OUT/_unfinished/job.json     the job's identity and options: written first
                    posts/       the input as numbered rows (stage.py)
                    corpus.json  written when posts/ is complete
                    blocks/      row numbers and answers, one file per block, as Ray Data writes them
                    commits/     Ray Data's checkpoint: which rows are in which file of blocks/
                    progress.json  how many rows were scored, committed or not
                    retry.json   the finished output whose errors are being retried, if any
    OUT/part-*.parquet           the finished rows, in the order of the input
    OUT/_manifest.json, _report.html, _run.json
                                 `_run.json`, written last, says that the output is complete

Readers of Parquet skip names that begin with an underscore: until the end, an unfinished folder has nothing that they
would read. All access is through a pyarrow filesystem, so the folder may be on a disk or in an object store.
"""

from __future__ import annotations

import json
import posixpath
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emollm.annotation.identity import Identity, differences
from emollm.annotation.stage import Corpus, Staged
from emollm.core.errors import DataError
from emollm.core.folders import HIDDEN_RUN_FILE
from emollm.data.files.inputs import locate

ROW = "row"
"""The column that numbers rows, from 0, through the whole input."""
MANIFEST_FILE = "_manifest.json"
REPORT_FILE = "_report.html"
_WORK = "_unfinished"
_PENDING = ".pending.parquet"
_OPEN_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed block file."""

    path: str
    low: int
    high: int
    """Its first and last row."""
    good: int
    """Rows without an error."""


class OutputFolder:
    """Paths, JSON files and blocks below one folder of some filesystem."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.filesystem, self.root = locate(location)
        self.posts = self._at(_WORK, "posts")
        self.blocks = self._at(_WORK, "blocks")
        self.commits = self._at(_WORK, "commits")
        self.lock = self._at("_lock.json")

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def is_file(self) -> bool:
        return self.filesystem.get_file_info(self.root).type == pafs.FileType.File  # type: ignore[no-any-return]

    def _at(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)

    def path(self, name: str) -> str:
        return self._at(name)

    def read_json(self, path: str) -> dict[str, Any] | None:
        """None if there is no such file or it cannot be read."""
        try:
            with self.filesystem.open_input_stream(path) as stream:
                return json.loads(stream.read())  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def write_json(self, path: str, data: Any) -> None:
        self.write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n").encode())

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write atomically: an object store does so by itself; elsewhere a new file is renamed."""
        partial = f"{path}.partial" if self.is_local else path
        with self.filesystem.open_output_stream(partial) as stream:
            stream.write(data)
        if partial != path:
            self.filesystem.move(partial, path)

    def finished(self) -> dict[str, Any] | None:
        """The content of `_run.json`, or None if no run has finished."""
        return self.read_json(self._at(HIDDEN_RUN_FILE))

    def mark_finished(self, facts: dict[str, Any]) -> None:
        self.write_json(self._at(HIDDEN_RUN_FILE), facts)
        self._remove(_WORK)

    def open_job(self, identity: Identity, *, overwrite: bool) -> None:
        """Assign the folder to this job, and continue with the rows of it that are there.

        `overwrite` removes another job's output, or this one's if it is finished. Raises DataError if the folder has
        other files, or if it has another job's output and `overwrite` is off.
        """
        before = self.identity()
        names = [info.base_name for info in self._list(self.root) if info.base_name != "_lock.json"]
        if names and before is None:
            why = "was not written by emollm, so --overwrite leaves it" if overwrite else "exists and holds other files"
            raise DataError(f"{self.location} {why}; choose another --out")
        if before is not None and before != identity and not overwrite:
            raise DataError(
                f"{self.location} holds the output of another job, which differs in {differences(before, identity)}; "
                "choose another --out, or pass --overwrite to replace it"
            )
        if overwrite and before is not None and (before != identity or self.finished()):
            for name in names:
                self._remove(name)
        for folder in (self.posts, self.blocks, self.commits):
            self.filesystem.create_dir(folder, recursive=True)
        self.keep_identity(identity)

    def keep_identity(self, identity: Identity) -> None:
        self.write_json(self._at(_WORK, "job.json"), {"identity": identity})

    def identity(self) -> Identity | None:
        """The job that this folder belongs to, if any."""
        for found in (self.finished(), self.read_json(self._at(_WORK, "job.json"))):
            if found and "identity" in found:
                return found["identity"]  # type: ignore[no-any-return]
        return None

    def clear_finished(self) -> None:
        """Remove the marker first, and then the files that it declares complete."""
        self._remove(HIDDEN_RUN_FILE)
        for info in self._list(self.root):
            if info.base_name.startswith("part-") or info.base_name in (MANIFEST_FILE, REPORT_FILE):
                self._remove(info.base_name)

    def discard_work(self) -> None:
        self._remove(_WORK)

    def is_retried(self) -> bool:
        """Whether the unfinished rows are the error-free rows of the finished output: see `finish.reopen`."""
        return self.read_json(self._at(_WORK, "retry.json")) == {"of": self.finished()}

    def mark_retried(self) -> None:
        self.write_json(self._at(_WORK, "retry.json"), {"of": self.finished()})

    def discard_if_empty(self) -> None:
        """Remove the work folder of a run that committed nothing; rows of other runs stay."""
        if not self._list(self.commits):
            self._remove(_WORK)

    def remove_if_empty(self) -> None:
        if not self._list(self.root):
            self.filesystem.delete_dir(self.root)

    def corpus(self) -> Corpus | None:
        """The staged input if it is complete, else None."""
        found = self.read_json(self._at(_WORK, "corpus.json"))
        if found is None:
            return None
        files = tuple(Staged(**file) for file in found["files"])
        return Corpus(files=files, carried=found["carried"])

    def keep_corpus(self, corpus: Corpus) -> None:
        self.write_json(self._at(_WORK, "corpus.json"), asdict(corpus))

    def scored_before(self) -> int:
        """Rows that earlier runs scored, whether or not they could still be committed."""
        return int((self.read_json(self._at(_WORK, "progress.json")) or {}).get("scored", 0))

    def keep_scored(self, count: int) -> None:
        self.write_json(self._at(_WORK, "progress.json"), {"scored": count})

    def committed(self, done: NDArray[np.bool_]) -> list[Committed]:
        """The committed block files; their rows are set in `done`, one entry per row. Cleans up after a crash.

        A block is committed if its commit exists and is not pending, and its file has the rows that the commit names.
        Ray Data alone would trust a commit without a file, which a crash while a block is scored again can leave.
        """
        data: dict[str, list[Any]] = {}
        for info in self._list(self.blocks):
            data.setdefault(info.base_name.rsplit("-", 1)[0], []).append(info)
        commits = self._list(self.commits)
        pending = {info.base_name.removesuffix(_PENDING) for info in commits if info.base_name.endswith(_PENDING)}

        def look(commit: Any) -> Committed | None:
            base = commit.base_name.removesuffix(_PENDING).removesuffix(".parquet")
            files = data.get(base, [])
            if base in pending or len(files) != 1:
                return None
            return self._look_at(commit.path, files[0].path, done)

        with ThreadPoolExecutor(_OPEN_AT_ONCE) as pool:
            seen = list(pool.map(look, commits))
        for commit, found in zip(commits, seen, strict=True):
            if found is None:
                self.filesystem.delete_file(commit.path)
        committed = [found for found in seen if found is not None]
        used = {found.path for found in committed}
        for info in (info for files in data.values() for info in files if info.path not in used):
            self.filesystem.delete_file(info.path)
        return committed

    def _look_at(self, commit: str, path: str, done: NDArray[np.bool_]) -> Committed | None:
        try:
            with self.filesystem.open_input_file(commit) as opened:
                rows = pq.read_table(opened, columns=[ROW])[ROW].to_numpy()
            with self.filesystem.open_input_file(path) as opened:
                metadata = pq.ParquetFile(opened).metadata
        except (pa.ArrowException, OSError):
            return None
        if metadata.num_rows != len(rows) or not len(rows):
            return None
        done[rows] = True
        return Committed(path, int(rows.min()), int(rows.max()), _without_error(metadata))

    def commit_rows(self, name: str, table: pa.Table) -> None:
        """Write and commit scored rows like Ray Data does: for the rows of a finished output that are kept."""
        with self.filesystem.open_output_stream(posixpath.join(self.blocks, f"{name}-0.parquet")) as stream:
            pq.write_table(table, stream, compression="zstd")
        with self.filesystem.open_output_stream(posixpath.join(self.commits, f"{name}.parquet")) as stream:
            pq.write_table(table.select([ROW]), stream)

    def _list(self, folder: str) -> list[Any]:
        found = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(found, key=lambda info: info.base_name)

    def _remove(self, name: str) -> None:
        path = self._at(name)
        match self.filesystem.get_file_info(path).type:
            case pafs.FileType.Directory:
                self.filesystem.delete_dir(path)
            case pafs.FileType.File:
                self.filesystem.delete_file(path)


def _without_error(metadata: Any) -> int:
    """The number of rows without an `error`, from the statistics of the file."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    place = paths.index("error")
    return sum(metadata.row_group(i).column(place).statistics.null_count for i in range(metadata.num_row_groups))
