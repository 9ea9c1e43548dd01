"""The point-in-time join: for each entity row, the feature row that was in force, and known, at its time.

A feature row has an *event time* (what it describes) and, where it may be restated, a *created time* (when it was
written). At time t the visible rows of a key are those with ``event ≤ t`` and ``created ≤ t``; the one in force is the
newest by event time, then by created time, then by its place in the source. It counts only while ``event + ttl ≥ t``.

One pass finds it:

1. order a key's rows by (event, created, place); a row's number in that order is its rank;
2. a row becomes known at ``max(event, created)``; in order of that moment, the running maximum of rank is the row in
   force from then on;
3. one as-of join on that moment gives each entity row its rank, and the rank is the position of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import polars as pl

TimeUnit = Literal["us", "ns"]

_RANK, _ROW, _PLACE, _TIME, _KNOWN = "__rank", "__row", "__place", "__time", "__known"


def asof_join(
    entities: pl.DataFrame,
    rows: pl.DataFrame,
    *,
    keys: Sequence[str],
    time: str,
    event: str,
    created: str | None,
    ttl: timedelta | None,
) -> pl.DataFrame:
    """Return, for each of `entities` in their order, the columns of `rows` that are in force at its time.

    Parameters
    ----------
    entities
        Holds `keys` and `time`; duplicates are allowed and kept.
    rows
        Holds `keys`, `event`, `created` (unless None) and the features, in any order, restated rows among them.
    keys
        Columns that must be equal; a null key matches nothing.
    time, event, created
        Datetimes of any unit; a naive one is UTC. A row without event or created time is never visible.
    ttl
        Age by event time up to which (inclusive) a row counts; None or zero: any age.

    Returns
    -------
    pl.DataFrame
        The columns of `rows` but for `keys`, one row an entity row, null where nothing is in force.
    """
    stamps = [event] if created is None else [event, created]
    found = in_force(entities, rows, keys=keys, time=time, event=event, created=created, ttl=ttl)
    unit = finest_unit(rows.select(stamps).dtypes)
    rows = rows.drop(keys).with_columns(to_utc(column, unit) for column in stamps)
    return rows.select(pl.all().gather(found))


def in_force(
    entities: pl.DataFrame,
    rows: pl.DataFrame,
    *,
    keys: Sequence[str],
    time: str,
    event: str,
    created: str | None,
    ttl: timedelta | None,
) -> pl.Series:
    """Return the positions in `rows` of what `asof_join` joins, null where nothing is in force.

    The features need not be among the columns of `rows`: they may be read afterwards, part by part.
    """
    stamps = [event] if created is None else [event, created]
    unit = finest_unit([*rows.select(stamps).dtypes, entities.schema[time]])
    known = rows.select(
        *keys, *(to_utc(column, unit) for column in stamps), pl.int_range(pl.len(), dtype=pl.UInt32).alias(_PLACE)
    )
    known = known.drop_nulls([*keys, *stamps]).sort(stamps, maintain_order=True)
    wanted = entities.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW),
        to_utc(time, unit).alias(_TIME),
        *(pl.col(key).cast(rows.schema[key]) for key in keys),
    )
    found = (
        wanted.drop_nulls([_TIME, *keys])
        .sort(_TIME)
        # Both sides are sorted by time as a whole (polars cannot check that group by group); of several rows that
        # became known at one moment polars takes the last, which has the highest rank.
        .join_asof(
            _in_force(known, keys, stamps),
            left_on=_TIME,
            right_on=_KNOWN,
            by=list(keys),
            strategy="backward",
            check_sortedness=False,
        )
    )
    if ttl:
        fresh = known[event].gather(found[_RANK]) + ttl >= found[_TIME]
        found = found.filter(fresh.fill_null(False))
    found = found.drop_nulls(_RANK)
    positions = pl.select(pl.repeat(None, entities.height, dtype=pl.UInt32)).to_series()
    return positions.scatter(found[_ROW], known[_PLACE].gather(found[_RANK]))


def _in_force(rows: pl.DataFrame, keys: Sequence[str], stamps: Sequence[str]) -> pl.DataFrame:
    """Return, for each key and moment at which something became known, the rank in force from that moment on."""
    return (
        rows.select(
            *keys,
            pl.max_horizontal(stamps).alias(_KNOWN),
            pl.int_range(pl.len(), dtype=pl.UInt32).alias(_RANK),
        )
        .sort(_KNOWN, maintain_order=True)
        .with_columns(pl.col(_RANK).cum_max().over(keys))
    )


def to_utc(column: str, unit: TimeUnit) -> pl.Expr:
    """Return `column` as UTC datetimes of `unit`; a naive one is taken as UTC."""
    return pl.col(column).cast(pl.Datetime(unit, "UTC"))


def finest_unit(dtypes: Sequence[pl.DataType]) -> TimeUnit:
    """Return the unit in which all of `dtypes` are exact: nanoseconds if one needs them, else microseconds."""
    return "ns" if any(isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns" for dtype in dtypes) else "us"
