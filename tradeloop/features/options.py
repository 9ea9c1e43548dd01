"""Options: what implied volatilities and the options' trade say, as they stood at the bar's close.

Implied volatilities are annual fractions: at the money (about 30 days to expiry and, farther, about 90) and of the puts
and calls with a delta of 25 %. Volumes and open interest are contracts.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import squared_change
from tradeloop.features.registry import feature
from tradeloop.features.rolling import lag, log_return, mean, total, zscore
from tradeloop.features.usual import against_mean, share

WINGS = ("options.put_iv", "options.call_iv", "options.atm_iv")
VOLUMES = ("options.put_volume", "options.call_volume")
INTERESTS = ("options.put_open_interest", "options.call_open_interest")

CALMEST = 0.01
"""Annual volatility below which a realised one is not told from none."""

YEAR = 365.25 * 24 * 3600e6
"""In microseconds."""


def _skew(bars: Bars) -> Floats:
    put, call, atm = (bars.inputs[name] for name in WINGS)
    return bars.memo("iv skew", lambda: np.asarray((put - call) / atm))


def _log_iv(bars: Bars) -> Floats:
    return bars.memo("log iv", lambda: np.log(bars.inputs["options.atm_iv"]))


def _sum(bars: Bars, names: tuple[str, str]) -> Floats:
    put, call = (bars.inputs[name] for name in names)
    return bars.memo(f"sum of {names[0]}", lambda: put + call)


@feature(lookback=1, needs=WINGS)
def iv_skew(bars: Bars) -> Floats:
    """Skew of implied volatility: (25-delta put − 25-delta call) / at the money."""
    return _skew(bars)


@feature(lookback=lambda window: window, windows=(60,), needs=WINGS)
def iv_skew_zscore(bars: Bars, window: int) -> Floats:
    """Skew's distance from its `window`-bar mean in standard deviations; 0 where it is constant."""
    return zscore(_skew(bars), window)


@feature(lookback=1, needs=WINGS)
def iv_butterfly(bars: Bars) -> Floats:
    """How much more the wings cost than the middle: (25-delta put + 25-delta call) / (2 · at the money) − 1."""
    put, call, atm = (bars.inputs[name] for name in WINGS)
    return np.asarray((put + call) / (2 * atm) - 1)


@feature(lookback=1, needs=("options.atm_iv",))
def log_iv(bars: Bars) -> Floats:
    """Log of the annual implied volatility at the money."""
    return _log_iv(bars)


@feature(lookback=lambda window: window + 1, windows=(1, 5), needs=("options.atm_iv",))
def iv_change(bars: Bars, window: int) -> Floats:
    """Log change of the implied volatility at the money over `window` bars."""
    return log_return(bars.inputs["options.atm_iv"], window)


@feature(lookback=lambda window: window, windows=(60,), needs=("options.atm_iv",))
def iv_zscore(bars: Bars, window: int) -> Floats:
    """Log implied volatility's distance from its `window`-bar mean in standard deviations; 0 where it is constant."""
    return zscore(_log_iv(bars), window)


@feature(lookback=lambda window: window + 1, windows=(20,), needs=("options.atm_iv",))
def iv_premium(bars: Bars, window: int) -> Floats:
    """Log of implied over realised volatility: ln(IV / √(Σ r² / years)) over `window` bars.

    The years are those between the window's first close and its last, nights and weekends included; a realised
    volatility below 1 % a year counts as 1 %.
    """
    # Whole microseconds, so that a difference is the same from wherever the count begins.
    elapsed = (bars.timestamp - bars.timestamp[:1]).astype("timedelta64[us]").astype(np.float64)
    years = (elapsed - lag(elapsed, window)) / YEAR
    realised = total(squared_change(bars), window) / years
    premium: Floats = _log_iv(bars) - 0.5 * np.log(np.maximum(realised, CALMEST**2))
    return premium


@feature(lookback=1, needs=("options.far_iv", "options.atm_iv"))
def iv_term_slope(bars: Bars) -> Floats:
    """Slope of the term structure: ln(IV at the money of about 90 days / of about 30 days)."""
    return np.log(bars.inputs["options.far_iv"] / bars.inputs["options.atm_iv"])


@feature(lookback=lambda window: window, windows=(1, 5, 20), needs=VOLUMES)
def put_volume_share(bars: Bars, window: int) -> Floats:
    """Share of puts among the contracts traded over `window` bars, in [0, 1]; 0.5 where none was.

    The put/call ratio p as p / (1 + p), which stays bounded where no call was traded.
    """
    return share(total(bars.inputs[VOLUMES[0]], window), total(_sum(bars, VOLUMES), window))


@feature(lookback=1, needs=INTERESTS)
def put_interest_share(bars: Bars) -> Floats:
    """Share of puts in the open interest, in [0, 1]; 0.5 where there is none."""
    return share(bars.inputs[INTERESTS[0]], _sum(bars, INTERESTS))


@feature(lookback=lambda window: window, windows=(20,), needs=VOLUMES)
def options_activity(bars: Bars, window: int) -> Floats:
    """Log of the contracts traded over their `window`-bar mean: ln((n / mean n + 0.01) / 1.01); 0 where none was."""
    return against_mean(_sum(bars, VOLUMES), window)


@feature(lookback=lambda window: window, windows=(60,), needs=VOLUMES)
def options_activity_zscore(bars: Bars, window: int) -> Floats:
    """Contracts traded, distance from their `window`-bar mean in standard deviations; 0 where constant."""
    return zscore(_sum(bars, VOLUMES), window)


@feature(lookback=lambda window: window, windows=(20,), needs=VOLUMES + INTERESTS)
def options_turnover(bars: Bars, window: int) -> Floats:
    """Contracts traded a bar against those that are open: ln(1 + mean volume / mean open interest), `window` bars.

    0 where none is open.
    """
    open_now = mean(_sum(bars, INTERESTS), window)
    traded = mean(_sum(bars, VOLUMES), window)
    return np.log1p(np.where(open_now > 0, traded / np.where(open_now > 0, open_now, 1.0), 0.0 * (traded + open_now)))


@feature(lookback=lambda window: window + 1, windows=(5,), needs=INTERESTS)
def open_interest_change(bars: Bars, window: int) -> Floats:
    """Log change of the open interest over `window` bars: ln((n_t + 1) / (n_{t−`window`} + 1))."""
    return log_return(_sum(bars, INTERESTS) + 1, window)
