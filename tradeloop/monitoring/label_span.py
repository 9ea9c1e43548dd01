"""The labels of a stretch of bars, computed on the bars that they read and on no others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Times
from tradeloop.config import Labels, Regimes
from tradeloop.labels import LabelArrays, label_arrays
from tradeloop.monitoring.records import Regime
from tradeloop.monitoring.regimes import REGIMES, Codes, RegimeTracker


@dataclass(frozen=True, slots=True)
class Labelled:
    """What became of one bar: see `records.Outcome`; the prices are those of the labels' trade."""

    label_end: datetime
    direction: float
    ret: float
    range: float
    regime: Regime
    entry: float
    exit: float


@dataclass(frozen=True, slots=True)
class LabelSpan:
    """Labels and regimes of the bars from position `first` on."""

    first: int
    labels: LabelArrays
    regimes: Codes

    def at(self, position: int) -> Labelled:
        """Return what became of the bar at a position."""
        i, labels = position - self.first, self.labels
        return Labelled(
            to_moment(labels.end[i]),
            float(labels.direction[i]),
            float(labels.gross[i]),
            float(labels.spread[i]),
            REGIMES[int(self.regimes[i])],
            float(labels.entry[i]),
            float(labels.exit[i]),
        )


class Labeller:
    """Computes what became of bars; remembers of each symbol what the next regimes need."""

    def __init__(self, labels: Labels, regimes: Regimes) -> None:
        self.horizon = labels.horizon
        self._labels = labels
        self._regimes = regimes
        self._trackers: dict[str, tuple[int, RegimeTracker]] = {}

    def span(self, bars: Bars, restated: int, at: NDArray[np.intp]) -> LabelSpan:
        """Return the labels of the bars from the least position of `at` to the greatest, which have ended.

        Parameters
        ----------
        restated
            How often the symbol's bars have been restated; see `feed.Version`.
        """
        first, last = int(at.min()), int(at.max())
        labels = label_arrays(bars[first : last + self.horizon + 1], self._labels)
        known = self._trackers.get(bars.symbol)
        if known is None or known[0] != restated:
            known = self._trackers[bars.symbol] = (restated, RegimeTracker(self._regimes))
        return LabelSpan(first, labels, known[1].codes(bars, first, last))


def to_moment(time: np.datetime64) -> datetime:
    """Return a bar's time as an aware datetime."""
    value: datetime = time.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)


def to_stamps(times: list[datetime]) -> Times:
    """Return aware datetimes as ``datetime64[us]``, UTC."""
    return np.array([time.astimezone(UTC).replace(tzinfo=None) for time in times], dtype="datetime64[us]")


def locate(bars: Bars, times: Times) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the position of each time among the bars, and whether there is a bar of that very time."""
    at = np.searchsorted(bars.timestamp, times)
    there = at < len(bars)
    there[there] = bars.timestamp[at[there]] == times[there]
    return at, there
