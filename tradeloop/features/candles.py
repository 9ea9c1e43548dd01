"""Candle patterns: figures of one to three bars, 1 where bullish, −1 where bearish, 0 where absent.

The definitions are those of TA-Lib, which follow Morris (1995): a body or a shadow is long or short by the mean of the
ten bars before. TA-Lib keeps those means as running sums, whose rounding depends on all bars before, and compares them
without a margin; here each mean is that of its ten bars, and prices closer than `MARGIN` count as equal.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import feature
from tradeloop.features.rolling import total

USUAL, NEARBY = 10, 5
FIRST = USUAL + 2
MARGIN = 1e-12
"""Prices that differ by less than this share are equal: far below a tick, far above what rounding makes."""

PATTERNS, HAMMER = 13, 3

# Rows of the table that describes each bar; the usual ones are means over the bars before it.
HIGH, LOW, TOP, BOTTOM, BODY, UPPER, LOWER, COLOUR, EQUAL, USUAL_BODY, SHORT, NEAR = range(12)


@compiled
def _mean_before(t: Floats, upper: int, lower: int, bar: int, count: int) -> float:
    """Return the mean of the difference of two rows over the `count` bars before."""
    added = 0.0
    for i in range(bar - count, bar):
        added += t[upper, i] - t[lower, i]
    return added / count


@compiled
def _describe(opened: Floats, high: Floats, low: Floats, close: Floats) -> Floats:
    t = np.full((12, len(close)), np.nan)
    for i in range(len(close)):
        top, bottom = max(opened[i], close[i]), min(opened[i], close[i])
        t[HIGH, i], t[LOW, i], t[TOP, i], t[BOTTOM, i] = high[i], low[i], top, bottom
        t[BODY, i], t[UPPER, i], t[LOWER, i] = top - bottom, high[i] - top, bottom - low[i]
        t[EQUAL, i] = MARGIN * close[i]
        t[COLOUR, i] = 1.0 if close[i] - opened[i] > -t[EQUAL, i] else -1.0
        if i >= USUAL:
            t[USUAL_BODY, i] = _mean_before(t, TOP, BOTTOM, i, USUAL)
            t[SHORT, i] = 0.1 * _mean_before(t, HIGH, LOW, i, USUAL)
            t[NEAR, i] = 0.2 * _mean_before(t, HIGH, LOW, i, NEARBY)
    return t


@compiled
def _of_one_bar(t: Floats, i: int, found: Floats) -> None:
    """Fill in what one bar is, placed against the bar before at most."""
    equal, body, upper, lower, short = t[EQUAL, i], t[BODY, i], t[UPPER, i], t[LOWER, i], t[SHORT, i]
    no_upper, no_lower = short - upper > equal, short - lower > equal
    some_upper, some_lower = upper - short > equal, lower - short > equal
    long_upper, long_lower = upper - body > equal, lower - body > equal
    small, doji = t[USUAL_BODY, i] - body > equal, short - body > -equal
    found[0, i] = doji
    if body - t[USUAL_BODY, i] > equal and no_upper and no_lower:
        found[1, i] = t[COLOUR, i]
    if small and long_upper and long_lower:
        found[2, i] = t[COLOUR, i]
    if small and long_lower and no_upper:
        near_low = t[LOW, i - 1] + t[NEAR, i - 1] - t[BOTTOM, i] > -equal
        found[3, i] = near_low - (t[BOTTOM, i] - t[HIGH, i - 1] + t[NEAR, i - 1] > -equal)
    if small and long_upper and no_lower:
        found[4, i] = (t[BOTTOM, i - 1] - t[TOP, i] > equal) - (t[BOTTOM, i] - t[TOP, i - 1] > equal)
    if doji:
        found[5, i] = (no_upper and some_lower) - (no_lower and some_upper)


@compiled
def _of_two_bars(t: Floats, i: int, found: Floats) -> None:
    """Fill in engulfing, harami, piercing line and dark cloud."""
    equal, side, before = t[EQUAL, i], t[COLOUR, i], t[COLOUR, i - 1]
    above, below = t[TOP, i] - t[TOP, i - 1], t[BOTTOM, i - 1] - t[BOTTOM, i]
    if side != before and above > -equal and below > -equal and (above > equal or below > equal):
        found[6, i] = side
    if not t[BODY, i - 1] - t[USUAL_BODY, i - 1] > equal:
        return
    if t[USUAL_BODY, i] - t[BODY, i] > -equal and above < equal and below < equal:
        found[7, i] = -before
    middle = 0.5 * (t[TOP, i - 1] + t[BOTTOM, i - 1])
    if before < 0 < side and t[BODY, i] - t[USUAL_BODY, i] > equal and t[LOW, i - 1] - t[BOTTOM, i] > equal:
        found[8, i] = t[TOP, i] - middle > equal and -above > equal
    elif side < 0 < before and t[BOTTOM, i] - middle < -equal and t[TOP, i] - t[HIGH, i - 1] > equal:
        found[8, i] = -1.0 if -below > equal else 0.0


@compiled
def _of_three_bars(t: Floats, i: int, found: Floats) -> None:
    """Fill in the stars, three inside and three outside."""
    equal, first, middle, side = t[EQUAL, i], t[COLOUR, i - 2], t[COLOUR, i - 1], t[COLOUR, i]
    close = t[TOP, i] if side > 0 else t[BOTTOM, i]
    middle_close = t[TOP, i - 1] if middle > 0 else t[BOTTOM, i - 1]
    first_open, first_close = (t[BOTTOM, i - 2], t[TOP, i - 2]) if first > 0 else (t[TOP, i - 2], t[BOTTOM, i - 2])
    above, below = t[TOP, i - 1] - t[TOP, i - 2], t[BOTTOM, i - 2] - t[BOTTOM, i - 1]
    long_first = t[BODY, i - 2] - t[USUAL_BODY, i - 2] > equal
    if long_first and t[USUAL_BODY, i - 1] - t[BODY, i - 1] > -equal and first != side:
        gap = t[BOTTOM, i - 1] - t[TOP, i - 2] if first > 0 else t[BOTTOM, i - 2] - t[TOP, i - 1]
        if gap > equal and t[BODY, i] - t[USUAL_BODY, i] > equal:
            found[9, i] = side if side * (close - first_close) - 0.3 * t[BODY, i - 2] > equal else 0.0
        if -above > equal and -below > equal:
            found[10, i] = side if side * (close - first_open) > equal else 0.0
    if first != middle and above > equal and below > equal:
        found[11, i] = middle if middle * (close - middle_close) > equal else 0.0


@compiled
def _soldiers(t: Floats, i: int) -> float:
    """Return 1 for three white soldiers, −1 for three black crows, else 0."""
    side, equal = t[COLOUR, i], t[EQUAL, i]
    wick, opens, closes = (UPPER, BOTTOM, TOP) if side > 0 else (LOWER, TOP, BOTTOM)
    for bar in range(i - 2, i + 1):
        if t[COLOUR, bar] != side or not t[SHORT, bar] - t[wick, bar] > equal:
            return 0.0
    for bar in range(i - 1, i + 1):
        opened, before, near = t[opens, bar], t[closes, bar - 1], t[NEAR, bar - 1]
        further = side * (t[closes, bar] - before) > equal and side * (opened - t[opens, bar - 1]) > equal
        shrunken = t[BODY, bar - 1] - t[BODY, bar] - 3 * near > -equal
        if not further or shrunken or side * (opened - before) - near > equal:
            return 0.0
    return float(side) if t[BODY, i] - t[USUAL_BODY, i] > equal else 0.0


@compiled
def _patterns(opened: Floats, high: Floats, low: Floats, close: Floats) -> Floats:
    t, found = _describe(opened, high, low, close), np.full((PATTERNS, len(close)), np.nan)
    for i in range(FIRST, len(close)):
        for pattern in range(PATTERNS):
            found[pattern, i] = 0.0
        _of_one_bar(t, i, found)
        _of_two_bars(t, i, found)
        _of_three_bars(t, i, found)
        found[12, i] = _soldiers(t, i)
    return found


def _found(bars: Bars) -> Floats:
    return bars.memo("candles", lambda: _patterns(bars.open, bars.high, bars.low, bars.close))


@feature(lookback=FIRST + 1, columns=("candle_doji",))
def doji(bars: Bars) -> tuple[Floats]:
    """Doji: 1 where the body is at most a tenth of the mean range of the ten bars before."""
    return (_found(bars)[0],)


@feature(lookback=FIRST + 1, columns=("candle_marubozu",))
def marubozu(bars: Bars) -> tuple[Floats]:
    """Marubozu, ±1: a body longer than usual with next to no shadows (a tenth of the usual range)."""
    return (_found(bars)[1],)


@feature(lookback=FIRST + 1, columns=("candle_spinning_top",))
def spinning_top(bars: Bars) -> tuple[Floats]:
    """Spinning top, ±1 by its colour: a body shorter than usual between two shadows longer than it."""
    return (_found(bars)[2],)


@feature(lookback=FIRST + 1, columns=("candle_hammer",))
def hammer(bars: Bars) -> tuple[Floats]:
    """Hammer 1, hanging man −1: a small body over a shadow longer than it, with next to no upper one.

    1 near the low of the bar before, −1 near its high; the sum where both are near.
    """
    return (_found(bars)[3],)


@feature(lookback=FIRST + 1, columns=("candle_inverted_hammer",))
def inverted_hammer(bars: Bars) -> tuple[Floats]:
    """Inverted hammer 1, shooting star −1: a small body under a shadow longer than it, next to no lower one.

    1 where the body gaps below the body before, −1 where above.
    """
    return (_found(bars)[4],)


@feature(lookback=FIRST + 1, columns=("candle_dragonfly",))
def dragonfly(bars: Bars) -> tuple[Floats]:
    """Dragonfly doji 1 (no upper shadow, but a lower one), gravestone doji −1 (the reverse)."""
    return (_found(bars)[5],)


@feature(lookback=FIRST + 1, columns=("candle_engulfing",))
def engulfing(bars: Bars) -> tuple[Floats]:
    """Engulfing, ±1: the body covers the body before, which is of the other colour."""
    return (_found(bars)[6],)


@feature(lookback=FIRST + 1, columns=("candle_harami",))
def harami(bars: Bars) -> tuple[Floats]:
    """Harami, ±1 against the colour of the bar before: its long body holds this bar's small one."""
    return (_found(bars)[7],)


