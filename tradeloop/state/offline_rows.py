"""The offline feature files without a query engine: which row was in force at a moment, in microseconds.

The rule is that of `asof_join`, symbol by symbol and without TTL; a server needs neither polars nor Feast for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tradeloop import partitions
from tradeloop.bars import Times
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.feature_rows import OnlineRows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED_FILES = 512


@dataclass(frozen=True)
class Timeline:
    """The rows of one file in order of (event time, created time), and when each came to be the one in force.

    Attributes
    ----------
    vectors
        float32 (n, d), NaN in warm-up.
    event
        Event times, ``datetime64[us]`` UTC, not decreasing.
    known_at
        Moments, not decreasing, at which a row became known.
    in_force
        For each of `known_at`, the row in force from then on.
    """

    vectors: NDArray[np.float32]
    event: Times
    known_at: Times
    in_force: NDArray[np.intp]

    def at(self, moment: np.datetime64) -> int | None:
        """Return the row in force at `moment` (UTC), None before the first."""
        found = int(np.searchsorted(self.known_at, moment, side="right")) - 1
        return None if found < 0 else int(self.in_force[found])


class OfflineRows:
    """The files of ``data/features``; what was read stays in memory until a file changes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._read = functools.lru_cache(maxsize=_CACHED_FILES)(_read_version)
        self._list = functools.lru_cache(maxsize=1)(_list_version)

    def symbols(self, schema: Schema) -> list[str]:
        """Return the symbols that have files, sorted.

        Raises
        ------
        StoreError
            There are no feature files.
        SchemaMismatch
            They were made under another schema.
        """
        folder, declared = self._layout.features, self._layout.store / "schema.json"
        try:
            found, made_under = self._list(folder, declared, folder.stat().st_mtime_ns, declared.stat().st_mtime_ns)
        except FileNotFoundError:
            found, made_under = (), ""
        if not found:
            raise StoreError(f"{folder} holds no features: run the pipeline up to its store stage first")
        schema.require(made_under, what=str(folder))
        return list(found)

    def newest(self, symbols: Sequence[str], schema: Schema) -> OnlineRows:
        """Return the newest row of each of `symbols` (which have files), with its time even if it is all NaN."""
        rows = OnlineRows.empty(len(symbols), len(schema))
        for at, symbol in enumerate(symbols):
            # A file holds the event times of its period alone, so the newest row is in the last one that has any.
            for path in reversed(partitions.files(self._layout.features, symbol)):
                timeline = read_timeline(path, schema.names)
                if len(timeline.event):
                    rows.vectors[at], rows.feature_time[at] = timeline.vectors[-1], timeline.event[-1]
                    break
        return rows

    def as_of(self, symbols: Sequence[str], schema: Schema, moment: datetime) -> OnlineRows:
        """Return the row of each of `symbols` in force, as then known, at `moment` (naive: UTC)."""
        known = set(self.symbols(schema))
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        time = np.datetime64((aware - _EPOCH) // timedelta(microseconds=1), "us")
        rows = OnlineRows.empty(len(symbols), len(schema))
        for at, symbol in enumerate(symbols):
            if symbol not in known:
                continue
            paths = partitions.until(partitions.files(self._layout.features, symbol), time)
            if found := self._in_force(reversed(paths), schema.names, time):
                timeline, row = found
                rows.vectors[at], rows.feature_time[at] = timeline.vectors[row], timeline.event[row]
        return OnlineRows.of(rows.vectors, rows.feature_time)

    def _in_force(
        self, newest_first: Iterable[Path], names: tuple[str, ...], moment: np.datetime64
    ) -> tuple[Timeline, int] | None:
        """Return the row in force at a moment: that of the newest period that has one known by then."""
        for path in newest_first:
            timeline = self._timeline(path, names)
            if (row := timeline.at(moment)) is not None:
                return timeline, row
        return None

    def _timeline(self, path: Path, names: tuple[str, ...]) -> Timeline:
        try:
            version = path.stat()
        except FileNotFoundError:
            raise StoreError(f"{path} is being replaced") from None
        return self._read(path, names, version.st_mtime_ns, version.st_size)


def _list_version(folder: Path, declared: Path, *version: int) -> tuple[tuple[str, ...], str]:
    """Return the symbols that have files, sorted, and the hash of the schema that they were made under."""
    del version
    return tuple(partitions.symbols(folder)), Schema.load(declared).hash


def _read_version(path: Path, names: tuple[str, ...], *version: int) -> Timeline:
    """Read a file; its modification time and size only tell its versions apart in a cache."""
    del version
    return read_timeline(path, names)


def read_timeline(path: Path, names: tuple[str, ...]) -> Timeline:
    """Read the feature rows of one file.

    Raises
    ------
    StoreError
        The file is not parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["timestamp", "created", *names]
    try:
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} is not a feature file: {' '.join(str(error).split())}") from None
    if missing := [name for name in columns if name not in table.column_names]:
        raise StoreError(f"{path} has no column {missing[0]!r}: it was made under another schema")
    event, created = (table.column(name).to_numpy().astype("datetime64[us]") for name in columns[:2])
    vectors = np.empty((len(event), len(names)), dtype=np.float32)
    for at, name in enumerate(names):
        vectors[:, at] = table.column(name).to_numpy()
    order = np.lexsort((created, event))
    event, created = event[order], created[order]
    known = np.maximum(event, created)
    by_known = np.argsort(known, kind="stable")
    return Timeline(vectors[order], event, known[by_known], np.maximum.accumulate(by_known))
