"""Every registered feature against an independent computation: plain pandas, and TA-Lib where it has the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib

from benchmarks.plain_features import BASE, CONTEXT, plain_features
from tests.features.conftest import market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, registered, specs_for
from tradeloop.features.rolling import FORGOTTEN

# Exponential means: pandas forgets nothing, ours all but the last `FORGOTTEN` of the weight; chained means twice.
EXPONENTIAL = {"macd", "macd_histogram", "adx_14", "di_difference_14", "rsi_14", "log_parkinson_ewma", "log_atr_14"}


def frame_of(bars: Bars) -> pd.DataFrame:
    columns = {name: getattr(bars, name) for name in ("timestamp", "open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns | dict(bars.context))


def expected(bars: Bars) -> pd.DataFrame:
    return plain_features(frame_of(bars), tuple(bars.context))


@pytest.fixture(scope="session")
def plain(daily: Bars) -> pd.DataFrame:
    return expected(daily)


def daily_specs() -> list[FeatureSpec]:
    return specs_for(market_params("us_daily"))


def test_the_plain_way_has_every_registered_feature() -> None:
    names = {spec.name for spec in registered(context=["X"])}
    assert names == set(BASE) | {f"x_{name}" for name in CONTEXT}


def test_there_are_sixty_features_and_more() -> None:
    assert 60 <= len(daily_specs()) <= 70


@pytest.mark.parametrize("spec", daily_specs(), ids=lambda spec: spec.name)
def test_equals_the_plain_way(spec: FeatureSpec, daily: Bars, plain: pd.DataFrame) -> None:
    ours, theirs = spec.function(daily), plain[spec.name].to_numpy()
    known = slice(spec.lookback - 1, None)
    tolerance = 20 * FORGOTTEN if spec.name in EXPONENTIAL else 1e-9
    np.testing.assert_allclose(ours[known], theirs[known], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("market", ["eurusd_hourly", "aapl_hourly", "btc_15m"])
def test_equals_the_plain_way_within_the_day(market: str) -> None:
    params = market_params(market)
    bars = market_bars(market, params.active.symbols[0])[-3000:]
    plain = expected(bars)
    for spec in specs_for(params):
        ours, theirs = spec.function(bars), plain[spec.name].to_numpy()
        defined = np.isfinite(ours) & np.isfinite(theirs) & _traded(bars, spec)
        assert defined.sum() > 300, spec.name
        tolerance = 20 * FORGOTTEN if spec.name in EXPONENTIAL else 1e-6
        np.testing.assert_allclose(ours[defined], theirs[defined], rtol=tolerance, atol=tolerance, err_msg=spec.name)


def _traded(bars: Bars, spec: FeatureSpec) -> np.ndarray:
    """Return where a volume feature's window is not empty: in an empty one, pandas' running sums leave noise."""
    if spec.family != "volume":
        return np.ones(len(bars), dtype=bool)
    return pd.Series(bars.volume).rolling(min(spec.lookback, 14)).max().to_numpy() > 0


def test_rsi_adx_and_macd_are_those_of_talib_on_logs(daily: Bars) -> None:
    specs = {spec.name: spec for spec in daily_specs()}
    high, low, close = np.log(daily.high), np.log(daily.low), np.log(daily.close)
    rows = slice(600, None)  # TA-Lib starts its recursions from a plain mean: give them time to forget it
    theirs = {
        "rsi_14": talib.RSI(close, 14) / 100,
        "adx_14": talib.ADX(high, low, close, 14) / 100,
        "log_atr_14": np.log(talib.ATR(high, low, close, 14)),
        "macd": np.log(talib.EMA(daily.close, 12) / talib.EMA(daily.close, 26)),
    }
    for name, values in theirs.items():
        ours = specs[name].function(daily)
        np.testing.assert_allclose(ours[rows], values[rows], rtol=20 * FORGOTTEN, atol=20 * FORGOTTEN, err_msg=name)


def test_oscillators_are_those_of_talib(daily: Bars) -> None:
    specs = {spec.name: spec for spec in daily_specs()}
    rows = slice(30, None)
    upper, middle, _ = talib.BBANDS(daily.close, 20, 1, 1)
    theirs = {
        "stochastic_14": talib.STOCHF(daily.high, daily.low, daily.close, 14, 1)[0] / 100,
        "price_zscore_20": (daily.close - middle) / (upper - middle) * np.sqrt(19 / 20),
    }
    for name, values in theirs.items():
        ours = specs[name].function(daily)
        np.testing.assert_allclose(ours[rows], values[rows], rtol=1e-5, atol=1e-6, err_msg=name)


def test_money_flow_is_that_of_talib_but_for_typical_prices_that_did_not_move(daily: Bars) -> None:
    ours = next(spec for spec in daily_specs() if spec.name == "money_flow_14").function(daily)
    theirs = talib.MFI(daily.high, daily.low, daily.close, daily.volume, 14) / 100
    typical = pd.Series(daily.high + daily.low + daily.close)
    # An adjusted price that equals the previous one to the last cent differs in its last bit: TA-Lib takes a side.
    unmoved = (typical.pct_change().abs() < 1e-9).rolling(15).max().to_numpy() == 1
    assert 0 < unmoved.sum() < 100
    rows = ~unmoved & (np.arange(len(daily)) > 20)
    np.testing.assert_allclose(ours[rows], theirs[rows], rtol=1e-9)
