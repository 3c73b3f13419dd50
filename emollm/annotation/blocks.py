"""Ray Data's source: the rows that are still to be scored, one read task per block.

Ray Data would load the committed ids into each of its filter actors and filter the rows with them. Our ids are row
numbers, and the source reads only rows that are not committed, so there is nothing to filter. Of Ray Data's checkpoint
only the two-phase commit of its writes is used: a pending list of rows, the file, the list under its final name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_filter import IdColumnCheckpointManager

from emollm.annotation.output import ROW, OutputFolder
from emollm.annotation.stage import Corpus, Staged
from emollm.data.files.carry import carried_columns
from emollm.data.files.columns import CARRIED, CARRIED_JSON

_MOST_BLOCKS = 20_000
"""Upper limit of the number of tasks where the job does not set the block size: Ray's driver plans each task."""
_BLOCKS_A_WORKER = 4
_SCORED = ["id", "text", "problem"]


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one staged file."""

    file: Staged
    spans: tuple[tuple[int, int], ...]
    """First and past-the-end row of each range, counted within the file."""

    @property
    def rows(self) -> int:
        return sum(stop - first for first, stop in self.spans)


def block_size(posts: int, *, asked: int | None, workers: int, on_gpu: bool, engine: str) -> int:
    """Posts per block: `asked`, or the default that docs/annotation.md gives for the commit size."""
    usual = (16_384 if engine == "heads" else 2048) if on_gpu else 256
    size = asked or max(usual, -(-posts // _MOST_BLOCKS))
    return max(1, min(size, -(-posts // (workers * _BLOCKS_A_WORKER)) if asked is None else size))


def pending_blocks(corpus: Corpus, done: NDArray[np.bool_], size: int) -> list[Block]:
    """The rows that are not `done`, in order, in blocks of at most `size` rows, each from a single file."""
    blocks = []
    for file in corpus.files:
        rows = np.flatnonzero(~done[file.start : file.start + file.rows])
        for i in range(0, len(rows), size):
            chosen = rows[i : i + size]
            edges = np.flatnonzero(np.diff(chosen) > 1) + 1
            spans = tuple((int(part[0]), int(part[-1]) + 1) for part in np.split(chosen, edges))
            blocks.append(Block(file, spans))
    return blocks


def read_block(filesystem: Any, folder: str, block: Block, beside: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The rows of a block as `actor.ScoreBlock` takes them: `row`, `id`, `text`, `problem` and those `beside`, carried
    columns with their types.
    """
    columns = [*_SCORED, *(kind + name for name in beside for kind in (CARRIED, CARRIED_JSON))]
    places = np.concatenate([np.arange(low, high) for low, high in block.spans])
    with filesystem.open_input_file(posixpath.join(folder, block.file.name)) as opened:
        parquet = pq.ParquetFile(opened)
        # All row groups but the last have one size. One is in memory at a time: retried rows may be far apart.
        size = parquet.metadata.row_group(0).num_rows
        table = pa.concat_tables(
            parquet.read_row_group(group, columns=columns).take(
                pa.array(places[places // size == group] - group * size)
            )
            for group in np.unique(places // size).tolist()
        )
    posts = table.select(_SCORED)
    for name, column in zip(beside, carried_columns(table, beside), strict=True):
        posts = posts.append_column(name, column)
    yield posts.add_column(0, ROW, pa.array(places + block.file.start, pa.int64()))


class PostsSource(Datasource):  # type: ignore[misc]
    """Blocks of posts, each a separate read task, so that Ray Data neither merges nor splits them."""

    def __init__(self, output: OutputFolder, blocks: Sequence[Block], beside: Mapping[str, Any]) -> None:
        """`beside` are the carried columns that are read with the post, with their types."""
        super().__init__()
        self._beside = beside
        self._filesystem, self._folder, self._blocks = output.filesystem, output.posts, blocks

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        del parallelism, data_context
        return [
            ReadTask(
                partial(read_block, self._filesystem, self._folder, block, self._beside),
                BlockMetadata(num_rows=block.rows, size_bytes=None, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for block in self._blocks
        ]


class _NothingToFilter(IdColumnCheckpointManager):  # type: ignore[misc]
    """`OutputFolder.committed` has cleaned up after a crash, and `pending_blocks` has left out committed rows."""

    def load_checkpoint(self, *_: Any, **__: Any) -> tuple[None, int]:
        return None, 0


def checkpoint(output: OutputFolder) -> CheckpointConfig:
    """Ray Data's row-level checkpoint over the output's blocks, kept when the run ends."""
    return CheckpointConfig(
        id_column=ROW,
        checkpoint_path=output.commits,
        override_filesystem=output.filesystem,
        delete_checkpoint_on_success=False,
        checkpoint_manager_cls=_NothingToFilter,
    )
