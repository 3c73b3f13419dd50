"""An annotated corpus with the columns of further label sets. What `emollm map` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.errors import DataError
from emollm.core.options import Config, Location
from emollm.study.source import Source
from emollm.study.taxonomy import LabelMap, choose_maps, with_maps


class MapConfig(Config):
    """Add label sets to an annotated corpus, made of the probabilities of those it has."""

    output: Location
    """What `emollm annotate` wrote: a folder, or a Parquet file."""
    out: Path
    """Parquet file to write: all rows and columns, and those of each label set."""
    taxonomy: tuple[str, ...]
    """Label sets to add: ekman, sentiment, plutchik, or task files with [[map]] sections."""
    overwrite: bool = False
    """Replace an earlier file."""


def add_maps(config: MapConfig, *, on_posts: Callable[[int, int], None] = lambda _new, _total: None) -> list[LabelMap]:
    """Write `config.out`, which appears whole. Raises ConfigError or DataError for what does not fit."""
    maps, source = choose_maps(config.taxonomy), Source(config.output)
    if not maps:
        raise DataError("--taxonomy names no label set")
    if config.out.exists() and not config.overwrite:
        raise DataError(f"{config.out} exists; pass --overwrite to replace it, or name another --out")
    schema = with_maps(source.schema.empty_table(), maps).schema.with_metadata(source.schema.metadata)
    partial = config.out.with_name(f".{config.out.name}.partial")
    total = source.rows
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for batch in source.batches(source.schema.names):
                mapped = with_maps(batch, maps)
                writer.write_table(pa.Table.from_batches([mapped]).select(schema.names).cast(schema))
                on_posts(batch.num_rows, total)
        partial.replace(config.out)
    except OSError as error:
        raise DataError(f"cannot write {config.out}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return maps


def map_labels(frame: Any, taxonomies: str | Sequence[str]) -> Any:
    """A frame that `emollm.annotate(..., details=True)` gave, with the columns of each label set.

    Lists become tuples and structs dicts, as in that frame. Raises ConfigError or DataError for what does not fit.
    """
    import pandas as pd

    maps = choose_maps([taxonomies] if isinstance(taxonomies, str) else taxonomies)
    from emollm.core.tasks import fold_name

    sources = {f"{fold_name(one.source)}_probabilities" for one in maps}
    table = pa.table({name: pa.array(frame[name].tolist()) for name in frame if name in sources})
    taken = pa.table({name: pa.nulls(len(frame)) for name in frame if name not in sources})
    if clash := [one.column for one in maps if one.column in taken.column_names]:
        raise DataError(f"there is a column {clash[0]!r} already; rename the map")
    added = with_maps(table, maps)
    columns: dict[str, Any] = {}
    for name in added.column_names[len(table.column_names) :]:
        values = added[name].to_pylist()
        columns[name] = [tuple(value) if isinstance(value, list) else value for value in values]
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