@feature(lookback=FIRST + 1, columns=("candle_piercing",))
def piercing(bars: Bars) -> tuple[Floats]:
    """Piercing line 1: after a long black bar, opens below its low and closes in the upper half of its body.

    Dark cloud cover −1: the reverse.
    """
    return (_found(bars)[8],)


@feature(lookback=FIRST + 1, columns=("candle_star",))
def star(bars: Bars) -> tuple[Floats]:
    """Morning star 1: a long black body, a small one gapped below, a white one that closes 30% into the first.

    Evening star −1: the reverse.
    """
    return (_found(bars)[9],)


@feature(lookback=FIRST + 1, columns=("candle_inside_three",))
def inside_three(bars: Bars) -> tuple[Floats]:
    """Three inside, ±1: a harami whose reversal the third bar confirms beyond the first bar's open."""
    return (_found(bars)[10],)


@feature(lookback=FIRST + 1, columns=("candle_outside_three",))
def outside_three(bars: Bars) -> tuple[Floats]:
    """Three outside, ±1: an engulfing bar, and a third that closes beyond it."""
    return (_found(bars)[11],)


@feature(lookback=FIRST + 1, columns=("candle_soldiers",))
def soldiers(bars: Bars) -> tuple[Floats]:
    """Three white soldiers 1, three black crows −1: long bars that open in and close beyond the body before."""
    return (_found(bars)[12],)


@feature(lookback=lambda window: FIRST + window, windows=(10,))
def candle_balance(bars: Bars, window: int) -> Floats:
    """Bullish less bearish patterns over `window` bars: the sum of the directed ones, hammer to soldiers."""
    return total(_found(bars)[HAMMER:].sum(axis=0), window)
