"""Tables on disk as bars: CSV or parquet → numbers and UTC closes, with errors that name file, line and rule."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, CONTEXT_COLUMNS, PRICES, Floats, Times, from_times, to_times
from tradeloop.calendars import DAY, close_stamps, session_closes
from tradeloop.errors import ConfigError, DataError

EPOCH_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # in microseconds
_OFFSET = r"(?:Z|[+-]\d{2}:?\d{2})$"
YEARS = (1900, 2200)  # beyond them, milliseconds were read as seconds, or the other way round


@dataclass(frozen=True)
class TableFormat:
    """How a table is written.

    Attributes
    ----------
    timestamp, timestamp_format, timezone
        The column of times, its strptime format (``s``, ``ms``, ``us``: whole numbers since 1970; None: ISO 8601), and
        the zone of times that carry no offset.
    stamped_at
        Whether a time is its bar's open or close. Plain dates of a daily exchange series name the session, either way.
    columns
        Canonical name → name in the table, where they differ. Naming ``adj_close`` adjusts prices and volume by it.
    """

    timestamp: str = "timestamp"
    timestamp_format: str | None = None
    timezone: str = "UTC"
    stamped_at: Literal["open", "close"] = "close"
    columns: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, *, shown: str) -> pd.DataFrame:
    """Read a CSV (plain or gzipped) or parquet file.

    Returns
    -------
    DataFrame
        As written; its index is the line in the file (CSV, the header is line 1) or the row (parquet, from 1), and has
        that name. Blank lines are left out.

    Raises
    ------
    DataError
        If the file is missing, empty, corrupt or ragged; `shown` is what the message calls it.
    """
    if not path.is_file():
        raise DataError(f"{shown} is missing")
    if path.stat().st_size == 0:
        raise DataError(f"{shown} is empty")
    table = _read_parquet(path, shown) if path.suffix == ".parquet" else _read_csv(path, shown)
    if table.empty:
        raise DataError(f"{shown} has no rows")
    return table


def _read_parquet(path: Path, shown: str) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two
        raise DataError(f"{shown} is not readable parquet: {_one_line(error)}") from None
    table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    return table


def _read_csv(path: Path, shown: str) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # A row longer than the header would be cut to fit with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                encoding="utf-8-sig",
                float_precision="round_trip",
                skip_blank_lines=False,
                index_col=False,
                low_memory=False,
            )
    except (OSError, EOFError, ValueError, pd.errors.ParserWarning) as error:  # ParserError is a ValueError
        raise DataError(f"{shown} is not readable CSV: {_one_line(error)}") from None
    table.index = pd.RangeIndex(2, len(table) + 2, name="line")
    return table.dropna(how="all")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def column(table: pd.DataFrame, name: str, *, shown: str) -> pd.Series[Any]:
    """Return one column, or raise DataError that lists the columns there are."""
    if name not in table.columns:
        raise DataError(f"{shown}: column {name!r} is missing (columns: {', '.join(map(str, table.columns))})")
    return table[name]


def numbers(table: pd.DataFrame, name: str, *, shown: str) -> Floats:
    """Return one column as float64, empty cells as NaN; DataError names the first cell that is no number."""
    cells = column(table, name, shown=shown)
    if cells.dtype == bool or not (pd.api.types.is_numeric_dtype(cells) or pd.api.types.is_object_dtype(cells)):
        raise DataError(f"{shown}: {name} must hold numbers, got {cells.dtype}")
    values = pd.to_numeric(cells, errors="coerce")
    broken = values.isna() & cells.notna()
    if broken.any():
        raise DataError(_at_line(table, broken, shown, f"{name} must be a number, got {cells[broken].iloc[0]!r}"))
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _at_line(table: pd.DataFrame, broken: pd.Series[Any], shown: str, rule: str) -> str:
    count = int(broken.sum())
    where = f"{shown} {table.index.name} {table.index[broken][0]}"
    return f"{where}: {rule}" + (f" (and {count - 1} more)" if count > 1 else "")


def times(table: pd.DataFrame, form: TableFormat, *, shown: str) -> Times:
    """Return the column of times in UTC, ``datetime64[us]``.

    Raises
    ------
    DataError
        Naming the first line whose time cannot be read, lies outside `YEARS`, or does not exist or is ambiguous in the
        zone because clocks were changed.
    """
    parsed = _parse(table, form, shown)
    if parsed.dt.tz is None:
        local = parsed.dt.tz_localize(_zone(form.timezone), ambiguous="NaT", nonexistent="NaT")
        broken = local.isna()
        if broken.any():
            rule = f"{parsed[broken].iloc[0]} happens twice or never in {form.timezone}; write times with an offset"
            raise DataError(_at_line(table, broken, shown, rule))
        parsed = local
    return to_times(parsed)


def wall_times(table: pd.DataFrame, form: TableFormat, *, shown: str) -> Times:
    """Return the column of times as a clock in `form.timezone` shows them, ``datetime64[us]``; errors as in `times`."""
    parsed = _parse(table, form, shown)
    if parsed.dt.tz is not None:
        parsed = parsed.dt.tz_convert(_zone(form.timezone)).dt.tz_localize(None)
    return np.asarray(parsed.to_numpy(dtype="datetime64[us]"))


def _parse(table: pd.DataFrame, form: TableFormat, shown: str) -> pd.Series[Any]:
    """Return the column of times, all readable and sane; aware only if the cells carry offsets."""
    cells = column(table, form.timestamp, shown=shown)
    parsed = _datetimes(cells, form, shown)
    broken = parsed.isna()
    if broken.any():
        how = form.timestamp_format or "ISO 8601"
        rule = f"{form.timestamp} must be a time written as {how}, got '{cells[broken].iloc[0]}'"
        raise DataError(_at_line(table, broken, shown, rule))
    broken = (parsed.dt.year < YEARS[0]) | (parsed.dt.year >= YEARS[1])
    if broken.any():
        rule = f"{form.timestamp} must lie between {YEARS[0]} and {YEARS[1]}, got '{cells[broken].iloc[0]}'"
        raise DataError(_at_line(table, broken, shown, rule))
    return parsed


def _datetimes(cells: pd.Series[Any], form: TableFormat, shown: str) -> pd.Series[Any]:
    """Return datetimes, NaT where unreadable."""
    if pd.api.types.is_datetime64_any_dtype(cells):
        return cells
    if form.timestamp_format in EPOCH_UNITS:
        count = pd.to_numeric(cells, errors="coerce") * EPOCH_UNITS[form.timestamp_format]
        return pd.to_datetime(count, unit="us", utc=True, errors="coerce")
    if pd.api.types.is_numeric_dtype(cells) and cells.notna().any() and form.timestamp_format is None:
        raise DataError(f"{shown}: {form.timestamp} holds numbers; say with timestamp_format which (s, ms or us)")
    text = cells.astype(str)  # also parquet's dates, and the numbers that a format like %Y%m%d reads as
    aware = text.str.contains(_OFFSET) & text.str.contains(r"\d:\d", regex=True)
    parsed: pd.Series[Any] = pd.to_datetime(text, format=form.timestamp_format or "ISO8601", utc=True, errors="coerce")
    naive = ~aware & parsed.notna()
    if aware.any() and naive.any():
        raise DataError(f"{shown}: {form.timestamp} mixes times with and without offsets, as '{text[naive].iloc[0]}'")
    return parsed if aware.any() else parsed.dt.tz_localize(None)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"timezone must be an IANA name (UTC, America/New_York), got {name!r}") from None


def bars_from(
    table: pd.DataFrame, form: TableFormat, *, calendar: str, interval: timedelta, shown: str
) -> pd.DataFrame:
    """Return a raw bar frame: close-stamped in UTC and adjusted; rows in the table's order, broken values kept.

    Raises
    ------
    DataError
        For a missing column, an unreadable cell, or the date of a daily bar on which the exchange had no session.
    """
    at = _closes(table, form, calendar=calendar, interval=interval, shown=shown)
    values = {name: numbers(table, form.columns.get(name, name), shown=shown) for name in COLUMNS[1:]}
    if "adj_close" in form.columns:
        adjusted = numbers(table, form.columns["adj_close"], shown=shown)
        values = adjust(values, adjusted)
    return pd.DataFrame({"timestamp": from_times(at), **values}, columns=list(COLUMNS))


def _closes(table: pd.DataFrame, form: TableFormat, *, calendar: str, interval: timedelta, shown: str) -> Times:
    if interval == DAY and not calendar.startswith("24/"):
        labels = wall_times(table, form, shown=shown)
        if (labels == labels.astype("datetime64[D]")).all():
            closes = session_closes(calendar, labels)
            unknown = pd.Series(np.isnat(closes), index=table.index)
            if unknown.any():
                date = labels[unknown.to_numpy()][0].astype("datetime64[D]")
                raise DataError(_at_line(table, unknown, shown, f"{calendar} has no session on {date}"))
            return closes
    at = times(table, form, shown=shown)
    return close_stamps(calendar, at, interval) if form.stamped_at == "open" else at


def adjust(values: Mapping[str, Floats], adjusted: Floats) -> dict[str, Floats]:
    """Return prices × f and volume ÷ f with f = adjusted close ÷ close: as if no split or dividend had happened.

    Back-adjusted *levels* hold future splits; only ratios of them may be used. A zero or missing close gives NaN, which
    the check stage reports.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = adjusted / values["close"]
        result = {name: values[name] * factor for name in PRICES}
        result["volume"] = values["volume"] / factor
    return result


def context_frame(at: Times, known: Times, close: Floats, *, shown: str) -> pd.DataFrame:
    """Return a context frame in order of publication, without missing values.

    A value that was published after a newer one is left out: at no time is it the newest known.

    Parameters
    ----------
    at, known, close
        Times (UTC), the moments from which they may be used (UTC), values; each of shape (n,), any order.

    Raises
    ------
    DataError
        If a value counts as known before its own time.
    """
    early = known < at
    if early.any():
        raise DataError(f"{shown}: known_at must not be before the time itself, got {known[early][0]} < {at[early][0]}")
    order = np.lexsort((at, known))
    order = order[~np.isnan(close[order])]
    order = order[at[order] == np.maximum.accumulate(at[order])]
    columns = (from_times(at[order]), from_times(known[order]), close[order])
    return pd.DataFrame(dict(zip(CONTEXT_COLUMNS, columns, strict=True)))
