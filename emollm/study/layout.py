"""Where each row belongs: its group, its period; found in a first pass over these columns alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.errors import DataError
from emollm.study.options import ReportConfig
from emollm.study.source import Source
from emollm.study.times import Periods, Times, choose_periods, read_times

NO_GROUP = "(none)"
OTHER = "(other)"
_JOINED = " · "
_MOST_GROUPS = 1_000_000


@dataclass(slots=True)
class Layout:
    """Groups, periods, and what was met on the way."""

    config: ReportConfig
    groups: list[str]
    """The largest, by size; `OTHER` at the end where there are more."""
    sizes: Counter[str]
    periods: Periods | None = None
    posts: int = 0
    """Rows between --since and --until."""
    left_out: int = 0
    without_time: int = 0
    unread: str | None = None
    """A time that could not be read."""
    _names: Any = field(init=False)

    def __post_init__(self) -> None:
        self._names = pa.array(self.groups, pa.string())

    @property
    def period_names(self) -> list[str]:
        return self.periods.names if self.periods else []

    @property
    def slots(self) -> int:
        """Periods of the cube: one for each, and one for posts without a time."""
        return (self.periods.count + 1) if self.periods else 1

    def places(self, batch: Any) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]:
        """Whether each row counts, its group and its period."""
        rows = batch.num_rows
        group_N = np.zeros(rows, np.intp)
        if self.config.by:
            found = pc.index_in(group_names(batch, self.config.by), self._names)
            group_N = np.asarray(pc.fill_null(found, len(self.groups) - 1)).astype(np.intp)
        if self.periods is None or self.config.over is None:
            return np.ones(rows, bool), group_N, np.zeros(rows, np.intp)
        times = _times(batch, self.config)
        period_N = self.periods.places(times)
        return inside(times, self.config), group_N, np.where(period_N < 0, self.periods.count, period_N)


def find_layout(source: Source, config: ReportConfig) -> Layout:
    """Raises DataError where a column is missing, no time can be read, or --compare names nothing that is there."""
    for name in config.by:
        source.check_column(name, "--by")
    if config.over:
        source.check_column(config.over, "--over")
    sizes: Counter[str] = Counter()
    found = _Times()
    posts = left_out = 0
    columns = list(dict.fromkeys([*config.by, *([config.over] if config.over else [])]))
    for batch in source.batches(columns or (["id"] if "id" in source.schema.names else source.schema.names[:1])):
        counts = np.ones(batch.num_rows, bool)
        if config.over:
            times = _times(batch, config)
            counts = inside(times, config)
            found.look(times, counts, batch.column(config.over))
        posts += int(counts.sum())
        left_out += int((~counts).sum())
        if config.by:
            _count(sizes, group_names(batch, config.by).filter(pa.array(counts)), config)
    if not posts:
        raise DataError(f"{config.output} has no posts{' between --since and --until' if left_out else ''}")
    groups = [name for name, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    if len(groups) > config.max_groups:
        groups = _largest(groups, config)
    layout = Layout(config, groups or ["all"], sizes, posts=posts, left_out=left_out)
    if config.over:
        found.refuse_unreadable(config)
        layout.without_time, layout.unread = found.unread, found.example
        assert found.low is not None and found.high is not None
        layout.periods = choose_periods(found.low, found.high, config.period)
    _check_compare(layout)
    return layout


def _largest(groups: list[str], config: ReportConfig) -> list[str]:
    named = [name for name in config.compare if name in groups[config.max_groups :]]
    return [*groups[: config.max_groups], *named, OTHER]


def _count(sizes: Counter[str], names: Any, config: ReportConfig) -> None:
    for one in pc.value_counts(names).to_pylist():
        sizes[one["values"]] += one["counts"]
    if len(sizes) > _MOST_GROUPS:
        raise DataError(
            f"--by {','.join(config.by)} makes more than {_MOST_GROUPS:,} groups; name a column that groups posts"
        )


def group_names(batch: Any, by: Sequence[str]) -> Any:
    """One string per row; several columns joined."""
    columns = [pc.fill_null(as_names(batch.column(name)), NO_GROUP) for name in by]
    return columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, _JOINED)


def as_names(column: Any) -> Any:
    """A column's values as strings. Raises DataError for a type whose values have no names."""
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowException:
        raise DataError(
            f"a column of type {column.type} names no groups or authors; name one of text or numbers"
        ) from None


def _times(batch: Any, config: ReportConfig) -> Times:
    assert config.over is not None
    return read_times(batch.column(config.over), zone=config.timezone, form=config.time_format)


def inside(times: Times, config: ReportConfig) -> NDArray[np.bool_]:
    """Between --since and --until; all where neither is given, those without a time too."""
    counts = np.ones(len(times), bool)
    if config.since is not None:
        counts &= times >= _edge(config.since, "--since", config)
    if config.until is not None:
        counts &= times < _edge(config.until, "--until", config)
    return counts


def _edge(bound: str, option: str, config: ReportConfig) -> np.datetime64:
    [edge] = read_times(pa.array([bound]), zone=config.timezone)
    if np.isnat(edge):
        raise DataError(f"{option} {bound!r} is not a time; write it as 2020-01-31 or 2020-01-31T12:00")
    return np.datetime64(edge, "s")


class _Times:
    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None
        self.read = self.unread = 0
        self.example: str | None = None

    def look(self, times: Times, counts: NDArray[np.bool_], column: Any) -> None:
        missing = np.isnat(times)
        known = times[counts & ~missing]
        self.read += len(known)
        self.unread += int((counts & missing).sum())
        if self.example is None and missing.any():
            values = (column[int(row)].as_py() for row in np.flatnonzero(missing)[:1000])
            self.example = next((repr(value)[:60] for value in values if value is not None), None)
        if len(known):
            self.low = known.min() if self.low is None else min(self.low, known.min())
            self.high = known.max() if self.high is None else max(self.high, known.max())

    def refuse_unreadable(self, config: ReportConfig) -> None:
        if self.read == 0 or self.unread > self.read:
            shown = f"such as {self.example}" if self.example else "all missing"
            raise DataError(
                f"--over {config.over}: {self.unread:,} of {self.read + self.unread:,} values are no times that can be "
                f"read, {shown}; give --time-format as strptime has it (%d/%m/%Y %H:%M), or name another column"
            )


def _check_compare(layout: Layout) -> None:
    known = {*layout.groups, *layout.period_names}
    for name in layout.config.compare:
        if name not in known:
            shown = ", ".join([*layout.groups[:8], *layout.period_names[:4]])
            raise DataError(f"--compare {name!r} is neither a group nor a period; there are: {shown}")
    both = [sum(name in names for name in layout.config.compare) for names in (layout.groups, layout.period_names)]
    if layout.config.compare and 2 not in both:
        raise DataError(f"--compare {','.join(layout.config.compare)}: compare two groups, or two periods")
