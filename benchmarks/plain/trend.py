"""Trend and momentum, the plain way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import talib

from benchmarks.plain.pieces import FLOOR, Plain, applied, gaps, returns, span, true_range, windowed


def _unit(f: pd.DataFrame, window: int) -> pd.Series:
    return np.sqrt((returns(f.close) ** 2).rolling(window).mean()).clip(lower=FLOOR)


def _line(close: np.ndarray) -> np.ndarray:
    return np.polyfit(np.arange(len(close)), close, 1)


def _slope(f: pd.DataFrame, window: int) -> pd.Series:
    return applied(np.log(f.close), window, lambda x: _line(x)[0])


def _residual(close: np.ndarray) -> float:
    return float(close[-1] - np.polyval(_line(close), len(close) - 1))


def _vortex(f: pd.DataFrame, window: int) -> pd.Series:
    high, low = np.log(f.high), np.log(f.low)
    moves = (high - low.shift()).abs() - (low - high.shift()).abs()
    return moves.rolling(window).sum() / true_range(f).rolling(window).sum()


def _path(f: pd.DataFrame, window: int) -> pd.Series:
    return returns(f.close).abs().rolling(window).sum()


def _choppiness(f: pd.DataFrame, window: int) -> pd.Series:
    high = np.log(f.high).combine(np.log(f.close.shift()), max).rolling(window).max()
    low = np.log(f.low).combine(np.log(f.close.shift()), min).rolling(window).min()
    return np.log10((true_range(f).rolling(window).sum() / (high - low)).clip(lower=1)) / np.log10(window)


def _donchian(f: pd.DataFrame, window: int) -> pd.Series:
    high, low = f.high.rolling(window).max().shift(), f.low.rolling(window).min().shift()
    return ((f.close - low) / (high - low)).clip(-1, 2)


def _middle(f: pd.DataFrame, window: int) -> pd.Series:
    return (f.high.rolling(window).max() + f.low.rolling(window).min()) / 2


def _first(f: pd.DataFrame) -> pd.Series:
    return ((_middle(f, 9) + _middle(f, 26)) / 2).shift(26)


def _cloud(f: pd.DataFrame) -> pd.Series:
    return (_first(f) + _middle(f, 52).shift(26)) / 2


def _above(f: pd.DataFrame, window: int) -> pd.Series:
    average = f.close.rolling(window).mean()
    above = (f.close > average * (1 + 1e-9)).astype(float) - (f.close < average * (1 - 1e-9))
    return above.where(average.notna()).rolling(window).mean()


def _tsi(f: pd.DataFrame) -> pd.Series:
    change = returns(f.close)
    return span(span(change, 25), 13) / span(span(change.abs(), 25), 13)


def _coppock(f: pd.DataFrame) -> pd.Series:
    close = np.log(f.close)
    return pd.Series(talib.WMA((close.diff(11) + close.diff(14)).to_numpy(), 10), index=f.index)


def _discreteness(f: pd.DataFrame, window: int) -> pd.Series:
    change = returns(f.close)
    down, up = (change < 0).rolling(window).mean(), (change > 0).rolling(window).mean()
    return np.sign(np.log(f.close).diff(window)) * (down - up)


TREND: dict[str, Plain] = {
    "sma_distance_200": lambda f: np.log(f.close / f.close.rolling(200).mean()),
    **windowed(
        lambda f, w: np.log(f.close.rolling(w // 4).mean() / f.close.rolling(w).mean()), "sma_cross", 20, 80, 200
    ),
    **windowed(lambda f, w: np.log(f.close / span(f.close, w)), "ema_distance", 5, 21),
    **windowed(_above, "above_average", 20),
    **windowed(_vortex, "vortex", 14),
    "trend_correlation_60": lambda f: f.close.rolling(60).corr(pd.Series(np.arange(len(f)), index=f.index)),
    **windowed(lambda f, w: _slope(f, w) / _unit(f, w), "regression_slope", 20, 60),
    **windowed(lambda f, w: applied(np.log(f.close), w, _residual) / _unit(f, w), "regression_distance", 20, 60),
    "regression_bend_60": lambda f: (
        _slope(f, 30).diff(30) / np.log(f.high / f.low).rolling(60).mean().clip(lower=FLOOR)
    ),
    **windowed(lambda f, w: np.log(f.close).diff(w).abs() / _path(f, w), "efficiency", 10, 30),
    **windowed(_choppiness, "choppiness", 14),
    **windowed(
        lambda f, w: np.log(f.close.rolling(w).max() / f.close.rolling(w).min()) / _path(f, w), "path_range", 28
    ),
    **windowed(_donchian, "donchian", 20, 55),
    "ichimoku_cross": lambda f: np.log(_middle(f, 9) / _middle(f, 26)),
    "ichimoku_distance": lambda f: np.log(f.close / _cloud(f)),
    "ichimoku_width": lambda f: np.log(_first(f) / _middle(f, 52).shift(26)),
}

MOMENTUM: dict[str, Plain] = {
    **windowed(lambda f, w: np.log(f.close).diff(w), "return", 120, 250),
    "return_250_20": lambda f: np.log(f.close.shift(20) / f.close.shift(250)),
    **windowed(lambda f, w: np.log(f.close).diff(w).diff(w), "acceleration", 5, 20),
    **windowed(lambda f, w: np.log(f.close).diff(w) / _unit(f, w) / np.sqrt(w), "scaled_return", 10, 60, 120),
    "tsi": _tsi,
    "trix_9": lambda f: span(span(span(returns(f.close), 9), 9), 9),
    "coppock": _coppock,
    **windowed(_discreteness, "information_discreteness", 60),
    **windowed(lambda f, w: gaps(f).rolling(w).sum(), "gap_return", 20),
    **windowed(lambda f, w: np.log(f.close / f.open).rolling(w).sum(), "body_return", 20),
    **windowed(lambda f, w: returns(f.close).rolling(w).max(), "largest_return", 20),
    **windowed(lambda f, w: returns(f.close).rolling(w).min(), "smallest_return", 20),
    **windowed(lambda f, w: np.log(f.close.shift(w // 2 + 1) / f.close.rolling(w).mean()), "detrended", 20),
}
