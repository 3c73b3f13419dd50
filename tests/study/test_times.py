"""Times as corpora have them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emollm.core.errors import DataError
from emollm.study.times import choose_periods, read_times

NOON = "2026-03-01T12:00:00"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON]),
        pa.array(["2026-03-01 12:00:00Z"]),
        pa.array(["2026-03-01T14:00:00.250+02:00"]),
        pa.array(["2026-03-01T07:00-0500"]),
        pa.array(["Sun Mar 01 12:00:00 +0000 2026"]),
        pa.array(["Sun, 01 Mar 2026 13:00:00 +0100"]),
        pa.array([1772366400]),
        pa.array([1772366400.0]),
        pa.array([1772366400123]),
        pa.array(["1772366400"]),
        pa.array([1772366400_000_000], pa.timestamp("us")),
        pa.array([dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)], pa.timestamp("ns", "Europe/Lisbon")),
        pa.array([NOON]).dictionary_encode(),
    ],
    ids=str,
)
def test_every_form_is_the_same_moment(column: Any) -> None:
    assert str(read_times(column, zone="UTC")[0]) == NOON


@pytest.mark.parametrize("column", [pa.array([20260301]), pa.array(["20260301"]), pa.array(["2026-03-01"]),
                                    pa.array([dt.date(2026, 3, 1)]), pa.array(["2026/03/01"])])  # fmt: skip
def test_dates(column: Any) -> None:
    form = "%Y/%m/%d" if column[0].as_py() == "2026/03/01" else None
    assert str(read_times(column, zone="UTC", form=form)[0]) == "2026-03-01T00:00:00"


def test_a_time_zone_converts_only_times_that_have_one() -> None:
    column = pa.array(["2026-01-31T23:30:00Z", "2026-01-31T23:30:00"])
    assert [str(t) for t in read_times(column, zone="Europe/Berlin")] == ["2026-02-01T00:30:00", "2026-01-31T23:30:00"]


def test_an_invalid_time_is_none_and_affects_no_other() -> None:
    column = pa.array(["soon", None, "", "03/04/2026", "2026-13-45", NOON])
    assert np.isnat(read_times(column, zone="UTC")).tolist() == [True] * 5 + [False]
    assert str(read_times(column, zone="UTC", form="%d/%m/%Y")[3]) == "2026-04-03T00:00:00"
    assert np.isnat(read_times(pa.array([float("nan"), 1e30, -1e15]), zone="UTC"))[:2].all()
    assert np.isnat(read_times(pa.array([True]), zone="UTC")).all()


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        ("hour", ["2025-12-28 23:00", "2025-12-29 00:00"]),
        ("day", ["2025-12-28", "2025-12-29"]),
        ("week", ["2025-W52", "2026-W01"]),  # ISO 8601: a week belongs to the year of its Thursday
        ("month", ["2025-12"]),
        ("quarter", ["2025-Q4"]),
        ("year", ["2025"]),
    ],
)
def test_periods(unit: str, names: list[str]) -> None:
    times = np.array(["2025-12-28T23:10", "2025-12-29T00:10"], "datetime64[s]")
    periods = choose_periods(times[0], times[1], unit)
    assert periods.names == names
    assert periods.places(times).tolist() == [0, len(names) - 1]


def test_auto_takes_the_shortest_that_a_page_can_show_and_too_many_are_refused() -> None:
    low, high = np.datetime64("2020-01-01T00:00:00"), np.datetime64("2026-01-01T00:00:00")
    assert choose_periods(low, high, "auto").unit == "quarter"
    assert choose_periods(low, low, "auto").names == ["2020-01-01 00:00"]
    with pytest.raises(DataError, match=r"--period hour makes 52,609 periods .* choose a longer one"):
        choose_periods(low, high, "hour")
