"""Oscillators, the plain way."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.plain.pieces import Plain, applied, position, returns, true_range, typical, wilder, windowed


def _rsi(f: pd.DataFrame, window: int) -> pd.Series:
    change = returns(f.close)
    gain, loss = wilder(change.clip(lower=0), window), wilder(-change.clip(upper=0), window)
    return 1 - 1 / (1 + gain / loss)


def _stochastic_rsi(f: pd.DataFrame) -> pd.Series:
    strength = _rsi(f, 14)
    low, high = strength.rolling(14).min(), strength.rolling(14).max()
    return (strength - low) / (high - low)


def _cci(f: pd.DataFrame, window: int) -> pd.Series:
    price = typical(f)
    deviation = applied(price, window, lambda x: float(np.abs(x - x.mean()).mean()))
    return (price - price.rolling(window).mean()) / (0.015 * deviation)


def _cmo(f: pd.DataFrame, window: int) -> pd.Series:
    change = returns(f.close)
    up, down = change.clip(lower=0).rolling(window).sum(), -change.clip(upper=0).rolling(window).sum()
    return (up - down) / (up + down)


def _ultimate(f: pd.DataFrame) -> pd.Series:
    pressure = np.log(f.close) - np.log(f.low.combine(f.close.shift(), min))
    share = {w: pressure.rolling(w).sum() / true_range(f).rolling(w).sum() for w in (7, 14, 28)}
    return (4 * share[7] + 2 * share[14] + share[28]) / 7


def _awesome(f: pd.DataFrame) -> pd.Series:
    middle = (f.high + f.low) / 2
    return np.log(middle.rolling(5).mean() / middle.rolling(34).mean())


def _fisher(f: pd.DataFrame, window: int) -> pd.Series:
    x = (2 * position(f, window).rolling(3).mean() - 1).clip(-0.999, 0.999)
    return np.log((1 + x) / (1 - x)) / 2


def _intraday_momentum(f: pd.DataFrame, window: int) -> pd.Series:
    body = np.log(f.close / f.open)
    return body.clip(lower=0).rolling(window).sum() / body.abs().rolling(window).sum()


COLUMNS: dict[str, Plain] = {
    **windowed(_rsi, "rsi", 2, 7, 28),
    "stochastic_rsi_14": _stochastic_rsi,
    **windowed(position, "stochastic", 50),
    **windowed(lambda f, w: position(f, w).rolling(3).mean(), "stochastic_slow", 14),
    **windowed(_fisher, "fisher", 10),
    **windowed(lambda f, w: (f.close - f.close.rolling(w).mean()) / f.close.rolling(w).std(), "price_zscore", 60, 120),
    **windowed(_cci, "cci", 20),
    **windowed(_cmo, "cmo", 9, 20),
    "ultimate": _ultimate,
    "awesome": _awesome,
    "accelerator": lambda f: _awesome(f) - _awesome(f).rolling(5).mean(),
    **windowed(_intraday_momentum, "intraday_momentum", 14),
    **windowed(lambda f, w: (f.close - f.open).rolling(w).sum() / (f.high - f.low).rolling(w).sum(), "vigor", 10),
}
