"""Momentum: what the price did lately: plainly, against its own volatility, and by the hours in which it did it."""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import body, change, gap, log_close, squared_change
from tradeloop.features.ordered import maximum, minimum
from tradeloop.features.registry import feature
from tradeloop.features.rolling import ema, lag, log_return, mean, memory, ratio, total, weighted

QUIET = 1e-5
LONG, SHORT = 2 / 26, 2 / 14
TRIX = 2 / 10


@feature(lookback=lambda window: window + 1, windows=(1, 2, 3, 5, 10, 20, 60, 120, 250))
def return_(bars: Bars, window: int) -> Floats:
    """Log return of the close over `window` bars: ln(C_t / C_{t−`window`})."""
    return change(bars) if window == 1 else log_return(bars.close, window)


@feature(lookback=251)
def return_250_20(bars: Bars) -> Floats:
    """Momentum without the last month: ln(C_{t−20} / C_{t−250}); twelve months less one on daily bars.

    Jegadeesh, Titman (1993).
    """
    close = log_close(bars)
    return lag(close, 20) - lag(close, 250)


@feature(lookback=lambda window: 2 * window + 1, windows=(5, 20))
def acceleration(bars: Bars, window: int) -> Floats:
    """Log return over `window` bars less that over the `window` bars before them."""
    past = log_return(bars.close, window)
    return past - lag(past, window)


@feature(lookback=lambda window: window + 1, windows=(10, 60, 120))
def scaled_return(bars: Bars, window: int) -> Floats:
    """Log return over `window` bars in standard deviations: over √n times the root mean square of the bars' returns.

    The root mean square is at least 1e-5. Moskowitz, Ooi, Pedersen (2012).
    """
    unit: Floats = np.sqrt(np.maximum(mean(squared_change(bars), window), QUIET**2) * window)
    scaled: Floats = log_return(bars.close, window) / unit
    return scaled


@feature(lookback=memory(LONG) + memory(SHORT))
def tsi(bars: Bars) -> Floats:
    """TSI 25/13, the true strength index, of log prices: EMA13(EMA25(r)) / EMA13(EMA25(|r|)), r = log return.

    In [−1, 1]; 0 where flat. Blau (1991).
    """
    net = ema(ema(change(bars), LONG), SHORT)
    return ratio(net, ema(ema(np.abs(change(bars)), LONG), SHORT), empty=0.0)


@feature(lookback=3 * memory(TRIX) - 1)
def trix_9(bars: Bars) -> Floats:
    """Log return smoothed by three exponential means of span 9: that of a triple smoothed price. Hutson (1983)."""
    return ema(ema(ema(change(bars), TRIX), TRIX), TRIX)


@feature(lookback=24)
def coppock(bars: Bars) -> Floats:
    """Coppock's (1962) curve in bars: mean of ln(C_t / C_{t−11}) + ln(C_t / C_{t−14}), newest of 10 weighted most."""
    return weighted(log_return(bars.close, 11) + log_return(bars.close, 14), 10)


@feature(lookback=lambda window: window + 1, windows=(60,))
def information_discreteness(bars: Bars, window: int) -> Floats:
    """How suddenly the return of `window` bars came: its sign times (share of falling less share of rising bars).

    Above 0: by few large moves; below: by many small ones. Da, Gurun, Warachka (2014).
    """
    return -np.sign(log_return(bars.close, window)) * mean(np.sign(change(bars)), window)


@feature(lookback=lambda window: window + 1, windows=(20,))
def gap_return(bars: Bars, window: int) -> Floats:
    """Log return made between bars, over `window` bars: Σ ln(O_t / C_{t−1}); overnight on daily bars.

    Lou, Polk, Skouras (2019).
    """
    return total(gap(bars), window)


@feature(lookback=lambda window: window, windows=(20,))
def body_return(bars: Bars, window: int) -> Floats:
    """Log return made within bars, over `window` bars: Σ ln(C / O). Lou, Polk, Skouras (2019)."""
    return total(body(bars), window)


@feature(lookback=lambda window: window + 1, windows=(20,), columns=("largest_return", "smallest_return"))
def extreme_returns(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Largest and smallest log return of a single bar among `window`. Bali, Cakici, Whitelaw (2011): MAX, MIN."""
    return maximum(change(bars), window), minimum(change(bars), window)


@feature(lookback=lambda window: window, windows=(20,))
def detrended(bars: Bars, window: int) -> Floats:
    """Detrended price oscillator: ln(C_{t−n/2−1} / SMA_n(C)), n = `window`: the cycle in the middle of the average."""
    return lag(log_close(bars), window // 2 + 1) - np.log(mean(bars.close, window))
