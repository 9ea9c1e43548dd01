"""Live performance: metrics over rolling windows, per symbol, regime, model and arm.

Every outcome is counted under eight keys: its symbol or all (``*``), its regime or all, its arm or all, its model. An
answer to a question that the same model had answered before (`Outcome.repeat`) is not counted again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert
from sqlalchemy.dialects import postgresql, sqlite

from tradeloop.config import Performance, parse_interval
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scorecard import SERIES, TERMS, MarketFacts, Metrics, entry_of, of_series, of_sums
from tradeloop.monitoring.windows import Rows, Track, Window
from tradeloop.state.tables import PerformanceNewestRow, PerformanceWindowRow

ALL = "*"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PATIENCE = 20
_LEAST_ROOM = 4096

Held = tuple[tuple[str, ...], int, int, int]
"""Model, symbol and regime, first and last row, and how many: on all arms and on one, the same are the same rows."""

Replay = Callable[[int], Iterable[Resolved]]
"""Yields the resolved predictions after a number, in order."""


class Key(NamedTuple):
    """Whose outcomes; ``*`` for all. A model is always named."""

    model: str
    symbol: str = ALL
    regime: str = ALL
    arm: str = ALL


@dataclass(frozen=True, slots=True)
class WindowRow:
    """Metrics of one window at one moment, a row of ``performance_windows``."""

    key: Key
    window: str
    as_of: datetime
    outcome_seq: int
    count: int
    metrics: Metrics

    def to_columns(self) -> dict[str, Any]:
        """Return the columns of the table, but for the market."""
        key = {"model": self.key.model, "symbol": self.key.symbol, "regime": self.key.regime, "arm": self.key.arm}
        own = {"as_of": self.as_of, "outcome_seq": self.outcome_seq, "count": self.count, "metrics": self.metrics}
        return {**key, "window": self.window, **own}


class PerformanceBook:
    """The windows of one market, kept as outcomes come in.

    A track (the windows of one key) is forgotten when nothing came in for longer than the longest span while
    `_PATIENCE` times the longest count was learned of others: a model that is gone, a regime of the first days.
    """

    def __init__(self, config: Performance, facts: MarketFacts) -> None:
        self._config = config
        self._facts = facts
        self._longest = max(map(_microseconds, map(parse_interval, config.spans)))
        self._patience = _PATIENCE * config.counts[-1]
        self.seq = 0
        """Number of the newest outcome that was counted."""
        self._clear()

    def _clear(self) -> None:
        self._rows = Rows(len(TERMS), len(SERIES))
        self._tracks: dict[Key, Track] = {}
        self._due: set[Key] = set()
        self._told: deque[tuple[str, int]] = deque()  # prediction and outcome's number of each row
        self._numbers: dict[str, int] = {}
        self._room = _LEAST_ROOM
        self._newest = -(2**62)

    @property
    def due(self) -> bool:
        """Whether `write` would store anything."""
        return bool(self._due)

    @property
    def keys(self) -> list[Key]:
        """Whose windows there are, sorted."""
        return sorted(key for key, track in self._tracks.items() if not self._is_over(track))

    def update(self, resolved: Resolved) -> None:
        """Count one outcome; outcomes come in the order of their numbers."""
        self.seq = resolved.seq
        outcome, prediction = resolved.outcome, resolved.prediction
        if outcome.repeat or outcome.label_end is None:
            return
        if self._rows.size - self._rows.first >= self._room:
            self._trim()
        row = self._rows.append(*entry_of(resolved, self._facts))
        self._told.append((prediction.id, resolved.seq))
        self._numbers[prediction.id] = row
        time = _microseconds(outcome.label_end - _EPOCH)
        self._newest = max(self._newest, time)
        for key in _keys(resolved):
            track = self._tracks.get(key)
            if track is None or self._is_over(track):
                track = self._tracks[key] = Track(self._rows, _windows(self._config), due_at=self._config.every)
            track.append(row, time)
            if track.size >= track.due_at:
                self._due.add(key)

    def restate(self, resolved: Resolved) -> None:
        """Put restated labels in the place of those that were counted, wherever they are still in a window."""
        row = self._numbers.get(resolved.prediction.id)
        if row is None:
            return
        self._rows.replace(row, *entry_of(resolved, self._facts))
        for key in _keys(resolved):
            if key in self._tracks:
                self._due.add(key)
                for window in self._tracks[key].windows:
                    window.forget()
                    window.written = -1

    def sums(self, key: Key, window: str, now: datetime) -> Metrics:
        """Return the metrics of a window that cost nothing to know; see `scorecard`. Empty for an unknown key."""
        track = self._tracks.get(key)
        if track is None:
            return {}
        chosen = next(each for each in track.windows if each.name == window)
        low = track.bounds(chosen, _microseconds(now - _EPOCH))
        return of_sums(track.sums(chosen, low), track.size - low, self._config.confidence)

    def snapshot(self, now: datetime) -> list[WindowRow]:
        """Return all metrics of all windows that hold anything."""
        known: dict[Held, Metrics] = {}
        return [row for key in self.keys for row in self._measure(key, self._tracks[key].windows, now, known)]

    def write(self, connection: Connection, market: str, now: datetime) -> int:
        """Store the windows that are due, in the caller's transaction; return how many.

        A window is due when as many outcomes as a tenth of it, and `every` at least, came in since it was last written,
        or when one in it was restated.
        """
        known: dict[Held, Metrics] = {}
        rows: list[WindowRow] = []
        for key in sorted(self._due):
            track = self._tracks[key]
            due = [window for window in track.windows if self._is_due(track, window, now)]
            rows += self._measure(key, due, now, known)
            for window in due:
                window.written = track.size
            track.due_at = min(window.written + self._pace(track, window, now) for window in track.windows)
        self._due.clear()
        if rows:
            _store(connection, [{"market": market, **row.to_columns()} for row in rows])
        return len(rows)

    def state(self) -> dict[str, int]:
        """Return from where to where outcomes have to be counted again to have this book."""
        needed = self._needed()
        first = self._told[needed - self._rows.first][1] if self._told else self.seq + 1
        return {"after": first - 1, "seq": self.seq}

    def restore(self, state: Mapping[str, int], replay: Replay) -> None:
        """Have the windows of a `state` again; `replay` yields the outcomes after a number, in order."""
        self._clear()
        for resolved in replay(state["after"]):
            if resolved.seq > state["seq"]:
                break
            self.update(resolved)
        self.seq = state["seq"]
        for track in self._tracks.values():
            for window in track.windows:
                window.written = track.size
            track.due_at = track.size + self._config.every
        self._due.clear()

    def _measure(
        self, key: Key, windows: Iterable[Window], now: datetime, known: dict[Held, Metrics]
    ) -> list[WindowRow]:
        """Return the rows of those windows of a key that hold anything."""
        track, time = self._tracks[key], _microseconds(now - _EPOCH)
        lows = [(window, track.bounds(window, time)) for window in windows]
        first = min((low for _, low in lows), default=track.size)
        own = track.own(first)
        found = []
        for window, low in lows:
            count = track.size - low
            if count == 0:
                continue
            held = (key[:3], int(own[low - first]), track.last_row, count)
            if held not in known:
                sums = track.sums(window, low)
                known[held] = of_sums(sums, count, self._config.confidence)
                known[held] |= of_series(self._rows.series(own[low - first :]), sums, self._facts)
            found.append(WindowRow(key, window.name, now, self.seq, count, known[held]))
        return found

    def _is_due(self, track: Track, window: Window, now: datetime) -> bool:
        return window.written < 0 or track.size - window.written >= self._pace(track, window, now)

    def _pace(self, track: Track, window: Window, now: datetime) -> int:
        """Return how many outcomes lie between two rows of a window."""
        held = track.size - track.bounds(window, _microseconds(now - _EPOCH))
        return max(self._config.every, held // 10)

    def _is_over(self, track: Track) -> bool:
        silent = self._newest - track.newest > self._longest
        return silent and self._rows.size - track.last_row > self._patience

    def _needed(self) -> int:
        """Return the oldest row that a window may still need."""
        tracks = [track for track in self._tracks.values() if not self._is_over(track)]
        return min((track.first_row() for track in tracks), default=self._rows.size)

    def _trim(self) -> None:
        """Forget keys that are over and the rows that nobody needs, or allow for twice as many."""
        over = [key for key, track in self._tracks.items() if self._is_over(track)]
        for key in over:
            del self._tracks[key]
            self._due.discard(key)
        gone = self._needed() - self._rows.first
        if gone < self._room // 2:
            self._room *= 2
            return
        for _ in range(gone):
            del self._numbers[self._told.popleft()[0]]
        self._rows.drop(self._rows.first + gone)


@lru_cache(maxsize=4096)
def keys_of(model: str, symbol: str, regime: str, arm: str) -> tuple[Key, ...]:
    """Return the keys that an outcome counts under."""
    return tuple(Key(model, *rest) for rest in product((symbol, ALL), (regime, ALL), (arm, ALL)))


def _keys(resolved: Resolved) -> tuple[Key, ...]:
    told = resolved.prediction
    return keys_of(told.model, told.symbol, resolved.outcome.regime, told.arm)


def _store(connection: Connection, values: list[dict[str, Any]]) -> None:
    connection.execute(insert(PerformanceWindowRow), values)
    upsert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(PerformanceNewestRow)
    fresh = {name: upsert.excluded[name] for name in ("as_of", "outcome_seq", "count", "metrics")}
    key = ["market", "model", "symbol", "regime", "arm", "window"]
    connection.execute(upsert.on_conflict_do_update(index_elements=key, set_=fresh), values)


def _windows(config: Performance) -> list[Window]:
    counted = [Window(f"n:{count}", count, None) for count in config.counts]
    return counted + [Window(f"t:{span}", None, _microseconds(parse_interval(span))) for span in config.spans]


def _microseconds(span: timedelta) -> int:
    return span // _MICROSECOND
