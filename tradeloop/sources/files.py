"""Bars from your own CSV or parquet files, one a symbol."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import pandas as pd

from tradeloop.config import FileMarket, parse_interval
from tradeloop.errors import ConfigError, DataError
from tradeloop.sources.base import Source
from tradeloop.sources.table import TableFormat, bars_from, context_frame, numbers, read_table, times

SUFFIXES = (".parquet", ".csv", ".csv.gz")


class Files(Source):
    """Reads ``<path>/<symbol>.parquet|.csv|.csv.gz``, or the path itself where it holds ``{symbol}``.

    A context file has a column of times and ``close``, and may have ``known_at``: the moment from which the value could
    be used. Without it a value counts as known at its own time, so that time must not be earlier than its publication.
    """

    name = "files"

    def read(self, symbol: str) -> pd.DataFrame:
        """Return the raw bar frame of a symbol; see `Source.read`."""
        files = self._files
        path = self._find(files.path, symbol)
        shown = self._shown(path)
        return bars_from(
            read_table(path, shown=shown),
            _format(files),
            calendar=self.market.calendar,
            interval=parse_interval(self.market.interval),
            shown=shown,
        )

    def version(self, symbol: str) -> Hashable:
        """Return which file it is, its size and when it was last written."""
        return self._stamp(symbol, self._find(self._files.path, symbol))

    def context_version(self, name: str) -> Hashable:
        """Return which file it is, its size and when it was last written."""
        return self._stamp(name, self._context_file(name))

    def read_context(self, name: str) -> pd.DataFrame:
        """Return the context frame of a series; see `Source.read_context`."""
        files = self._files
        path = self._context_file(name)
        shown = self._shown(path)
        table = read_table(path, shown=shown)
        close = numbers(table, files.columns.get("close", "close"), shown=shown)
        at = times(table, _format(files), shown=shown)
        known = at
        if "known_at" in table.columns:
            known = times(table, _format(files, timestamp="known_at"), shown=shown)
        return context_frame(at, known, close, shown=shown)

    @property
    def _files(self) -> FileMarket:
        if self.market.files is None:
            raise ConfigError("source: files needs a files: block that says where they are")
        return self.market.files

    def _context_file(self, name: str) -> Path:
        path = self._files.context_path
        if path is None:
            raise ConfigError(f"context {name!r} needs files.context_path, which says where it is")
        return self._find(path, name)

    def _stamp(self, name: str, path: Path) -> Hashable:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{name}: {self._shown(path)}: {error.strerror}") from None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _find(self, path: str, symbol: str) -> Path:
        if "{symbol}" in path:
            return self.root / path.replace("{symbol}", symbol)
        folder = self.root / path
        candidates = [folder / f"{symbol}{suffix}" for suffix in SUFFIXES]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if len(found) > 1:
            raise DataError(f"{symbol}: {[self._shown(f) for f in found]} are both there; keep one")
        if not found:
            names = ", ".join(candidate.name for candidate in candidates)
            raise DataError(f"{symbol}: {self._shown(folder)} holds none of {names}")
        return found[0]

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def _format(files: FileMarket, *, timestamp: str | None = None) -> TableFormat:
    return TableFormat(
        timestamp=timestamp or files.timestamp,
        timestamp_format=files.timestamp_format,
        timezone=files.timezone,
        stamped_at=files.stamped_at,
        columns={str(name): column for name, column in files.columns.items()},
    )
