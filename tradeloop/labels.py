"""Labels: direction, return and range of the trade that opens after a bar's close, each with the time it ends.

The row of bar t asks what a trade decided at its close would meet over the next h bars (h the horizon):

``entry: next_open``
    Enter at the open of bar t + 1, leave at the close of bar t + h. Nothing is assumed to fill at a price that was
    known only as the bar closed.
``entry: close``
    Enter at the close of bar t, leave at the close of bar t + h.

Every label of bar t ends at the close of bar t + h and reads nothing later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from tradeloop.bars import Bars, Floats, Times
from tradeloop.config import Labels

COLUMNS = ("symbol", "timestamp", "label_end", "direction", "return", "range")

QUIET = 1e-5
"""The least volatility per bar that the range label knows, the same as that of `tradeloop.features.volatility`.

A stretch without any movement has a range of zero, whose log is minus infinity. It gets this floor, a tenth of a basis
point, rather than no label: a label that is missing because of what happened later would select rows on the future, and
that an hour without a trade follows is something to forecast. Bars that were never traded can be dropped by the check
stage (``check.drop: [zero_volume]``), on what is known at their close.
"""


def compute_labels(bars: Bars, config: Labels) -> pd.DataFrame:
    """Return one row a bar with its labels and their end.

    Parameters
    ----------
    bars
        Closed bars of one symbol, oldest first.
    config
        Entry, horizon in bars, and the measure of range.

    Returns
    -------
    DataFrame
        `COLUMNS`: ``symbol``; ``timestamp`` and ``label_end``, closes in UTC (``datetime64[us, UTC]``);
        ``return``, the gross log return from entry to exit; ``direction``, 1.0 if that is above zero, else 0.0 (a flat
        trade is not an up one: it does not pay); ``range``, the natural log of the volatility per bar over the horizon,
        ``sqrt(mean ln(H/L)² / (4 ln 2))`` (parkinson, 1980) or the root mean square of the close-to-close log returns
        (realised), at least ln `QUIET`. All float64. In the last ``horizon`` rows the label has not ended: NaN and NaT.
    """
    labels = label_arrays(bars, config)
    return pd.DataFrame(
        {
            "symbol": bars.symbol,
            "timestamp": _utc(bars.timestamp),
            "label_end": _utc(labels.end),
            "direction": labels.direction,
            "return": labels.gross,
            "range": labels.spread,
        }
    )


@dataclass(frozen=True)
class LabelArrays:
    """Labels of n bars as arrays (n,): see `compute_labels`.

    Attributes
    ----------
    end
        Close of the bar at which the label ends, ``datetime64[us]``, UTC; NaT where it has not ended.
    direction, gross, spread
        The labels ``direction``, ``return`` and ``range``; NaN where they have not ended.
    entry, exit
        The prices that the trade is entered and left at; NaN where it has not ended.
    """

    end: Times
    direction: Floats
    gross: Floats
    spread: Floats
    entry: Floats
    exit: Floats


def label_arrays(bars: Bars, config: Labels) -> LabelArrays:
    """Return the labels of each bar as arrays; `compute_labels` says what they mean."""
    size, horizon = len(bars), config.horizon
    ended = max(size - horizon, 0)
    end = np.full(size, np.datetime64("NaT"), dtype="datetime64[us]")
    gross, spread, entry, left = np.full((4, size), np.nan)
    if ended:
        end[:ended] = bars.timestamp[horizon:]
        entry[:ended] = bars.open[1 : ended + 1] if config.entry == "next_open" else bars.close[:ended]
        left[:ended] = bars.close[horizon:]
        gross[:ended] = np.log(left[:ended] / entry[:ended])
        variance = _parkinson(bars) if config.range == "parkinson" else _realised(bars)
        over_horizon = variance if horizon == 1 else sliding_window_view(variance, horizon).mean(axis=-1)
        spread[:ended] = 0.5 * np.log(np.maximum(over_horizon, QUIET**2))
    direction = np.where(np.isnan(gross), np.nan, gross > 0)
    return LabelArrays(end, direction, gross, spread, entry, left)


def _parkinson(bars: Bars) -> Floats:
    """Return the variance of bars 1, 2, ... from their range."""
    return np.asarray(np.log(bars.high[1:] / bars.low[1:]) ** 2 / (4 * math.log(2)))


def _realised(bars: Bars) -> Floats:
    """Return the squared close-to-close log returns of bars 1, 2, ..."""
    return np.asarray(np.log(bars.close[1:] / bars.close[:-1]) ** 2)


def _utc(times: Times) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times).tz_localize("UTC")
