"""Higher timeframes: bars of a longer span, gathered from closed base bars only.

A bucket of span s is the time (k s, (k + 1) s], counted in UTC, weeks from Monday 00:00; a base bar belongs to the one
that its close lies in. The higher bar exists only from the first base close at or after the bucket's end: the base bar
that ends with the bucket closes it, else the first bar of a later bucket does, for who has seen no later bar cannot
know that none is missing. A bucket without base bars has no higher bar. So

* a daily bar of shares is the session, and is there from the first bar of the next one, for sessions end before 24:00;
* a daily bar of round-the-clock markets ends at 24:00 UTC, whatever the season; Sunday evening's bars of currencies
  make a short bar of their own, and belong to the week that ends with them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.features.compiled import compiled

Integers = NDArray[np.int64]

MONDAY = 4 * 86_400_000_000
"""1970-01-05 in microseconds: all spans that divide a week have a bucket that begins then."""


class Gathered(NamedTuple):
    """Higher bars, and where each of n base bars stands among them.

    Attributes
    ----------
    own
        Number of the higher bar that each base bar belongs to, (n,).
    closed
        How many higher bars are closed at each base bar's close, (n,): those before its own, and maybe its own.
    high, low, close, volume
        Of the m higher bars, the last of which may be open still. The first one is whole only if the base bars begin
        with it, which they cannot tell.
    """

    own: Integers
    closed: Integers
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


def gather(bars: Bars, span: timedelta) -> Gathered:
    """Return the higher bars of `span`, a part or a multiple of a day that divides a week.

    Examples
    --------
    >>> quarters = np.datetime64("2024-03-04T09:15", "us") + np.arange(6) * np.timedelta64(15, "m")
    >>> close = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    >>> hours = gather(Bars("X", quarters, close, close, close, close, close), timedelta(hours=1))
    >>> hours.closed  # 10:00 closes the first hour
    array([0, 0, 0, 1, 1, 1])
    >>> hours.volume
    array([10., 11.])
    """
    times = bars.timestamp.view(np.int64)
    return Gathered(*_gather(times, bars.high, bars.low, bars.close, bars.volume, span // timedelta(microseconds=1)))


@compiled
def _gather(
    times: Integers, high: Floats, low: Floats, close: Floats, volume: Floats, span: int
) -> tuple[Integers, Integers, Floats, Floats, Floats, Floats]:
    size = len(times)
    own, closed = np.empty(size, np.int64), np.empty(size, np.int64)
    highs, lows, closes, volumes = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    newest, end = -1, np.int64(0)
    for i in range(size):
        if newest < 0 or times[i] > end:
            end = MONDAY - (MONDAY - times[i]) // span * span
            newest += 1
            highs[newest], lows[newest], volumes[newest] = high[i], low[i], volume[i]
        else:
            highs[newest] = max(highs[newest], high[i])
            lows[newest] = min(lows[newest], low[i])
            volumes[newest] += volume[i]
        closes[newest] = close[i]
        own[i] = newest
        closed[i] = newest + 1 if times[i] == end else newest
    count = newest + 1
    return own, closed, highs[:count], lows[:count], closes[:count], volumes[:count]
