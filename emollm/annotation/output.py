"""The output folder while it grows, and after.

    OUT/_unfinished/job.json     the job's identity and options: written first
                    posts/       the input as numbered rows (stage.py)
                    corpus.json  written when they are all there
                    blocks/      scored rows, a file a block, as Ray Data writes them
                    commits/     Ray Data's checkpoint: which rows stand in which file of blocks/
                    progress.json  how many rows were scored, committed or not
    OUT/part-*.parquet           the finished rows, in the order of the input
    OUT/_manifest.json, _report.html, _run.json
                                 `_run.json`, written last, says that the output is whole

Readers of Parquet skip names with an underscore: an unfinished folder holds nothing that they would read, until the
very end. Everything goes through a pyarrow filesystem, so it may be a disk or an object store.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emollm.annotation.identity import Identity, differences
from emollm.annotation.inputs import locate
from emollm.annotation.stage import Corpus, Staged
from emollm.errors import DataError
from emollm.folders import HIDDEN_RUN_FILE

ROW = "row"
"""The column that numbers rows, from 0, through the whole input."""
MANIFEST_FILE = "_manifest.json"
REPORT_FILE = "_report.html"
_WORK = "_unfinished"
_PENDING = ".pending.parquet"


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

    def _at(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)

    def path(self, name: str) -> str:
        return self._at(name)

    def read_json(self, path: str) -> dict[str, Any] | None:
        """None where there is no such file, or none that can be read."""
        try:
            with self.filesystem.open_input_stream(path) as stream:
                return json.loads(stream.read())  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def write_json(self, path: str, data: Any) -> None:
        self.write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n").encode())

    def write_bytes(self, path: str, data: bytes) -> None:
        """Whole or not at all: an object store does so by itself, elsewhere a new file takes the name."""
        partial = f"{path}.partial" if self.is_local else path
        with self.filesystem.open_output_stream(partial) as stream:
            stream.write(data)
        if partial != path:
            self.filesystem.move(partial, path)

    def finished(self) -> dict[str, Any] | None:
        """What `_run.json` says, or None where no run has finished."""
        return self.read_json(self._at(HIDDEN_RUN_FILE))

    def mark_finished(self, facts: dict[str, Any]) -> None:
        self.write_json(self._at(HIDDEN_RUN_FILE), facts)
        self._remove(_WORK)

    def open_job(self, identity: Identity, *, overwrite: bool) -> None:
        """Make the folder this job's, and continue what it holds of it.

        `overwrite` removes another job's output, or this one's if it is finished. Raises DataError if the folder holds
        anything else, or another job's output and `overwrite` is off.
        """
        before = self._identity()
        names = [info.base_name for info in self._list(self.root) if info.base_name != "_lock.json"]
        if names and before is None:
            why = "was not written by emollm, so --overwrite leaves it" if overwrite else "exists and holds other files"
            raise DataError(f"{self.location} {why}; choose another --out")
        if before is not None and before != identity and not overwrite:
            raise DataError(
                f"{self.location} holds the output of another job: what differs is {differences(before, identity)}; "
                "choose another --out, or pass --overwrite to replace it"
            )
        if overwrite and before is not None and (before != identity or self.finished()):
            for name in names:
                self._remove(name)
        for folder in (self.posts, self.blocks, self.commits):
            self.filesystem.create_dir(folder, recursive=True)
        self.write_json(self._at(_WORK, "job.json"), {"identity": identity})

    def _identity(self) -> Identity | None:
        for found in (self.finished(), self.read_json(self._at(_WORK, "job.json"))):
            if found and "identity" in found:
                return found["identity"]  # type: ignore[no-any-return]
        return None

    def clear_finished(self) -> None:
        """Take the marker away, and then what it vouched for."""
        self._remove(HIDDEN_RUN_FILE)
        for info in self._list(self.root):
            if info.base_name.startswith("part-") or info.base_name in (MANIFEST_FILE, REPORT_FILE):
                self._remove(info.base_name)

    def discard_work(self) -> None:
        self._remove(_WORK)

    def discard_if_empty(self) -> None:
        """Leave nothing behind of a run that committed nothing; other runs' rows stay."""
        if not self._list(self.commits):
            self._remove(_WORK)

    def remove_if_empty(self) -> None:
        if not self._list(self.root):
            self.filesystem.delete_dir(self.root)

    def corpus(self) -> Corpus | None:
        """The staged input, if all of it is there."""
        found = self.read_json(self._at(_WORK, "corpus.json"))
        if found is None:
            return None
        files = tuple(Staged(**file) for file in found["files"])
        return Corpus(files=files, carried=found["carried"], json_carried=tuple(found["json_carried"]))

    def keep_corpus(self, corpus: Corpus) -> None:
        self.write_json(self._at(_WORK, "corpus.json"), asdict(corpus))

    def scored_before(self) -> int:
        """Rows that earlier runs scored, whether or not they could still be committed."""
        return int((self.read_json(self._at(_WORK, "progress.json")) or {}).get("scored", 0))

    def keep_scored(self, count: int) -> None:
        self.write_json(self._at(_WORK, "progress.json"), {"scored": count})

    def committed(self) -> dict[str, NDArray[np.int64]]:
        """The rows of each block file that counts, by the file's path. Mends what a crash left.

        A block counts if its commit is there, and no pending one, and the file has the rows that the commit names.
        Ray Data alone would trust a commit whose file is gone: one it committed, did again and died over.
        """
        data = {info.base_name: info for info in self._list(self.blocks)}
        commits = {info.base_name: info for info in self._list(self.commits)}
        pending = {name.removesuffix(_PENDING) for name in commits if name.endswith(_PENDING)}
        committed: dict[str, NDArray[np.int64]] = {}
        used: set[str] = set()
        for name, info in commits.items():
            base = name.removesuffix(_PENDING).removesuffix(".parquet")
            files = [file for file in data if file.startswith(f"{base}-")]
            rows = None if base in pending or len(files) != 1 else self._rows_of(info, data[files[0]])
            if rows is None:
                self.filesystem.delete_file(info.path)
            else:
                committed[data[files[0]].path] = rows
                used.add(files[0])
        for name in data.keys() - used:
            self.filesystem.delete_file(data[name].path)
        return committed

    def _rows_of(self, commit: Any, data: Any) -> NDArray[np.int64] | None:
        try:
            with self.filesystem.open_input_file(commit.path) as opened:
                rows = pq.read_table(opened, columns=[ROW])[ROW].to_numpy()
            with self.filesystem.open_input_file(data.path) as opened:
                return rows if pq.ParquetFile(opened).metadata.num_rows == len(rows) else None
        except (pa.ArrowException, OSError):
            return None

    def commit_rows(self, name: str, table: pa.Table) -> None:
        """Put scored rows among the blocks as Ray Data would: for rows of a finished output that are kept."""
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
