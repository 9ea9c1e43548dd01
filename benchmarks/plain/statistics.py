"""Rolling statistics, the plain way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.plain.pieces import Plain, applied, population_skew, returns, windowed


def _autocorrelation(f: pd.DataFrame, lag: int) -> pd.Series:
    return returns(f.close).rolling(60).corr(returns(f.close).shift(lag))


def _hurst(x: np.ndarray) -> float:
    walk = np.concatenate([[0.0], np.cumsum(x - x.mean())])
    return float(np.log(np.ptp(walk) / x.std()) / np.log(len(x)))


def _words(series: pd.Series, word: Callable[[np.ndarray], bytes]) -> pd.Series:
    """Return numbers for the words of three successive values, NaN where there are not as many."""
    windows = np.lib.stride_tricks.sliding_window_view(series.to_numpy(), 3)
    numbers = pd.factorize(np.array([word(window) for window in windows], dtype="S24"))[0]
    known = ~np.isnan(windows).any(axis=1)
    return pd.Series(np.concatenate([[np.nan] * 2, np.where(known, numbers, np.nan)]), index=series.index)


def _entropy(words: pd.Series, kinds: int) -> pd.Series:
    def of(x: np.ndarray) -> float:
        share = np.bincount(x.astype(int)) / len(x)
        return float(-(share[share > 0] * np.log(share[share > 0])).sum() / np.log(kinds))

    return applied(words, 60, of)


def _order(closes: np.ndarray) -> bytes:
    """Return the order of three closes; of equal ones the later counts as the lower."""
    return bytes(np.lexsort((-np.arange(3), closes)).astype(np.int8) + 1)


def _asymmetry(x: np.ndarray) -> float:
    low, middle, high = np.quantile(x, [0.05, 0.5, 0.95])
    return float((high + low - 2 * middle) / (high - low))


def _centre(x: np.ndarray) -> float:
    low, first, third, high = np.quantile(x, [0.05, 0.25, 0.75, 0.95])
    return float((third - first) / (high - low))


def _kurtosis(f: pd.DataFrame, n: int) -> pd.Series:
    # pandas has the sample's excess kurtosis; the population's is this
    return (returns(f.close).rolling(n).kurt() * (n - 2) * (n - 3) / (n - 1) - 6) / (n + 1)


def _falls(x: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(x) - x


def _ulcer(x: np.ndarray) -> float:
    return float(np.linalg.norm(_falls(x)) / np.sqrt(len(x)))


def _variance_ratio(f: pd.DataFrame, window: int) -> pd.Series:
    several = np.log(f.close).diff(window).rolling(121 - window).var()
    return several / (window * returns(f.close).rolling(120).var())


def _crossings(f: pd.DataFrame, window: int) -> pd.Series:
    average = f.close.rolling(20).mean()
    side = ((f.close > average * (1 + 1e-9)).astype(float) - (f.close < average * (1 - 1e-9))).where(average.notna())
    return (side.diff().abs() / 2).rolling(window).mean()


def _fractal(f: pd.DataFrame, window: int) -> pd.Series:
    def width(length: int) -> pd.Series:
        return np.log(f.high.rolling(length).max() / f.low.rolling(length).min())

    halves = width(window // 2) + width(window // 2).shift(window // 2)
    return np.log2((2 * halves / width(window)).clip(1, 4))


def _of_returns(f: pd.DataFrame, window: int, function: object) -> pd.Series:
    return applied(returns(f.close), window, function)  # type: ignore[arg-type]  # any function of an array


def _zscore(f: pd.DataFrame, window: int) -> pd.Series:
    change = returns(f.close)
    return (change - change.rolling(window).mean()) / change.rolling(window).std()


COLUMNS: dict[str, Plain] = {
    **windowed(_zscore, "return_zscore", 20, 60),
    **windowed(lambda f, w: population_skew(returns(f.close), w), "skewness", 20, 60),
    **windowed(_kurtosis, "kurtosis", 20, 60),
    **windowed(_autocorrelation, "autocorrelation", 1, 2, 3, 4, 5),
    **windowed(_variance_ratio, "variance_ratio", 5, 20),
    **windowed(partial(_of_returns, function=_hurst), "hurst", 120),
    "sign_entropy_60": lambda f: _entropy(_words(returns(f.close), lambda x: bytes((x > 0).astype(np.int8) + 1)), 8),
    "permutation_entropy_60": lambda f: _entropy(_words(f.close, _order), 6),
    **windowed(lambda f, w: returns(f.close).round(12).rolling(w).rank() / w, "return_rank", 60),
    **windowed(partial(_of_returns, function=_asymmetry), "tail_asymmetry", 60),
    **windowed(partial(_of_returns, function=_centre), "centre_share", 60),
    **windowed(lambda f, w: f.close.rolling(w).rank() / w, "close_rank", 120),
    **windowed(lambda f, w: applied(np.log(f.close), w, lambda x: float(_falls(x).max())), "max_drawdown", 20, 120),
    **windowed(lambda f, w: applied(np.log(f.close), w, _ulcer), "ulcer", 20, 120),
    **windowed(lambda f, w: np.sign(f.close.diff()).rolling(w).mean(), "sign_balance", 20, 60),
    "mean_reversion_60": lambda f: returns(f.close).rolling(60).corr(np.log(f.close).shift()),
    **windowed(_crossings, "crossings", 60),
    **windowed(_fractal, "fractal_dimension", 30, 120),
}
