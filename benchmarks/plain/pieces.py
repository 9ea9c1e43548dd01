"""What the plain expressions have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

Plain = Callable[[pd.DataFrame], pd.Series]

FLOOR = 1e-5


def windowed(make: Callable[[pd.DataFrame, int], pd.Series], name: str, *windows: int) -> dict[str, Plain]:
    """Return one column a window."""
    return {f"{name}_{window}": lambda f, window=window: make(f, window) for window in windows}


def returns(close: pd.Series) -> pd.Series:
    """Log returns."""
    return np.log(close).diff()


def span(series: pd.Series, length: int) -> pd.Series:
    """Exponential mean of a span."""
    return series.ewm(span=length).mean()


def wilder(series: pd.Series, length: int) -> pd.Series:
    """Wilder's mean."""
    return series.ewm(alpha=1 / length).mean()


def true_range(f: pd.DataFrame) -> pd.Series:
    """Wilder's true range of log prices."""
    before = f.close.shift()
    spans = [np.log(f.high / f.low), np.log(f.high / before).abs(), np.log(f.low / before).abs()]
    return pd.concat(spans, axis=1).max(axis=1, skipna=False)


def log_root(variance: pd.Series) -> pd.Series:
    """Log of the root of a variance, from `FLOOR` on."""
    return np.log(np.sqrt(variance).clip(lower=FLOOR))


def parkinson(f: pd.DataFrame) -> pd.Series:
    """Variance of single bars by their range."""
    return np.log(f.high / f.low) ** 2 / (4 * np.log(2))


def rogers_satchell(f: pd.DataFrame) -> pd.Series:
    """Variance of single bars, free of drift."""
    return np.log(f.high / f.close) * np.log(f.high / f.open) + np.log(f.low / f.close) * np.log(f.low / f.open)


def gaps(f: pd.DataFrame) -> pd.Series:
    """Log change from the close before to the open."""
    return np.log(f.open) - np.log(f.close).shift()


def typical(f: pd.DataFrame) -> pd.Series:
    """Typical price."""
    return f[["high", "low", "close"]].mean(axis=1)


def population_skew(series: pd.Series, window: int) -> pd.Series:
    """Skewness of each window as a population: pandas has the sample's, which is larger."""
    return series.rolling(window).skew() * (window - 2) / np.sqrt(window * (window - 1))


def position(f: pd.DataFrame, window: int) -> pd.Series:
    """Place of the close in the range."""
    low = f.low.rolling(window).min()
    return (f.close - low) / (f.high.rolling(window).max() - low)


def applied(series: pd.Series, window: int, function: Callable[[np.ndarray], float]) -> pd.Series:
    """Return a function of each window."""
    return series.rolling(window).apply(function, raw=True)
