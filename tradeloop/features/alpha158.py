"""Alpha158, the column set of Qlib (Yang and others, 2020), for who wants to compare or to move over. Off by default.

The names are Qlib's with ``alpha158_`` before and ``_window`` behind; O, H, L, C, V are open, high, low, close and
volume. It is Qlib's `contrib.data.loader.Alpha158DL` with four differences, each where Qlib has no number that holds:

* the warm-up is NaN, where Qlib takes the windows that have begun (and a move from no bar at all as no move);
* 0, Qlib's value up to its 1e-12 in the denominators, where a range, a move or a spread has no width; a correlation or
  R² of a flat window is 0 and not NaN;
* after a bar without volume, CORD counts the change of volume as none (ln 2), where Qlib leaves the pair out;
* VWAP0 is the typical price (H + L + C) / 3 over C: bars have no average price.

VMA, VSTD and CORR follow the volume's unit through Qlib's 1e-12 and ln(V + 1): after a change of unit they are others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import previous_close, typical
from tradeloop.features.compiled import compiled
from tradeloop.features.nested import EXTREME, WINDOWS, nested, summaries
from tradeloop.features.ordered import order
from tradeloop.features.registry import feature
from tradeloop.features.rolling import COMOMENTS, FLAT, MOMENTS, STILL, SUM, TREND, lag, ratio

TINY = 1e-12
"""Qlib adds it to a denominator."""

_WINDOWS = np.array(WINDOWS)


@compiled
def _trend(found: Floats, close: Floats) -> Floats:
    result = np.full((len(_WINDOWS), 5, len(close)), np.nan)
    for w in range(len(_WINDOWS)):
        window = _WINDOWS[w]
        spread = window * (window * window - 1) / 12
        for i in range(window - 1, len(close)):
            average, squares, product = found[w, 0, i], found[w, 1, i], found[w, 2, i]
            flat = squares <= window * (FLAT * average) ** 2
            result[w, 0, i] = average / close[i]
            result[w, 1, i] = np.sqrt(squares / (window - 1)) / close[i]
            result[w, 2, i] = product / spread / close[i]
            result[w, 3, i] = 0.0 if flat else min(product * product / (spread * squares), 1.0)
            result[w, 4, i] = (close[i] - average - product / spread * (window - 1) / 2) / close[i]
    return result


@compiled
def _extremes(high: Floats, low: Floats, close: Floats) -> Floats:
    result = np.full((len(_WINDOWS), 6, len(close)), np.nan)
    for w in range(len(_WINDOWS)):
        window = _WINDOWS[w]
        for i in range(window - 1, len(close)):
            highest, lowest = high[w, 0, i], -low[w, 0, i]
            result[w, 0, i] = highest / close[i]
            result[w, 1, i] = lowest / close[i]
            result[w, 2, i] = (close[i] - lowest) / (highest - lowest) if highest > lowest else 0.0
            result[w, 3, i] = (window - high[w, 1, i]) / window
            result[w, 4, i] = (window - low[w, 1, i]) / window
            result[w, 5, i] = (low[w, 1, i] - high[w, 1, i]) / window
    return result


@compiled
def _pearson(found: Floats) -> Floats:
    result = np.full((len(_WINDOWS), 1, found.shape[2]), np.nan)
    for w in range(len(_WINDOWS)):
        window = _WINDOWS[w]
        for i in range(window - 1, found.shape[2]):
            squares, others = found[w, 2, i], found[w, 3, i]
            flat = squares <= window * STILL**2 or others <= window * (FLAT * found[w, 1, i]) ** 2
            value = found[w, 4, i] / (np.sqrt(squares) * np.sqrt(others))
            result[w, 0, i] = 0.0 if flat else min(max(value, -1.0), 1.0)
    return result


@compiled
def _moves(close: Floats, volume: Floats) -> Floats:
    """Return rises, falls, gains and losses of the close, and the volume's gains and losses, as rows."""
    result = np.full((6, len(close)), np.nan)
    for i in range(1, len(close)):
        move, flow = close[i] - close[i - 1], volume[i] - volume[i - 1]
        result[0, i], result[1, i] = 1.0 if move > 0 else 0.0, 1.0 if move < 0 else 0.0
        result[2, i], result[3, i] = max(move, 0.0), max(-move, 0.0)
        result[4, i], result[5, i] = max(flow, 0.0), max(-flow, 0.0)
    return result


