"""Volume, the plain way."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.plain.pieces import Plain, returns, span, typical, windowed


def _money_flow(f: pd.DataFrame, window: int) -> pd.Series:
    flow, change = typical(f) * f.volume, typical(f).pct_change().round(9)
    rise, fall = (flow.where(side, 0.0).rolling(window).sum() for side in (change > 0, change < 0))
    return rise / (rise + fall)


def _located(f: pd.DataFrame) -> pd.Series:
    place = (2 * f.close - f.high - f.low) / (f.high - f.low)
    return place.fillna(0.0) * f.volume


def _illiquidity(f: pd.DataFrame, window: int) -> pd.Series:
    return returns(f.close).abs().rolling(window).sum() / (typical(f) * f.volume).rolling(window).sum()


def _ease(f: pd.DataFrame, window: int) -> pd.Series:
    width = np.log(f.high / f.low)
    drift = np.log(f.high + f.low).diff() * width
    ease = drift / (f.volume / f.volume.rolling(window).mean() + 0.01)
    return ease.rolling(window).sum() / (width**2).rolling(window).sum()


def _indexed(f: pd.DataFrame, window: int, side: int) -> pd.Series:
    more = np.sign(f.volume.diff()) == side
    return returns(f.close).where(more, 0.0).where(f.volume.diff().notna()).rolling(window).sum()


def _obv(f: pd.DataFrame, window: int) -> pd.Series:
    return (np.sign(f.close.diff()) * f.volume).rolling(window).sum() / f.volume.rolling(window).sum()


def _vwap(f: pd.DataFrame, window: int) -> pd.Series:
    return (typical(f) * f.volume).rolling(window).sum() / f.volume.rolling(window).sum()


def _confirmation(f: pd.DataFrame, window: int) -> pd.Series:
    weighed = (f.close * f.volume).rolling(window).sum() / f.volume.rolling(window).sum()
    return np.log(weighed / f.close.rolling(window).mean())


COLUMNS: dict[str, Plain] = {
    "relative_volume_60": lambda f: np.log((f.volume / f.volume.rolling(60).mean() + 0.01) / 1.01),
    "volume_rank_60": lambda f: f.volume.rolling(60).rank() / 60,
    "volume_variation_20": lambda f: f.volume.rolling(20).std() / f.volume.rolling(20).mean(),
    "volume_time_correlation_20": lambda f: f.volume.rolling(20).corr(pd.Series(np.arange(len(f)), index=f.index)),
    **windowed(_obv, "obv_slope", 5, 60),
    **windowed(_money_flow, "money_flow", 28),
    "chaikin_flow_20": lambda f: _located(f).rolling(20).sum() / f.volume.rolling(20).sum(),
    "accumulation_3_10": lambda f: (span(_located(f), 3) - span(_located(f), 10)) / span(f.volume, 10),
    "force_13": lambda f: span(returns(f.close) * f.volume, 13) / span(f.volume.where(f.close.shift().notna()), 13),
    **windowed(lambda f, w: np.log(f.close / _vwap(f, w)), "vwap_distance", 5, 20, 60),
    **windowed(_confirmation, "volume_confirmation", 20),
    "illiquidity_20_120": lambda f: np.log((_illiquidity(f, 20) / _illiquidity(f, 120) + 0.01) / 1.01),
    **windowed(_ease, "ease_of_movement", 14),
    **windowed(lambda f, w: _indexed(f, w, -1), "quiet_return", 60),
    **windowed(lambda f, w: _indexed(f, w, 1), "busy_return", 60),
    "move_volume_correlation_20": lambda f: returns(f.close).abs().rolling(20).corr(f.volume),
}
