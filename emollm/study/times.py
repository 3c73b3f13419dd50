"""Times in the forms that corpora have them, and the periods they fall into."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.errors import DataError

Times = NDArray[np.datetime64]
"""Wall-clock seconds in the report's zone; NaT where a time cannot be read."""

_ZONED = r"(?:[Zz]|[+-]\d\d:?\d\d)\s*$"
_TWITTER = "%a %b %d %H:%M:%S %z %Y"
_UNITS = {"hour": "h", "day": "D", "month": "M", "year": "Y"}
_LENGTHS_S = {
    "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_629_746, "quarter": 7_889_238, "year": 31_556_952,
}  # fmt: skip
_AUTO_PERIODS = 60
MOST_PERIODS = 2000


def read_times(column: Any, *, zone: str, form: str | None = None) -> Times:
    """[N] times of an Arrow array: timestamps, dates, ISO 8601, seconds to nanoseconds since 1970, RFC 2822, Twitter's.

    `form` is a format of strptime that strings are read by instead. A time without a zone is taken to be in `zone`.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found = pd.Series(pd.to_datetime(column.to_pandas(), errors="coerce"))
        return _wall(found, zone)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _of_numbers(pd.to_numeric(column.to_pandas(), errors="coerce").astype("float64"), zone)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), "NaT", "datetime64[s]")
    coded = pc.dictionary_encode(column)
    words = pd.Series(coded.dictionary.to_pandas(), dtype=object)
    each = _of_strings(words, zone, form)
    codes = np.asarray(pc.fill_null(coded.indices, -1))
    return np.asarray(np.append(each, np.datetime64("NaT", "s"))[codes], "datetime64[s]")


def _wall(found: pd.Series[Any], zone: str) -> Times:
    if found.dt.tz is not None:
        found = found.dt.tz_convert(zone).dt.tz_localize(None)
    return np.asarray(found.to_numpy(), "datetime64[s]")


def _of_numbers(numbers: pd.Series[Any], zone: str) -> Times:
    """Years and dates such as 20200131 by their look, others since 1970 in the unit that their size tells."""
    values = numbers.to_numpy()
    found = np.full(len(values), "NaT", "datetime64[s]")
    with np.errstate(invalid="ignore"):
        size = np.abs(values)
        scale = np.select([size > 1e17, size > 1e14, size > 1e11], [1e9, 1e6, 1e3], 1.0)
        dates = (values >= 19_000_101) & (values <= 21_001_231) & (values % 100 <= 31) & (values // 100 % 100 <= 12)
        years = (values >= 1900) & (values <= 2100) & (values == np.floor(values))
        other = np.isfinite(values) & ~dates & ~years & (size / scale < 1e10)
    seconds = pd.Series(pd.to_datetime((values[other] / scale[other]).astype("int64"), unit="s", utc=True))
    found[other] = _wall(seconds, zone)
    for mask, form in ((dates, "%Y%m%d"), (years, "%Y")):
        words = pd.Series(values[mask].astype("int64").astype(str))
        found[mask] = np.asarray(pd.to_datetime(words, format=form, errors="coerce").to_numpy(), "datetime64[s]")
    return found


def _of_strings(words: pd.Series[Any], zone: str, form: str | None) -> Times:
    found = np.full(len(words), "NaT", "datetime64[s]")
    if form is not None:
        parsed = pd.to_datetime(words, format=form, errors="coerce", utc="%z" in form)
        return _wall(pd.Series(parsed), zone)
    digits = words.str.fullmatch(r"\s*-?\d+(?:\.\d+)?\s*", na=False).to_numpy(bool)
    if digits.any():
        found[digits] = _of_numbers(pd.to_numeric(words[digits]).astype("float64"), zone)
    zoned = words.str.contains(r"\d.*" + _ZONED, regex=True, na=False).to_numpy(bool) & ~digits
    clock = ~zoned & ~digits
    found[zoned] = _wall(pd.Series(pd.to_datetime(words[zoned], format="ISO8601", errors="coerce", utc=True)), zone)
    found[clock] = _wall(pd.Series(pd.to_datetime(words[clock], format="ISO8601", errors="coerce")), zone)
    for place in np.flatnonzero(np.isnat(found)):
        if isinstance(word := words.iloc[place], str):
            found[place] = _of_one(word.strip(), zone)
    return found


def _of_one(word: str, zone: str) -> np.datetime64:
    moment = None
    try:
        moment = dt.datetime.strptime(word, _TWITTER)  # noqa: DTZ007 (%z is in it)
    except ValueError:
        if re.match(r"[A-Za-z]{3},? \d|\d{1,2} [A-Za-z]{3} \d{4}", word):
            try:
                moment = email.utils.parsedate_to_datetime(word)
            except (ValueError, TypeError, IndexError):
                moment = None
    if moment is None:
        return np.datetime64("NaT", "s")
    return np.datetime64(_wall(pd.Series([pd.Timestamp(moment)]), zone)[0], "s")


@dataclass(frozen=True, slots=True)
class Periods:
    """Neighbouring periods from the first post's to the last one's, those without posts included."""

    unit: str
    first: int
    """Number of the first, in units since 1970."""
    count: int

    def places(self, times: Times) -> NDArray[np.intp]:
        """[N] the period of each time, -1 where there is none."""
        numbers = _numbers(times, self.unit)
        inside = ~np.isnat(times) & (numbers >= self.first) & (numbers < self.first + self.count)
        return np.where(inside, numbers - self.first, -1).astype(np.intp)

    @property
    def names(self) -> list[str]:
        return [_name(self.unit, self.first + i) for i in range(self.count)]


def choose_periods(low: np.datetime64, high: np.datetime64, unit: str) -> Periods:
    """Raises DataError where there would be more than a page can show."""
    seconds = float((high - low) / np.timedelta64(1, "s"))
    if unit == "auto":
        unit = next((u for u, length in _LENGTHS_S.items() if seconds / length < _AUTO_PERIODS), "year")
    both = np.array([low, high])
    first, last = (int(n) for n in _numbers(both, unit))
    count = last - first + 1
    if count > MOST_PERIODS:
        raise DataError(
            f"--period {unit} makes {count:,} periods from {low} to {high}, more than {MOST_PERIODS:,}; choose a "
            "longer one, or leave out times with --since and --until"
        )
    return Periods(unit, first, count)


def _numbers(times: Times, unit: str) -> NDArray[np.int64]:
    if unit == "week":  # 1970 began on a Thursday
        return (times.astype("datetime64[D]").astype("int64") + 3) // 7
    if unit == "quarter":
        return times.astype("datetime64[M]").astype("int64") // 3
    return times.astype(f"datetime64[{_UNITS[unit]}]").astype("int64")


def _name(unit: str, number: int) -> str:
    match unit:
        case "week":
            year, week, _ = (dt.date(1970, 1, 1) + dt.timedelta(days=number * 7 - 3)).isocalendar()
            return f"{year}-W{week:02}"
        case "quarter":
            return f"{1970 + number // 4}-Q{number % 4 + 1}"
        case "hour":
            return str(np.datetime64(number, "h")).replace("T", " ") + ":00"
        case _:
            return str(np.array(number).astype(f"datetime64[{_UNITS[unit]}]"))