@compiled
def _shares(found: Floats) -> Floats:
    """Return share of the first, of the second and their difference, of each pair of rows as three rows."""
    result = np.full((len(_WINDOWS), 9, found.shape[2]), np.nan)
    for w in range(len(_WINDOWS)):
        for pair in range(3):
            for i in range(_WINDOWS[w], found.shape[2]):
                up, down = found[w, 2 * pair, i], found[w, 2 * pair + 1, i]
                whole = up + down if pair else float(_WINDOWS[w])
                result[w, 3 * pair, i] = up / whole if whole > 0 else 0.0
                result[w, 3 * pair + 1, i] = down / whole if whole > 0 else 0.0
                result[w, 3 * pair + 2, i] = (up - down) / whole if whole > 0 else 0.0
    return result


def _named(*names: str) -> tuple[str, ...]:
    return tuple(f"alpha158_{name}" for name in names)


def _at(bars: Bars, window: int, make: Callable[[Bars], Floats]) -> tuple[Floats, ...]:
    """Return the columns of one window, as rows, of what is made for all windows at once."""
    found = bars.memo(f"alpha158 {make.__name__}", lambda: make(bars))
    return tuple(found[WINDOWS.index(window)])


def _itself(window: int) -> int:
    return window


def _one_more(window: int) -> int:
    return window + 1


@feature(lookback=1, columns=_named("kmid", "klen", "kmid2", "kup", "kup2", "klow", "klow2", "ksft", "ksft2"))
def kbar(bars: Bars) -> tuple[Floats, ...]:
    """Shape of the bar over its open, and (ending in 2) over its range, 0 without one. Qlib (2020).

    kmid (C − O), klen (H − L), kup (H − max(O, C)), klow (min(O, C) − L), ksft (2C − H − L).
    """
    span = bars.high - bars.low
    parts = (
        bars.close - bars.open,
        bars.high - np.maximum(bars.open, bars.close),
        np.minimum(bars.open, bars.close) - bars.low,
        2 * bars.close - bars.high - bars.low,
    )
    middle, *others = ((part / bars.open, ratio(part, span, empty=0.0)) for part in parts)
    return middle[0], span / bars.open, middle[1], *(column for pair in others for column in pair)


@feature(lookback=1, columns=_named("open_0", "high_0", "low_0", "vwap_0"))
def price(bars: Bars) -> tuple[Floats, ...]:
    """Open, high, low and typical price (H + L + C) / 3 over the close. Qlib (2020)."""
    return bars.open / bars.close, bars.high / bars.close, bars.low / bars.close, typical(bars) / bars.close


@feature(lookback=_one_more, windows=WINDOWS)
def alpha158_roc(bars: Bars, window: int) -> Floats:
    """Close `window` bars ago over the close: C_{t−`window`} / C_t. Qlib (2020)."""
    return lag(bars.close, window) / bars.close


