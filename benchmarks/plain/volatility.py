"""Volatility, the plain way."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.plain.pieces import (
    FLOOR,
    Plain,
    gaps,
    log_root,
    parkinson,
    population_skew,
    returns,
    rogers_satchell,
    span,
    true_range,
    wilder,
    windowed,
)


def _volatility(f: pd.DataFrame, window: int) -> pd.Series:
    return log_root((returns(f.close) ** 2).rolling(window).mean())


def _yang_zhang(f: pd.DataFrame, window: int) -> pd.Series:
    k = 0.34 / (1.34 + (window + 1) / (window - 1))
    overnight, body = gaps(f).rolling(window).var(), np.log(f.close / f.open).rolling(window).var()
    return log_root(overnight + k * body + (1 - k) * rogers_satchell(f).rolling(window).mean())


def _single(f: pd.DataFrame) -> pd.Series:
    return log_root(parkinson(f))


def _gap_share(f: pd.DataFrame, window: int) -> pd.Series:
    outside, inside = (gaps(f) ** 2).rolling(window).sum(), (np.log(f.close / f.open) ** 2).rolling(window).sum()
    return outside / (outside + inside)


def _downside(f: pd.DataFrame, window: int) -> pd.Series:
    change = returns(f.close)
    return (change.clip(upper=0) ** 2).rolling(window).sum() / (change**2).rolling(window).sum()


def _jumps(f: pd.DataFrame, window: int) -> pd.Series:
    size = returns(f.close).abs()
    bipower = np.pi / 2 * (size * size.shift()).rolling(window - 1).mean() * window
    return (1 - bipower / (size**2).rolling(window).sum()).clip(lower=0)


def _squeeze(f: pd.DataFrame, window: int) -> pd.Series:
    return np.log(np.log(f.close).rolling(window).std() / true_range(f).rolling(window).mean())


def _chaikin(f: pd.DataFrame) -> pd.Series:
    return np.log(span(np.log(f.high / f.low), 9)).diff(10)


def _mass(f: pd.DataFrame) -> pd.Series:
    once = span(np.log(f.high / f.low), 9)
    return (once / span(once, 9)).rolling(25).mean() - 1


COLUMNS: dict[str, Plain] = {
    **windowed(_yang_zhang, "log_yang_zhang", 60),
    **windowed(_volatility, "log_volatility", 250),
    **windowed(lambda f, w: _volatility(f, w // 4) - _volatility(f, w), "volatility_ratio", 20, 60, 250),
    **windowed(lambda f, w: log_root(parkinson(f).rolling(w).mean()) - _volatility(f, w), "range_to_close", 22),
    **windowed(lambda f, w: _single(f).rolling(w).std(), "volatility_of_volatility", 60),
    **windowed(lambda f, w: population_skew(_single(f), w), "range_skew", 60),
    **windowed(lambda f, w: np.log(f.high / f.low).rolling(5).mean().rolling(w).rank() / w, "volatility_rank", 120),
    "atr_ratio_7_28": lambda f: np.log(wilder(true_range(f), 7) / wilder(true_range(f), 28)),
    **windowed(lambda f, w: np.log(true_range(f) / true_range(f).rolling(w).mean()), "range_expansion", 20),
    **windowed(_gap_share, "gap_share", 20),
    **windowed(_downside, "downside_share", 60),
    **windowed(_jumps, "jump_share", 20, 60),
    **windowed(lambda f, w: np.log(np.log(f.close).rolling(w).std().clip(lower=FLOOR)), "bollinger_width", 20),
    **windowed(_squeeze, "squeeze", 20),
    "keltner_20": lambda f: np.log(f.close / span(f.close, 20)) / span(true_range(f), 20),
    "chaikin_volatility_10": _chaikin,
    "mass_index": _mass,
    **windowed(lambda f, w: _single(f).rolling(w).corr(_single(f).shift()), "volatility_clustering", 60),
    **windowed(lambda f, w: _single(f).rolling(w).corr(returns(f.close).shift()), "leverage", 60),
}
