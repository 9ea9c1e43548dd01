"""Multi-timeframe: what the closed bars of longer spans say, at the close of each base bar.

See `tradeloop.features.timeframes` for what a higher bar is and when it is closed. The `CHANGES` + 1 newest closed ones
decide, but none whose bucket may have begun before the `lookback` base bars did: where base bars lie closer together
than the market's interval, those bars hold fewer, and the window is that much shorter. Neutral where it holds fewer
than two.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import Timeframe, feature
from tradeloop.features.rolling import FLAT, STILL
from tradeloop.features.timeframes import Integers, gather
from tradeloop.features.volatility import QUIET

CHANGES = 10
"""Changes from one higher bar to the next that a column looks at."""

DRY = 0.01
PARKINSON = 1 / (4 * math.log(2))
COLUMNS = (
    "return",
    "rsi",
    "direction",
    "log_volatility",
    "relative_volume",
    "range_position",
    "sma_distance",
    "slope_agreement",
)


def _lookback(bars: int) -> int:
    """Return the base bars that hold `CHANGES` + 1 closed higher bars besides a part of one before, one after them."""
    return (CHANGES + 3) * bars


@compiled
def _time_correlation(values: Floats, first: int, last: int) -> float:
    """Return the correlation of the values from first to last with their number; 0 where they are flat."""
    count = last - first + 1
    average = 0.0
    for i in range(first, last + 1):
        average += values[i] / count
    squares, product = 0.0, 0.0
    for i in range(first, last + 1):
        offset = values[i] - average
        squares += offset * offset
        product += offset * (i - first - (count - 1) / 2)
    if squares <= count * (FLAT * average) ** 2:
        return 0.0
    return min(max(product / math.sqrt(squares * (count * (count * count - 1) / 12)), -1.0), 1.0)


@compiled
def _changes(high: Floats, low: Floats, close: Floats, first: int, last: int) -> tuple[float, float, float]:
    """Return relative strength, direction and mean Parkinson variance of the changes into bars first + 1 to last."""
    gain, moved, side, spread, variance = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(first + 1, last + 1):
        change = math.log(close[i] / close[i - 1])
        gain += max(change, 0.0)
        moved += abs(change)
        up, down = math.log(high[i] / high[i - 1]), math.log(low[i - 1] / low[i])
        if up > down and up > 0:
            side += up
        elif down > up and down > 0:
            side -= down
        spread += math.log(max(high[i], close[i - 1]) / min(low[i], close[i - 1]))
        variance += math.log(high[i] / low[i]) ** 2 * PARKINSON
    count = last - first
    strength = gain / moved if moved > count * STILL else 0.5
    return strength, side / spread if spread > count * STILL else 0.0, variance / count


@compiled
def _columns(
    own: Integers,
    closed: Integers,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    base: Floats,
    lookback: int,
) -> Floats:
    """Return the columns as rows; bars before the last of the first `lookback` are warm-up."""
    result = np.full((8, len(base)), np.nan)
    seen_first, seen_last = -1, -1
    highest, lowest, average, trend = 0.0, 0.0, 0.0, 0.0
    for t in range(lookback - 1, len(base)):
        last = closed[t] - 1
        first = max(own[t - lookback + 1] + 1, last - CHANGES)
        if last - first < 1:
            result[:, t] = 0.0
            result[1, t], result[3, t], result[5, t] = 0.5, math.log(QUIET), 0.5
            continue
        if first == seen_first and last == seen_last:
            result[:5, t] = result[:5, t - 1]
        else:
            seen_first, seen_last = first, last
            result[0, t] = math.log(close[last] / close[last - 1])
            result[1, t], result[2, t], variance = _changes(high, low, close, first, last)
            result[3, t] = 0.5 * math.log(max(variance, QUIET**2))
            highest, lowest, average, usual = 0.0, np.inf, 0.0, 0.0
            for i in range(first + 1, last + 1):
                highest, lowest = max(highest, high[i]), min(lowest, low[i])
                average += close[i] / (last - first)
                usual += volume[i] / (last - first)
            result[4, t] = math.log((volume[last] / usual + DRY) / (1 + DRY)) if usual > 0 else 0.0
            trend = _time_correlation(close, first, last)
        still = highest <= lowest * (1 + STILL)
        result[5, t] = 0.5 if still else min(max((base[t] - lowest) / (highest - lowest), -1.0), 2.0)
        result[6, t] = math.log(base[t] / average)
        result[7, t] = trend * _time_correlation(base, t - CHANGES, t)
    return result


@feature(lookback=_lookback, columns=COLUMNS, per_timeframe=("5m", "15m", "1h", "4h", "1d", "1w"))
def higher_bars(bars: Bars, timeframe: Timeframe) -> tuple[Floats, ...]:
    """From the 11 newest closed bars of `timeframe`, none of them open still; buckets in UTC, weeks from Monday.

    return: ln(C_k / C_{k−1}) of the newest; rsi: mean gain over mean absolute change of 10 log changes, Cutler's form,
    0.5 where nothing moved; direction: (Σ DM⁺ − Σ DM⁻) / Σ TR on logs, Wilder (1978) with plain sums, in [−1, 1];
    log_volatility: Parkinson over 10; relative_volume: ln((V_k / mean V + 0.01) / 1.01), 0 if none was traded;
    range_position: (C − min L) / (max H − min L) of the base close C in 10 bars, within [−1, 2], 0.5 where flat;
    sma_distance: ln(C / mean of 10 closes); slope_agreement: correlation of the 11 closes with time, times that of the
    last 11 base closes.
    """
    return tuple(_columns(*gather(bars, timeframe.span), bars.close, _lookback(timeframe.bars)))
