"""What a forecast must beat: simple forecasts that know no more than the closed bars at the feature time.

Each is a function of a `Sample` of rows; whatever is fitted, is fitted on the training rows only. A past label may be
used once it has *ended*: the label of the last bar is not known before its exit.

========== ==================================================================================================
direction  majority (training prevalence), previous (frequency of up, in training, after the last known label)
return     mean (of training), previous (the last known label)
range      mean, previous, EWMA (RiskMetrics 1996, λ = .94), HAR (Corsi 2009, lags 1, 5, 22)
========== ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats, Times
from tradeloop.config import Target
from tradeloop.errors import DataError
from tradeloop.labels import QUIET

DECAY = 0.94
LAGS = (1, 5, 22)
_MIN_ROWS = 60  # of training: below this a symbol's own regression gives way to the pooled one

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """The whole training matrix without its features, and which of its rows train and test.

    Attributes
    ----------
    symbol, timestamp, label_end
        Of every row (n,); times are UTC, the feature time and the label's end.
    y
        Labels by target (n,).
    train, test
        Row positions. Forecasts are made for the test rows.
    """

    symbol: NDArray[Any]
    timestamp: Times
    label_end: Times
    y: Mapping[Target, Floats]
    train: Rows
    test: Rows


def previous_label(sample: Sample, target: Target) -> Floats:
    """Return, for every row (n,), the same symbol's newest label that had ended at the feature time; NaN if none."""
    result = np.full(len(sample.symbol), np.nan)
    for name in set(sample.symbol):
        rows = np.flatnonzero(sample.symbol == name)
        rows = rows[np.argsort(sample.label_end[rows], kind="stable")]
        at = np.searchsorted(sample.label_end[rows], sample.timestamp[rows], side="right") - 1
        result[rows[at >= 0]] = sample.y[target][rows[at[at >= 0]]]
    return result


def majority(sample: Sample) -> Floats:
    """Return the training prevalence of up for every test row: the best constant probability known beforehand."""
    return np.full(len(sample.test), sample.y["direction"][sample.train].mean())


def previous_direction(sample: Sample) -> Floats:
    """Return how often up followed the last known direction in training, for every test row (a Markov chain)."""
    up, last = sample.y["direction"][sample.train], previous_label(sample, "direction")
    result = majority(sample)
    for state in (0.0, 1.0):
        seen = last[sample.train] == state
        if seen.any():
            result[last[sample.test] == state] = up[seen].mean()
    return result


def training_mean(sample: Sample, target: Target) -> Floats:
    """Return the training rows' mean label for every test row."""
    return np.full(len(sample.test), sample.y[target][sample.train].mean())


def previous_value(sample: Sample, target: Target) -> Floats:
    """Return the last known label for every test row; the training mean where none is known."""
    last = previous_label(sample, target)[sample.test]
    return np.where(np.isnan(last), training_mean(sample, target), last)


def ewma(sample: Sample, bars: Mapping[str, Bars], measure: Literal["parkinson", "realised"]) -> Floats:
    """Return the log of the exponentially weighted volatility per bar, λ = .94, for every test row.

    ``v(t) = λ · v(t−1) + (1 − λ) · s(t)`` over the closed bars, s the measure's variance of one bar; the forecast is
    ``ln(v) / 2``. Its level is shifted by the mean error on the training rows: the mean of a log lies below the log of
    a mean, and a baseline should not lose on that.
    """
    level = _at_rows(sample, bars, lambda one: np.log(_decayed(_variance(one, measure))) / 2)
    shift = (sample.y["range"] - level)[sample.train].mean()
    return np.asarray((level + shift)[sample.test])


def har(sample: Sample, bars: Mapping[str, Bars]) -> Floats:
    """Return the heterogeneous autoregression of log range for every test row, fitted by symbol on the training rows.

    Regressors are the means of log Parkinson volatility over the last 1, 5 and 22 closed bars, and a constant. A symbol
    with fewer than 60 training rows takes the pooled coefficients; with fewer than 60 in all, the forecast is the
    training mean.
    """
    lags = [_at_rows(sample, bars, partial(_mean_log_range, lag=lag)) for lag in LAGS]
    x = np.column_stack([np.ones(len(sample.symbol)), *lags])
    usable = np.asarray(np.isfinite(x).all(axis=1))
    forecast = np.full(len(sample.symbol), sample.y["range"][sample.train].mean())
    train = sample.train[usable[sample.train]]
    if len(train) < _MIN_ROWS:
        return forecast[sample.test]
    pooled = _least_squares(x[train], sample.y["range"][train])
    for name in set(sample.symbol):
        own = train[sample.symbol[train] == name]
        beta = _least_squares(x[own], sample.y["range"][own]) if len(own) >= _MIN_ROWS else pooled
        rows = usable & (sample.symbol == name)
        forecast[rows] = x[rows] @ beta
    return forecast[sample.test]


def _least_squares(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


def _variance(bars: Bars, measure: Literal["parkinson", "realised"]) -> Floats:
    """Return each bar's variance (n,), floored as the label is; a first bar has no close before it and didn't move."""
    if measure == "parkinson":
        variance = np.log(bars.high / bars.low) ** 2 / (4 * np.log(2.0))
    else:
        variance = np.diff(np.log(bars.close), prepend=np.log(bars.close[:1])) ** 2
    return np.asarray(np.maximum(variance, QUIET**2))


def _decayed(values: Floats) -> Floats:
    """Return the exponentially weighted mean of the values so far (n,); the weights sum to one from the start."""
    from scipy.signal import lfilter

    poles = [1.0, -DECAY]
    return np.asarray(lfilter([1.0], poles, values) / lfilter([1.0], poles, np.ones(len(values))))


def _mean_log_range(bars: Bars, *, lag: int) -> Floats:
    """Return the mean log Parkinson volatility of the newest `lag` bars (n,); NaN before there are as many."""
    sums = np.concatenate([[0.0], np.cumsum(np.log(_variance(bars, "parkinson")) / 2)])
    means = np.full(len(bars), np.nan)
    means[lag - 1 :] = (sums[lag:] - sums[:-lag]) / lag
    return means


def _at_rows(sample: Sample, bars: Mapping[str, Bars], function: Callable[[Bars], Floats]) -> Floats:
    """Return, for every row (n,), the function's value on its symbol's newest bar closed by the feature time."""
    result = np.empty(len(sample.symbol))
    for name in sorted(set(sample.symbol)):
        if name not in bars:
            raise DataError(f"{name}: a range baseline needs the bars of every symbol")
        rows = sample.symbol == name
        at = np.searchsorted(bars[name].timestamp, sample.timestamp[rows], side="right") - 1
        if (at < 0).any():
            raise DataError(f"{name} at {sample.timestamp[rows].min()}Z: no bar had closed by then")
        result[rows] = function(bars[name])[at]
    return result
