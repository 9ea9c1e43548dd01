"""Session: where an intraday bar stands in its trading session, and the price against this session and the one before.

Sessions are the calendar's: an exchange's hours, the day that foreign exchange ends at 17:00 in New York, or a UTC day.
A session is taken to have no more bars than a whole day: of more, which only irregular bars could have, the newest.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import typical_flow
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import Sessions, feature
from tradeloop.features.rolling import ratio
from tradeloop.features.schedule import session_times

QUIET = 1e-5

# Rows of what `_levels` knows of a bar's session up to the bar, and of the session before.
OPEN, HIGH, LOW, FLOW, VOLUME, LAST_CLOSE, LAST_HIGH, LAST_LOW = range(8)


@compiled
def _levels(number: Floats, prices: Floats, flow: Floats, volume: Floats, longest: int) -> Floats:
    """Return the levels of each bar's session; `prices` are the rows open, high, low and close."""
    levels = np.full((8, len(number)), np.nan)
    for i in range(len(number)):
        first = i
        while first > 0 and number[first - 1] == number[i] and i - first + 1 < longest:
            first -= 1
        levels[OPEN, i], high, low, money, traded = prices[0, first], -np.inf, np.inf, 0.0, 0.0
        for j in range(first, i + 1):
            high, low = max(high, prices[1, j]), min(low, prices[2, j])
            money += flow[j]
            traded += volume[j]
        levels[HIGH, i], levels[LOW, i], levels[FLOW, i], levels[VOLUME, i] = high, low, money, traded
        j, last, high, low = first - 1, first - 1, -np.inf, np.inf
        while j >= 0 and number[j] == number[last] and last - j < longest:
            high, low = max(high, prices[1, j]), min(low, prices[2, j])
            j -= 1
        if last >= 0:
            levels[LAST_CLOSE, i], levels[LAST_HIGH, i], levels[LAST_LOW, i] = prices[3, last], high, low
    return levels


def _session(bars: Bars, sessions: Sessions) -> Floats:
    def make() -> Floats:
        number = np.ascontiguousarray(session_times(bars, sessions.calendar)[0])
        prices = np.stack([bars.open, bars.high, bars.low, bars.close])
        return _levels(number, prices, typical_flow(bars), bars.volume, sessions.bars)

    return bars.memo(f"session levels {sessions.calendar} {sessions.bars}", make)


@feature(lookback=1, per_session=True, intraday=True, columns=("session_progress", "first_hour", "last_hour"))
def clock(bars: Bars, sessions: Sessions) -> tuple[Floats, Floats, Floats]:
    """Share of the session that lies behind the bar's close, in [0, 1]; whether it is in its first, in its last hour.

    Early closes are known beforehand; a bar before the open stands at 0. Wood, McInish, Ord (1985).
    """
    _, since, until, *_ = session_times(bars, sessions.calendar)
    return np.clip(since / (since + until), 0.0, 1.0), 1.0 * (since <= 1.0), 1.0 * (until < 1.0)


@feature(lookback=lambda bars: 2 * bars, per_session=True, intraday=True)
def session_gap(bars: Bars, sessions: Sessions) -> Floats:
    """Gap that the session opened with: ln(O of its first bar / C of the last bar before it), held all session."""
    levels = _session(bars, sessions)
    opened: Floats = np.log(levels[OPEN] / levels[LAST_CLOSE])
    return opened


@feature(lookback=lambda bars: 2 * bars, per_session=True, intraday=True)
def session_return(bars: Bars, sessions: Sessions) -> Floats:
    """Log return since the session's open: ln(C / O of its first bar). Gao, Han, Li, Zhou (2018)."""
    change: Floats = np.log(bars.close / _session(bars, sessions)[OPEN])
    return change


@feature(lookback=lambda bars: 2 * bars, per_session=True, intraday=True)
def session_position(bars: Bars, sessions: Sessions) -> Floats:
    """Place of the close in the session's range so far: (C − low) / (high − low), in [0, 1]; 0.5 where it has none."""
    levels = _session(bars, sessions)
    return ratio(bars.close - levels[LOW], levels[HIGH] - levels[LOW], empty=0.5)


@feature(lookback=lambda bars: 2 * bars, per_session=True, intraday=True)
def session_range(bars: Bars, sessions: Sessions) -> Floats:
    """Log ratio of the session's range so far, ln(high / low), to that of the session before; each at least 1e-5."""
    levels = _session(bars, sessions)
    now: Floats = np.maximum(np.log(levels[HIGH] / levels[LOW]), QUIET)
    usual: Floats = np.maximum(np.log(levels[LAST_HIGH] / levels[LAST_LOW]), QUIET)
    return np.log(now / usual)


@feature(lookback=lambda bars: 2 * bars, per_session=True, intraday=True)
def session_vwap_distance(bars: Bars, sessions: Sessions) -> Floats:
    """Log distance of the close from the session's volume-weighted typical price: ln(C Σ V / Σ T V); 0 without any."""
    levels = _session(bars, sessions)
    return np.log(ratio(bars.close * levels[VOLUME], levels[FLOW], empty=1.0))


@feature(
    lookback=lambda bars: 2 * bars,
    per_session=True,
    intraday=True,
    columns=("last_session_high_distance", "last_session_low_distance"),
)
def last_session(bars: Bars, sessions: Sessions) -> tuple[Floats, Floats]:
    """Log distance of the close from the high, and from the low, of the session before: ln(C / high), ln(C / low)."""
    levels = _session(bars, sessions)
    return np.log(bars.close / levels[LAST_HIGH]), np.log(bars.close / levels[LAST_LOW])
