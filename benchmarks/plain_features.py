"""The features the plain way: one pandas expression a column, as a notebook has them.

They are what `benchmarks.features` times ours against, and the oracle that the tests hold every registered feature to:
written from the textbook formulas, with nothing of tradeloop's in them. Exponential means are pandas' own, which forget
nothing, and flat or empty windows are left as pandas leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from benchmarks.plain import calendar, oscillators, price_action, statistics, trend, volatility, volume

Plain = Callable[[pd.DataFrame], pd.Series]

FLOOR = 1e-5


def _log(variance: pd.Series) -> pd.Series:
    return np.log(np.sqrt(variance).clip(lower=FLOOR))


def _returns(close: pd.Series) -> pd.Series:
    return np.log(close).diff()


def _parkinson(f: pd.DataFrame) -> pd.Series:
    return np.log(f.high / f.low) ** 2 / (4 * np.log(2))


def _rogers_satchell(f: pd.DataFrame) -> pd.Series:
    return np.log(f.high / f.close) * np.log(f.high / f.open) + np.log(f.low / f.close) * np.log(f.low / f.open)


def _garman_klass(f: pd.DataFrame) -> pd.Series:
    return 0.5 * np.log(f.high / f.low) ** 2 - (2 * np.log(2) - 1) * np.log(f.close / f.open) ** 2


def _yang_zhang(f: pd.DataFrame) -> pd.Series:
    k = 0.34 / (1.34 + 21 / 19)
    overnight = np.log(f.open / f.close.shift()).rolling(20).var()
    body = np.log(f.close / f.open).rolling(20).var()
    return _log(overnight + k * body + (1 - k) * _rogers_satchell(f).rolling(20).mean())


def _true_range(f: pd.DataFrame) -> pd.Series:
    before = f.close.shift()
    spans = [np.log(f.high / f.low), np.log(f.high / before).abs(), np.log(f.low / before).abs()]
    return pd.concat(spans, axis=1).max(axis=1, skipna=False)


def _ewm(series: pd.Series, alpha: float) -> pd.Series:
    return series.ewm(alpha=alpha).mean()


def _directional(f: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    up, down = np.log(f.high).diff(), -np.log(f.low).diff()
    plus = up.where((up > down) & (up > 0), 0.0).where(up.notna())
    minus = down.where((down > up) & (down > 0), 0.0).where(up.notna())
    return _ewm(plus, 1 / 14), _ewm(minus, 1 / 14)


def _adx(f: pd.DataFrame) -> pd.Series:
    plus, minus = _directional(f)
    return _ewm((plus - minus).abs() / (plus + minus), 1 / 14)


def _di_difference(f: pd.DataFrame) -> pd.Series:
    plus, minus = _directional(f)
    return (plus - minus) / _ewm(_true_range(f), 1 / 14)


def _macd(f: pd.DataFrame) -> pd.Series:
    return np.log(f.close.ewm(span=12).mean() / f.close.ewm(span=26).mean())


def _macd_histogram(f: pd.DataFrame) -> pd.Series:
    line = _macd(f)
    return line - line.ewm(span=9).mean()


def _aroon(f: pd.DataFrame) -> pd.Series:
    def since(reversed_extreme: Callable[[np.ndarray], int]) -> Callable[[np.ndarray], float]:
        return lambda window: float(reversed_extreme(window[::-1]))

    high = f.high.rolling(26).apply(since(np.argmax), raw=True)
    low = f.low.rolling(26).apply(since(np.argmin), raw=True)
    return (low - high) / 25


def _rsi(f: pd.DataFrame) -> pd.Series:
    change = _returns(f.close)
    gain, loss = change.clip(lower=0), (-change).clip(lower=0)
    strength = _ewm(gain, 1 / 14) / _ewm(loss, 1 / 14)
    return 1 - 1 / (1 + strength)


def _money_flow(f: pd.DataFrame) -> pd.Series:
    typical = (f.high + f.low + f.close) / 3
    flow, change = typical * f.volume, typical.pct_change().round(9)
    rise = flow.where(change > 0, 0.0).where(change.notna()).rolling(14).sum()
    fall = flow.where(change < 0, 0.0).where(change.notna()).rolling(14).sum()
    return rise / (rise + fall)


def _streak(f: pd.DataFrame) -> pd.Series:
    side = np.sign(f.close.diff())
    run = side.groupby((side != side.shift()).cumsum()).cumcount() + 1
    return (side * run).clip(-10, 10)


def _circle(wave: Callable[[pd.Series], pd.Series], phase: Callable[[pd.DataFrame], pd.Series]) -> Plain:
    return lambda f: wave(2 * np.pi * phase(f))


def _weekday(f: pd.DataFrame) -> pd.Series:
    return f.timestamp.dt.weekday / 7


def _month(f: pd.DataFrame) -> pd.Series:
    return (f.timestamp.dt.month - 1) / 12


def _time_of_day(f: pd.DataFrame) -> pd.Series:
    return (f.timestamp - f.timestamp.dt.normalize()) / pd.Timedelta(days=1)


def _month_progress(f: pd.DataFrame) -> pd.Series:
    into = (f.timestamp - f.timestamp.dt.normalize()) / pd.Timedelta(days=1)
    return (f.timestamp.dt.day - 1 + into) / f.timestamp.dt.days_in_month


def _body(f: pd.DataFrame) -> pd.DataFrame:
    return f[["open", "close"]]


def _bar_number(f: pd.DataFrame) -> pd.Series:
    return pd.Series(np.arange(len(f), dtype=float), index=f.index)


def _window(make: Callable[[pd.DataFrame, int], pd.Series], name: str, *windows: int) -> dict[str, Plain]:
    return {f"{name}_{window}": lambda f, window=window: make(f, window) for window in windows}


BASE: dict[str, Plain] = {
    **_window(lambda f, w: np.log(f.close / f.close.rolling(w).mean()), "sma_distance", 10, 50),
    "macd": _macd,
    "macd_histogram": _macd_histogram,
    "adx_14": _adx,
    "di_difference_14": _di_difference,
    "aroon_25": _aroon,
    "trend_correlation_20": lambda f: f.close.rolling(20).corr(_bar_number(f)),
    **_window(lambda f, w: np.log(f.close).diff(w), "return", 1, 2, 3, 5, 10, 20, 60),
    "rsi_14": _rsi,
    "stochastic_14": lambda f: (
        (f.close - f.low.rolling(14).min()) / (f.high.rolling(14).max() - f.low.rolling(14).min())
    ),
    "price_zscore_20": lambda f: (f.close - f.close.rolling(20).mean()) / f.close.rolling(20).std(),
    **_window(lambda f, w: _log(_parkinson(f).rolling(w).mean()), "log_parkinson", 1, 5, 22, 60),
    "log_parkinson_ewma": lambda f: _log(_ewm(_parkinson(f), 0.06)),
    "log_garman_klass_20": lambda f: _log(_garman_klass(f).rolling(20).mean()),
    "log_rogers_satchell_20": lambda f: _log(_rogers_satchell(f).rolling(20).mean()),
    "log_yang_zhang_20": _yang_zhang,
    **_window(lambda f, w: _log((_returns(f.close) ** 2).rolling(w).mean()), "log_volatility", 5, 20, 60),
    "volatility_of_volatility_20": lambda f: _log(_parkinson(f)).rolling(20).std(),
    "log_atr_14": lambda f: np.log(_ewm(_true_range(f), 1 / 14)),
    "log_gap_volatility_20": lambda f: _log((np.log(f.open / f.close.shift()) ** 2).rolling(20).mean()),
    "downside_share_20": lambda f: (
        (_returns(f.close).clip(upper=0) ** 2).rolling(20).sum() / (_returns(f.close) ** 2).rolling(20).sum()
    ),
    "relative_volume_20": lambda f: np.log((f.volume / f.volume.rolling(20).mean() + 0.01) / 1.01),
    "volume_trend_5_60": lambda f: np.log((f.volume.rolling(5).mean() / f.volume.rolling(60).mean() + 0.01) / 1.01),
    "volume_zscore_20": lambda f: (f.volume - f.volume.rolling(20).mean()) / f.volume.rolling(20).std(),
    "obv_slope_20": lambda f: (np.sign(f.close.diff()) * f.volume).rolling(20).sum() / f.volume.rolling(20).sum(),
    "money_flow_14": _money_flow,
    "return_volume_correlation_20": lambda f: _returns(f.close).rolling(20).corr(f.volume),
    "gap": lambda f: np.log(f.open / f.close.shift()),
    "intraday_return": lambda f: np.log(f.close / f.open),
    "close_location": lambda f: (2 * f.close - f.high - f.low) / (f.high - f.low),
    "body_ratio": lambda f: (f.close - f.open) / (f.high - f.low),
    "upper_wick": lambda f: (f.high - _body(f).max(axis=1)) / (f.high - f.low),
    "lower_wick": lambda f: (_body(f).min(axis=1) - f.low) / (f.high - f.low),
    "streak": _streak,
    "high_distance_60": lambda f: np.log(f.close / f.high.rolling(60).max()),
    "low_distance_60": lambda f: np.log(f.close / f.low.rolling(60).min()),
    "weekday_sin": _circle(np.sin, _weekday),
    "weekday_cos": _circle(np.cos, _weekday),
    "month_sin": _circle(np.sin, _month),
    "month_cos": _circle(np.cos, _month),
    "month_progress": _month_progress,
    "log_days_since_bar": lambda f: np.log(f.timestamp.diff() / pd.Timedelta(days=1)),
    "time_of_day_sin": _circle(np.sin, _time_of_day),
    "time_of_day_cos": _circle(np.cos, _time_of_day),
    **trend.TREND,
    **trend.MOMENTUM,
    **oscillators.COLUMNS,
    **volatility.COLUMNS,
    **volume.COLUMNS,
    **price_action.PRICE_ACTION,
    **price_action.CANDLES,
    **statistics.COLUMNS,
    **calendar.CALENDAR,
    **calendar.SESSION,
}
"""The columns that read the symbol's own bars, by name."""


def _beta(f: pd.DataFrame, series: str) -> pd.Series:
    own, other = _returns(f.close), _returns(f[series])
    return (own.rolling(60).cov(other) / other.rolling(60).var()).clip(-10, 10)


CONTEXT: dict[str, Callable[[pd.DataFrame, str], pd.Series]] = {
    "return_1": lambda f, series: _returns(f[series]),
    "log_volatility_20": lambda f, series: _log((_returns(f[series]) ** 2).rolling(20).mean()),
    "beta_60": _beta,
    "relative_strength_20": lambda f, series: np.log(f.close).diff(20) - np.log(f[series]).diff(20),
}
"""The columns that also read a context series, by what follows its name."""


def plain_features(frame: pd.DataFrame, context: tuple[str, ...] = (), names: Collection[str] = ()) -> pd.DataFrame:
    """Return the columns, or those of these names, for a frame of bars.

    The frame has the context series' closes as columns of their own; its `attrs` may name the market's calendar.
    """
    columns = {name: make(frame) for name, make in BASE.items() if not names or name in names}
    for series in context:
        columns |= {f"{series.lower()}_{name}": make(frame, series) for name, make in CONTEXT.items()}
    return pd.DataFrame(columns)
