"""Price action: the shape of the last bars, and where they stand among the extremes of their past."""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import body, change, gap, previous_close, spread, true_range
from tradeloop.features.compiled import compiled
from tradeloop.features.ordered import age_of_maximum, age_of_minimum, maximum, minimum, rank
from tradeloop.features.registry import feature
from tradeloop.features.rolling import lag, mean, ratio, share

LONGEST = 10
WING = 3
QUIET = 1e-5


def _range(bars: Bars) -> Floats:
    return bars.memo("range", lambda: bars.high - bars.low)


@feature(lookback=2)
def gap_(bars: Bars) -> Floats:
    """Gap at the open: ln(O_t / C_{t−1})."""
    return gap(bars)


@feature(lookback=lambda window: window + 1, windows=(20,))
def gap_size(bars: Bars, window: int) -> Floats:
    """Gap ln(O_t / C_{t−1}) over the mean true range of the `window` bars up to now, at least 1e-5."""
    return gap(bars) / np.maximum(mean(true_range(bars), window), QUIET)


@feature(lookback=2)
def gap_fill(bars: Bars) -> Floats:
    """Share of the gap that the bar traded back: (O − L) / (O − C_{t−1}) after a gap up, mirrored after one down.

    At most 1, where it was closed, and where there was none.
    """
    before = previous_close(bars)
    up = bars.open - before
    back = np.where(up > 0, bars.open - bars.low, bars.high - bars.open)
    return np.minimum(ratio(back, np.abs(up), empty=1.0, floor=1e-9 * bars.open), 1.0)


@feature(lookback=1)
def intraday_return(bars: Bars) -> Floats:
    """Log return from the bar's open to its close: ln(C / O)."""
    return body(bars)


@feature(lookback=1)
def close_location(bars: Bars) -> Floats:
    """Close location value: (2C − H − L) / (H − L), in [−1, 1]; 0 for a bar without a range."""
    return ratio((bars.close - bars.low) - (bars.high - bars.close), _range(bars), empty=0.0)


@feature(lookback=1)
def body_ratio(bars: Bars) -> Floats:
    """Body over range: (C − O) / (H − L), in [−1, 1]; 0 for a bar without a range."""
    return ratio(bars.close - bars.open, _range(bars), empty=0.0)


@feature(lookback=1)
def upper_wick(bars: Bars) -> Floats:
    """Upper wick over range: (H − max(O, C)) / (H − L), in [0, 1]; 0 for a bar without a range."""
    return ratio(bars.high - np.maximum(bars.open, bars.close), _range(bars), empty=0.0)


@feature(lookback=1)
def lower_wick(bars: Bars) -> Floats:
    """Lower wick over range: (min(O, C) − L) / (H − L), in [0, 1]; 0 for a bar without a range."""
    return ratio(np.minimum(bars.open, bars.close) - bars.low, _range(bars), empty=0.0)


@feature(lookback=lambda window: window, windows=(10,))
def wick_balance(bars: Bars, window: int) -> Floats:
    """Lower less upper wicks over `window` bars, as a share of their ranges: Σ(O + C − H − L) / Σ(H − L), in [−1, 1].

    Above 0 where lows were bought; 0 where no bar has a range.
    """
    below = (bars.open - bars.low) - (bars.high - bars.close)
    return share(below, _range(bars), window, empty=0.0)


@feature(lookback=lambda window: window, windows=(3, 10))
def joint_body(bars: Bars, window: int) -> Floats:
    """Body over range of the last `window` bars taken as one: (C_t − O_first) / (max H − min L); 0 where flat."""
    width = maximum(bars.high, window) - minimum(bars.low, window)
    return ratio(bars.close - lag(bars.open, window - 1), width, empty=0.0)


@feature(lookback=2)
def range_share(bars: Bars) -> Floats:
    """Share of the true range that the bar's close kept: ln(C_t / C_{t−1}) / TR, in [−1, 1]; 0 without a range."""
    return ratio(change(bars), true_range(bars), empty=0.0, floor=QUIET)


@feature(lookback=2)
def overlap(bars: Bars) -> Floats:
    """Overlap with the bar before: (min H − max L) / (max H − min L) of the two; below 0 where a void lies between.

    In [−1, 1]; 1 where both lie at one price.
    """
    high, low = lag(bars.high, 1), lag(bars.low, 1)
    joint = np.maximum(bars.high, high) - np.minimum(bars.low, low)
    return ratio(np.minimum(bars.high, high) - np.maximum(bars.low, low), joint, empty=1.0)