@feature(lookback=_itself, windows=WINDOWS, columns=_named("ma", "std", "beta", "rsqr", "resi"))
def trend(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Mean (ma), sample standard deviation (std), slope on the bar's number (beta) and residual (resi) of C, over C.

    All of `window` bars; rsqr is the share of variance that the line explains, 0 where flat. Qlib (2020).
    """
    return _at(bars, window, _trends)


def _trends(bars: Bars) -> Floats:
    return _trend(summaries(TREND, 3, bars.close), bars.close)


@feature(lookback=_itself, windows=WINDOWS, columns=_named("max", "min", "rsv", "imax", "imin", "imxd"))
def extremes(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Highest H (max) and lowest L (min) of `window` bars over C; rsv = (C − min) / (max − min), 0 where flat.

    imax, imin: place of the first bar with the extreme, 1 / `window` to 1; imxd = imax − imin. Qlib (2020).
    """
    return _at(bars, window, _ranges)


def _ranges(bars: Bars) -> Floats:
    high, low = summaries(EXTREME, 2, bars.high), summaries(EXTREME, 2, -bars.low)
    return _extremes(high, low, bars.close)


@feature(lookback=_itself, windows=WINDOWS, columns=_named("qtlu", "qtld", "rank"))
def place(bars: Bars, window: int) -> tuple[Floats, Floats, Floats]:
    """Quantiles .8 (qtlu) and .2 (qtld) of C over C, and the rank of C in (0, 1], over `window` bars. Qlib (2020)."""
    low, high, rank = order(bars.close, window, 0.2, 0.8)
    return high / bars.close, low / bars.close, rank


@feature(lookback=_itself, windows=WINDOWS, scale_free=False)
def alpha158_corr(bars: Bars, window: int) -> Floats:
    """Correlation of C and ln(V + 1) over `window` bars; 0 where either is flat. Qlib (2020)."""
    return _at(bars, window, _price_and_volume)[0]


def _price_and_volume(bars: Bars) -> Floats:
    return _pearson(summaries(COMOMENTS, 5, np.log(bars.volume + 1), bars.close))


@feature(lookback=_one_more, windows=WINDOWS)
def alpha158_cord(bars: Bars, window: int) -> Floats:
    """Correlation of C_t / C_{t−1} and ln(V_t / V_{t−1} + 1) over `window` bars; 0 where either is flat.

    ln 2 for the latter where V_{t−1} = 0. Qlib (2020).
    """
    return _at(bars, window, _changes)[0]


def _changes(bars: Bars) -> Floats:
    flow = np.log(ratio(bars.volume, lag(bars.volume, 1), empty=1.0) + 1)
    return _pearson(summaries(COMOMENTS, 5, flow, bars.close / previous_close(bars)))


@feature(lookback=_one_more, windows=WINDOWS, columns=_named("cntp", "cntn", "cntd"))
def counts(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Share of `window` bars in which C rose (cntp), share in which it fell (cntn), their difference (cntd).

    Qlib (2020).
    """
    return _at(bars, window, _all_moves)[:3]


@feature(lookback=_one_more, windows=WINDOWS, columns=_named("sump", "sumn", "sumd"))
def sums(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Share of rises (sump) and of falls (sumn) in the sum of |C_t − C_{t−1}| over `window` bars; difference (sumd).

    0 where C did not move. Qlib (2020).
    """
    return _at(bars, window, _all_moves)[3:6]


@feature(lookback=_one_more, windows=WINDOWS, columns=_named("vsump", "vsumn", "vsumd"))
def volume_sums(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Share of rises (vsump) and of falls (vsumn) in the sum of |V_t − V_{t−1}| over `window` bars; difference (vsumd).

    0 where V did not move. Qlib (2020).
    """
    return _at(bars, window, _all_moves)[6:]


def _all_moves(bars: Bars) -> Floats:
    return _shares(nested(SUM, _moves(bars.close, bars.volume)))


@feature(lookback=_itself, windows=WINDOWS, columns=_named("vma", "vstd"), scale_free=False)
def volume(bars: Bars, window: int) -> tuple[Floats, ...]:
    """Mean (vma) and sample standard deviation (vstd) of V over `window` bars, over V + 1e-12. Qlib (2020)."""
    average, spread = _at(bars, window, _volumes)
    present = bars.volume + TINY
    return average / present, spread / present


def _volumes(bars: Bars) -> Floats:
    return _deviations(bars.volume)


def _deviations(values: Floats) -> Floats:
    found = summaries(MOMENTS, 2, values)
    found[:, 1] = np.sqrt(found[:, 1] / (_WINDOWS - 1)[:, None])
    return found


@feature(lookback=_one_more, windows=WINDOWS)
def alpha158_wvma(bars: Bars, window: int) -> Floats:
    """Relative dispersion of |C_t / C_{t−1} − 1| V over `window` bars: standard deviation over mean; 0 where that is 0.

    Qlib (2020).
    """
    average, spread = _at(bars, window, _weighted)
    return ratio(spread, average, empty=0.0)


def _weighted(bars: Bars) -> Floats:
    return _deviations(np.abs(bars.close / previous_close(bars) - 1) * bars.volume)
