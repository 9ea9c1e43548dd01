"""A market's source together with what was streamed since: the bars of its journal, which win where both have one."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, Times, from_times, to_times
from tradeloop.journal import BEGINNING, Journal
from tradeloop.sources.base import Source
from tradeloop.sources.table import context_frame


class _Rows:
    """What the journal says of one series, in the order in which it was said: packed, for there may be millions."""

    def __init__(self) -> None:
        self.times = array("q")
        self.values = array("d")

    def add(self, times: tuple[int, ...], values: tuple[float, ...]) -> None:
        self.times.extend(times)
        self.values.extend(values)


class Streamed(Source):
    """Reads another source and puts the journal's bars and context values in; the last word on a bar counts.

    Where the journal has nothing of a series, the frame is the source's own.

    Parameters
    ----------
    source
        Where the history comes from.
    folder
        The journal's segments.
    """

    name = "streamed"

    def __init__(self, source: Source, folder: Path) -> None:
        super().__init__(source.market, root=source.root, seed=source.seed)
        self._source = source
        self._journal = Journal(folder)
        self._mark = BEGINNING
        self._bars: dict[str, _Rows] = {}
        self._levels: dict[str, _Rows] = {}

    def fetch(self, symbol: str, start: np.datetime64, end: np.datetime64) -> pd.DataFrame:
        """Return what the source itself has now; see `Source.fetch`."""
        return self._source.fetch(symbol, start, end)

    def version(self, symbol: str) -> Hashable:
        """Return the source's version and how much was streamed."""
        self._look()
        rows = self._bars.get(symbol)
        return self._source.version(symbol), len(rows.times) if rows else 0

    def context_version(self, name: str) -> Hashable:
        """Return the source's version and how much was streamed."""
        self._look()
        rows = self._levels.get(name)
        return self._source.context_version(name), len(rows.times) if rows else 0

    def read(self, symbol: str) -> pd.DataFrame:
        """Return the source's bars, those that were streamed in their place by time; see `Source.read`."""
        frame = self._source.read(symbol)
        self._look()
        rows = self._bars.get(symbol)
        if rows is None:
            return frame
        times = np.array(rows.times).view("datetime64[us]")
        _, last = np.unique(times[::-1], return_index=True)  # of each time the last that was said
        last = len(times) - 1 - last
        values = np.array(rows.values).reshape(-1, len(COLUMNS) - 1)[last]
        said = pd.DataFrame({"timestamp": from_times(times[last])})
        said[list(COLUMNS[1:])] = values
        return _merged(frame[~frame["timestamp"].isin(said["timestamp"])], said)

    def read_context(self, name: str) -> pd.DataFrame:
        """Return the source's values and those that were streamed; see `Source.read_context`."""
        frame = self._source.read_context(name)
        self._look()
        rows = self._levels.get(name)
        if rows is None:
            return frame
        at, known = np.array(rows.times).reshape(-1, 2).T.copy().view("datetime64[us]")
        times, moments = (
            np.concatenate([to_times(frame[column]), said]) for column, said in (("timestamp", at), ("known_at", known))
        )
        return context_frame(times, moments, np.concatenate([frame["close"], rows.values]), shown=name)

    def _look(self) -> None:
        """Read what was appended since the last look."""
        if self._journal.size() == self._mark:
            return
        commits, self._mark = self._journal.read(self._mark)
        for commit in commits:
            for bar in commit.bars:
                self._bars.setdefault(bar.symbol, _Rows()).add((bar.time,), bar[2:7])
            for level in commit.levels:
                self._levels.setdefault(level.series, _Rows()).add((level.time, level.known), (level.close,))


def _merged(frame: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """Return both, each row of `said` behind all rows of `frame` up to its time; the order of `frame` is left alone."""
    reached: Times = np.maximum.accumulate(to_times(frame["timestamp"]))
    place = np.searchsorted(reached, to_times(said["timestamp"]), side="right")
    order = np.argsort(np.concatenate([np.arange(len(frame)) * 2 + 1, place * 2]), kind="stable")
    return pd.concat([frame, said], ignore_index=True).iloc[order].reset_index(drop=True)