@feature(lookback=2)
def containment(bars: Bars) -> Floats:
    """Inside bar −1 (high and low within those of the bar before), outside bar 1 (both beyond), else 0."""
    above, below = np.sign(bars.high - lag(bars.high, 1)), np.sign(lag(bars.low, 1) - bars.low)
    return np.where(above == below, above, 0.0 * above)


@feature(lookback=lambda window: window, windows=(7, 20))
def range_rank(bars: Bars, window: int) -> Floats:
    """Rank of the bar's range ln(H / L) among `window` bars, in (0, 1]; lowest of 7: Crabel's (1990) NR7."""
    return rank(bars.memo("rounded spread", lambda: spread(bars).round(9)), window)


@compiled
def _runs(close: Floats, longest: int) -> Floats:
    """Return the number of closes in one direction up to each bar, at most `longest`, negative when falling."""
    run = np.full(len(close), np.nan)
    for i in range(longest, len(close)):
        side = np.sign(close[i] - close[i - 1])
        length = 1
        while length < longest and np.sign(close[i - length] - close[i - length - 1]) == side:
            length += 1
        run[i] = side * length
    return run


@feature(lookback=LONGEST + 1)
def streak(bars: Bars) -> Floats:
    """Run of closes in one direction: number of bars, negative when falling, at most 10 either way; 0 if unchanged."""
    return _runs(bars.close, LONGEST)


@feature(lookback=lambda window: window + 1, windows=(10,))
def stair(bars: Bars, window: int) -> Floats:
    """Bars that step up less those that step down, as a share of `window` bars: mean of (sign ΔH + sign ΔL) / 2.

    In [−1, 1]; 1 where each bar has a higher high and a higher low: Dow's rising trend.
    """
    return mean(0.5 * (np.sign(bars.high - lag(bars.high, 1)) + np.sign(bars.low - lag(bars.low, 1))), window)


@feature(lookback=lambda window: window, windows=(20, 60, 250))
def high_distance(bars: Bars, window: int) -> Floats:
    """Log distance below the highest high of `window` bars: ln(C / max H), at most 0. 250: George, Hwang (2004)."""
    return np.log(bars.close / maximum(bars.high, window))


@feature(lookback=lambda window: window, windows=(20, 60, 250))
def low_distance(bars: Bars, window: int) -> Floats:
    """Log distance above the lowest low of `window` bars: ln(C / min L), at least 0."""
    return np.log(bars.close / minimum(bars.low, window))


@feature(lookback=lambda window: window, windows=(60, 250), columns=("high_age", "low_age"))
def extreme_age(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Bars since the highest high, and since the lowest low, of `window` bars, over `window`; in [0, 1)."""
    return age_of_maximum(bars.high, window) / window, age_of_minimum(bars.low, window) / window


@compiled
def _pivots(values: Floats, window: int, side: float) -> tuple[Floats, Floats]:
    """Return the newest value that no one of the `WING` bars on either side passes, and its age, within the window.

    Where there is none, the window's extreme.
    """
    found, age = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for i in range(window - 1, len(values)):
        best, pivot = i, -1
        for j in range(i - 1, i - window, -1):
            if side * values[j] > side * values[best]:
                best = j
        for j in range(i - WING, i - window + WING, -1):
            passed = 0
            for k in range(1, WING + 1):
                passed += side * values[j - k] > side * values[j]
                passed += side * values[j + k] > side * values[j]
            if not passed:
                pivot = j
                break
        at = best if pivot < 0 else pivot
        found[i], age[i] = values[at], i - at
    return found, age


@feature(
    lookback=lambda window: window,
    windows=(60,),
    columns=("pivot_high_distance", "pivot_low_distance", "pivot_order"),
)
def pivots(bars: Bars, window: int) -> tuple[Floats, Floats, Floats]:
    """Log distance of the close from the newest pivot high and pivot low of `window` bars, and which is newer.

    A pivot is a high that none of the 3 bars before or the 3 after it passes: it is known 3 bars late, once those have
    closed. Without one, the window's extreme. order = (age of the high − age of the low) / `window`, in (−1, 1).
    """
    high, high_age = _pivots(bars.high, window, 1.0)
    low, low_age = _pivots(bars.low, window, -1.0)
    return np.log(bars.close / high), np.log(bars.close / low), (high_age - low_age) / window
