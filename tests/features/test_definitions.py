"""Every feature of bars against an independent computation: plain pandas, and TA-Lib where it has the same."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import numpy as np
import pandas as pd
import pytest
import talib

from benchmarks.plain_features import BASE, CONTEXT, plain_features
from tests.features.conftest import market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.config import parse_interval
from tradeloop.features import FeatureSpec, registered
from tradeloop.features.rolling import FORGOTTEN

FAMILIES = (
    "trend",
    "momentum",
    "oscillators",
    "volatility",
    "volume",
    "price_action",
    "candles",
    "statistics",
    "calendar",
    "session",
)
# Exponential means: pandas forgets nothing, ours all but the last `FORGOTTEN` of the weight; chained means twice.
EXPONENTIAL = (
    "ema_", "macd", "adx_", "di_difference_", "tsi", "trix_", "rsi_", "stochastic_rsi_", "log_parkinson_ewma",
    "log_atr_", "atr_ratio_", "keltner_", "chaikin_volatility_", "mass_index", "accumulation_", "force_",
)  # fmt: skip
BARS = 1200
MARKETS = {"us_daily": "AAPL", "eurusd_hourly": "EURUSD", "aapl_hourly": "AAPL_1H", "btc_15m": "BTCUSD"}


def specs_of(market: str) -> list[FeatureSpec]:
    active = market_params(market).active
    interval = parse_interval(active.interval)
    return registered(FAMILIES, interval=interval, calendar=active.calendar)


def bars_of(market: str) -> Bars:
    bars = market_bars(market, MARKETS[market])
    return bars[-BARS:] if market == "us_daily" else bars[-BARS - 300 :]


@cache
def plain_of(market: str) -> pd.DataFrame:
    bars = bars_of(market)
    columns = {name: getattr(bars, name) for name in ("timestamp", "open", "high", "low", "close", "volume")}
    frame = pd.DataFrame(columns | dict(bars.context))
    frame["timestamp"] = frame.timestamp.dt.tz_localize("UTC")
    frame.attrs["calendar"] = market_params(market).active.calendar
    with np.errstate(divide="ignore", invalid="ignore"):  # pandas divides by empty windows
        return plain_features(frame, tuple(bars.context), [spec.name for spec in specs_of(market)])


def tolerance(spec: FeatureSpec, exact: float) -> float:
    return 20 * FORGOTTEN if spec.name.startswith(EXPONENTIAL) else exact


def test_the_plain_way_has_every_registered_feature() -> None:
    names = {spec.name for spec in registered(FAMILIES, interval=timedelta(hours=1))}
    assert names == set(BASE), "these families need each column in BASE of benchmarks/plain_features.py, and no other"


def test_there_are_enough_of_them() -> None:
    assert len(specs_of("us_daily")) >= 170
    assert len(specs_of("eurusd_hourly")) >= 180
    assert {spec.family for spec in specs_of("eurusd_hourly")} == set(FAMILIES)
    assert all(spec.doc.endswith(".") and len(spec.doc) > 30 for spec in specs_of("eurusd_hourly"))


@pytest.mark.parametrize("spec", specs_of("us_daily"), ids=lambda spec: spec.name)
def test_equals_the_plain_way(spec: FeatureSpec) -> None:
    ours, theirs = spec.function(bars_of("us_daily")), plain_of("us_daily")[spec.name].to_numpy()
    known = slice(spec.lookback - 1, None)
    if spec.family == "candles":  # where prices tie, TA-Lib's side is a matter of rounding: see test_candles
        assert (ours[known] == theirs[known]).mean() > (0.9 if "balance" in spec.name else 0.99)
        return
    allowed = tolerance(spec, 1e-9)
    np.testing.assert_allclose(ours[known], theirs[known], rtol=allowed, atol=allowed)


@pytest.mark.parametrize("market", ["eurusd_hourly", "aapl_hourly", "btc_15m"])
def test_equals_the_plain_way_within_the_day(market: str) -> None:
    bars, plain = bars_of(market), plain_of(market)
    for spec in specs_of(market):
        if spec.family == "candles":
            continue
        ours, theirs = spec.function(bars), plain[spec.name].to_numpy()
        defined = np.isfinite(ours) & np.isfinite(theirs) & _traded(bars, spec)
        assert defined.sum() > 300, spec.name
        allowed = tolerance(spec, 1e-6)
        np.testing.assert_allclose(ours[defined], theirs[defined], rtol=allowed, atol=allowed, err_msg=spec.name)


def _traded(bars: Bars, spec: FeatureSpec) -> np.ndarray:
    """Return where a volume feature's window is not empty: in an empty one, pandas' running sums leave noise."""
    if spec.family != "volume" and "vwap" not in spec.name:
        return np.ones(len(bars), dtype=bool)
    return pd.Series(bars.volume).rolling(min(spec.lookback, 5)).max().to_numpy() > 0


@pytest.mark.parametrize("series", ["SP500", "WTI"])
def test_context_equals_the_plain_way(series: str) -> None:
    bars = bars_of("us_daily")
    specs = {spec.name: spec for spec in registered(["context"], context=[series])}
    for name in CONTEXT:
        spec = specs[f"{series.lower()}_{name}"]
        ours, theirs = spec.function(bars)[spec.lookback :], plain_of("us_daily")[spec.name].to_numpy()[spec.lookback :]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_no_column_is_another_once_more() -> None:
    """On AAPL's days; the two estimators that differ by the bar's drift alone are older than this rule."""
    bars = market_bars("us_daily", "AAPL")
    specs = specs_of("us_daily")
    values = np.column_stack([spec.function(bars)[300:] for spec in specs])
    alike = np.argwhere(np.triu(np.abs(np.corrcoef(values.T)) > 0.995, 1))
    pairs = {(specs[i].name, specs[j].name) for i, j in alike}
    assert pairs == {("log_garman_klass_20", "log_rogers_satchell_20")}


def test_rsi_adx_and_macd_are_those_of_talib_on_logs(daily: Bars) -> None:
    specs = {spec.name: spec for spec in specs_of("us_daily")}
    high, low, close = np.log(daily.high), np.log(daily.low), np.log(daily.close)
    rows = slice(900, None)  # TA-Lib starts its recursions from a plain mean: give them time to forget it
    theirs = {
        **{f"rsi_{n}": talib.RSI(close, n) / 100 for n in (2, 7, 14, 28)},
        "adx_14": talib.ADX(high, low, close, 14) / 100,
        "log_atr_14": np.log(talib.ATR(high, low, close, 14)),
        "macd": np.log(talib.EMA(daily.close, 12) / talib.EMA(daily.close, 26)),
    }
    for name, values in theirs.items():
        ours = specs[name].function(daily)
        np.testing.assert_allclose(ours[rows], values[rows], rtol=20 * FORGOTTEN, atol=20 * FORGOTTEN, err_msg=name)


def test_oscillators_are_those_of_talib(daily: Bars) -> None:
    specs = {spec.name: spec for spec in specs_of("us_daily")}
    rows = slice(60, None)
    high, low, close = np.log(daily.high), np.log(daily.low), np.log(daily.close)
    upper, middle, _ = talib.BBANDS(daily.close, 20, 1, 1)
    theirs = {
        "stochastic_14": talib.STOCHF(daily.high, daily.low, daily.close, 14, 1)[0] / 100,
        "stochastic_slow_14": talib.STOCHF(daily.high, daily.low, daily.close, 14, 3)[1] / 100,
        "stochastic_50": 1 + talib.WILLR(daily.high, daily.low, daily.close, 50) / 100,
        "price_zscore_20": (daily.close - middle) / (upper - middle) * np.sqrt(19 / 20),
        "aroon_25": talib.AROONOSC(daily.high, daily.low, 25) / 100,
        "cci_20": talib.CCI(daily.high, daily.low, daily.close, 20),
        "ultimate": talib.ULTOSC(high, low, close, 7, 14, 28) / 100,
        "money_flow_28": talib.MFI(daily.high, daily.low, daily.close, daily.volume, 28) / 100,
    }
    typical = pd.Series(daily.high + daily.low + daily.close)
    # An adjusted price that equals the previous one to the last cent differs in its last bit: TA-Lib takes a side.
    unmoved = (typical.pct_change().abs() < 1e-9).rolling(30).max().to_numpy() == 1
    assert 0 < unmoved.sum() < 200
    for name, values in theirs.items():
        moved = ~unmoved[rows] if name.startswith("money") else slice(None)
        ours = specs[name].function(daily)[rows][moved]
        np.testing.assert_allclose(ours, values[rows][moved], rtol=1e-5, atol=1e-6, err_msg=name)
