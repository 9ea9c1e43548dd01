"""Price action and candles, the plain way: candles by TA-Lib."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import talib

from benchmarks.plain.pieces import Plain, applied, gaps, returns, true_range, windowed

WING = 3


def _wicks(f: pd.DataFrame, window: int) -> pd.Series:
    top, bottom = f[["open", "close"]].max(axis=1), f[["open", "close"]].min(axis=1)
    lower, upper = (bottom - f.low).rolling(window).sum(), (f.high - top).rolling(window).sum()
    return (lower - upper) / (f.high - f.low).rolling(window).sum()


def _joint_body(f: pd.DataFrame, window: int) -> pd.Series:
    width = f.high.rolling(window).max() - f.low.rolling(window).min()
    return (f.close - f.open.shift(window - 1)) / width


def _gap_fill(f: pd.DataFrame) -> pd.Series:
    before = f.close.shift()
    up, down = (f.open - f.low) / (f.open - before), (f.high - f.open) / (before - f.open)
    none = (f.open / before - 1).abs() < 1e-9
    return up.where(f.open > before, down).mask(none, 1.0).clip(upper=1.0)


def _overlap(f: pd.DataFrame) -> pd.Series:
    high, low = f.high.rolling(2), f.low.rolling(2)
    return (high.min() - low.max()) / (high.max() - low.min())


def _containment(f: pd.DataFrame) -> pd.Series:
    inside = (f.high < f.high.shift()) & (f.low > f.low.shift())
    outside = (f.high > f.high.shift()) & (f.low < f.low.shift())
    return outside.astype(float) - inside


def _stair(f: pd.DataFrame, window: int) -> pd.Series:
    return ((np.sign(f.high.diff()) + np.sign(f.low.diff())) / 2).rolling(window).mean()


def _age(values: pd.Series, window: int, newest: Callable[[np.ndarray], int]) -> pd.Series:
    return applied(values, window, lambda x: float(newest(x[::-1]))) / window


def _pivot(highs: np.ndarray) -> int:
    """Return how many bars ago the newest pivot high was, else the highest."""
    for back in range(WING, len(highs) - WING):
        at = len(highs) - 1 - back
        if highs[at] == highs[at - WING : at + WING + 1].max():
            return back
    return int(np.argmax(highs[::-1]))


def _pivot_age(f: pd.DataFrame, window: int, side: int) -> pd.Series:
    return applied(f.high if side > 0 else -f.low, window, lambda x: float(_pivot(x)))


def _pivot_distance(f: pd.DataFrame, window: int, side: int) -> pd.Series:
    age = _pivot_age(f, window, side)
    at = np.arange(len(f)) - age.fillna(0).astype(int).to_numpy()
    level = pd.Series((f.high if side > 0 else f.low).to_numpy()[at], index=f.index)
    return np.log(f.close / level).where(age.notna())


def _candle(*parts: tuple[str, int]) -> Plain:
    def pattern(f: pd.DataFrame) -> pd.Series:
        found = np.zeros(len(f))
        for name, sign in parts:
            more = {"penetration": 0.5} if name == "CDLDARKCLOUDCOVER" else {}
            found = found + sign * getattr(talib, name)(f.open, f.high, f.low, f.close, **more).to_numpy()
        return pd.Series(np.sign(found), index=f.index)

    return pattern


def _soldiers(f: pd.DataFrame) -> pd.Series:
    """Return three white soldiers, and as crows the same upside down: TA-Lib's own crows are another figure."""
    top = f.high.max() + f.low.min()
    turned = pd.DataFrame({"open": top - f.open, "high": top - f.low, "low": top - f.high, "close": top - f.close})
    soldiers = _candle(("CDL3WHITESOLDIERS", 1))
    return soldiers(f) - soldiers(turned)


PRICE_ACTION: dict[str, Plain] = {
    **windowed(lambda f, w: gaps(f) / true_range(f).rolling(w).mean(), "gap_size", 20),
    "gap_fill": _gap_fill,
    **windowed(_wicks, "wick_balance", 10),
    **windowed(_joint_body, "joint_body", 3, 10),
    "range_share": lambda f: returns(f.close) / true_range(f),
    "overlap": _overlap,
    "containment": _containment,
    **windowed(lambda f, w: np.log(f.high / f.low).round(9).rolling(w).rank() / w, "range_rank", 7, 20),
    **windowed(_stair, "stair", 10),
    **windowed(lambda f, w: np.log(f.close / f.high.rolling(w).max()), "high_distance", 20, 250),
    **windowed(lambda f, w: np.log(f.close / f.low.rolling(w).min()), "low_distance", 20, 250),
    **windowed(lambda f, w: _age(f.high, w, np.argmax), "high_age", 60, 250),
    **windowed(lambda f, w: _age(f.low, w, np.argmin), "low_age", 60, 250),
    **windowed(lambda f, w: _pivot_distance(f, w, 1), "pivot_high_distance", 60),
    **windowed(lambda f, w: _pivot_distance(f, w, -1), "pivot_low_distance", 60),
    **windowed(lambda f, w: (_pivot_age(f, w, 1) - _pivot_age(f, w, -1)) / w, "pivot_order", 60),
}

CANDLES: dict[str, Plain] = {
    "candle_doji": _candle(("CDLDOJI", 1)),
    "candle_marubozu": _candle(("CDLMARUBOZU", 1)),
    "candle_spinning_top": _candle(("CDLSPINNINGTOP", 1)),
    "candle_hammer": _candle(("CDLHAMMER", 1), ("CDLHANGINGMAN", 1)),
    "candle_inverted_hammer": _candle(("CDLINVERTEDHAMMER", 1), ("CDLSHOOTINGSTAR", 1)),
    "candle_dragonfly": _candle(("CDLDRAGONFLYDOJI", 1), ("CDLGRAVESTONEDOJI", -1)),
    "candle_engulfing": _candle(("CDLENGULFING", 1)),
    "candle_harami": _candle(("CDLHARAMI", 1)),
    "candle_piercing": _candle(("CDLPIERCING", 1), ("CDLDARKCLOUDCOVER", 1)),
    "candle_star": _candle(("CDLMORNINGSTAR", 1), ("CDLEVENINGSTAR", 1)),
    "candle_inside_three": _candle(("CDL3INSIDE", 1)),
    "candle_outside_three": _candle(("CDL3OUTSIDE", 1)),
    "candle_soldiers": _soldiers,
}

CANDLES["candle_balance_10"] = lambda f: sum(
    (make(f) for name, make in list(CANDLES.items())[3:13]), pd.Series(0.0, index=f.index)
).rolling(10).sum()  # fmt: skip
