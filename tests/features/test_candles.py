"""Candle patterns: TA-Lib's where no prices tie, the same turned upside down, and one of each drawn by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.plain.price_action import CANDLES
from tests.features.conftest import market_bars
from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, registered

SPECS = {spec.name: spec for spec in registered(["candles"])}
UPRIGHT = ("candle_doji",)  # has no direction
# Hammer and hanging man are one candle at two places; a piercing line's second body is long, a dark cloud's any.
ASYMMETRIC = ("candle_hammer", "candle_inverted_hammer", "candle_piercing")


def untied(bars: Bars) -> Bars:
    """Return bars whose prices are each moved by about a thousandth of a basis point: none are equal any more."""
    rng = np.random.default_rng(7)
    opened, close = (price * np.exp(rng.normal(0, 1e-7, len(bars))) for price in (bars.open, bars.close))
    high = np.maximum(np.maximum(opened, close), bars.high) * np.exp(np.abs(rng.normal(0, 1e-7, len(bars))))
    low = np.minimum(np.minimum(opened, close), bars.low) * np.exp(-np.abs(rng.normal(0, 1e-7, len(bars))))
    return Bars("UNTIED", bars.timestamp, opened, high, low, close, bars.volume)


def frame_of(bars: Bars) -> pd.DataFrame:
    return pd.DataFrame({name: getattr(bars, name) for name in ("open", "high", "low", "close")})


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("market", "symbol"), [("us_daily", "AAPL"), ("us_daily", "IBM"), ("aapl_hourly", "AAPL_1H")])
def test_is_that_of_talib_where_no_prices_tie(name: str, market: str, symbol: str) -> None:
    bars = untied(market_bars(market, symbol))
    ours, theirs = SPECS[name].function(bars), CANDLES[name](frame_of(bars)).to_numpy()
    known = slice(SPECS[name].lookback - 1 + 12, None)
    np.testing.assert_array_equal(ours[known], theirs[known])


def mirrored(bars: Bars) -> Bars:
    top = bars.high.max() + bars.low.min()
    return Bars(
        "MIRROR", bars.timestamp, top - bars.open, top - bars.low, top - bars.high, top - bars.close, bars.volume
    )


@pytest.mark.parametrize("name", [name for name in SPECS if name not in (*UPRIGHT, *ASYMMETRIC, "candle_balance_10")])
def test_upside_down_a_pattern_is_its_opposite(name: str) -> None:
    bars = untied(market_bars("us_daily", "AAPL")[-1500:])
    function = SPECS[name].function
    upright, turned = function(bars)[12:], function(mirrored(bars))[12:]
    assert np.abs(upright).sum() > 0 or name == "candle_soldiers"
    np.testing.assert_array_equal(turned, -upright)


def after_usual(*bars: tuple[float, float, float, float]) -> Bars:
    """Return drawn bars behind twelve usual ones, whose body is 2 and whose range is 4."""
    rows = [(100, 103, 99, 102), (102, 103, 99, 100)] * 6 + list(bars)
    opened, high, low, close = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    times = np.datetime64("2024-01-01", "us") + np.arange(len(rows)) * np.timedelta64(1, "D")
    return Bars("DRAWN", times, opened, high, low, close, np.ones(len(rows)))


DRAWN = {
    "doji": ([(100, 102, 98, 100.4)], 1),  # a body of a tenth of the usual range: the tie counts
    "marubozu": ([(100, 105, 100, 105)], 1),
    "spinning_top": ([(100, 102, 98, 100.8)], 1),
    "hammer": ([(99.5, 100.1, 97, 100)], 1),
    "inverted_hammer": ([(105, 108, 104.9, 105.5)], -1),
    "dragonfly": ([(100, 100, 96, 100)], 1),
    "engulfing": ([(99.5, 104, 99, 103)], 1),
    "harami": ([(106, 107, 99, 100), (103, 104, 102, 103.5)], 1),
    "piercing": ([(106, 107, 99, 100), (98, 104.5, 97, 104)], 1),
    "star": ([(100, 108, 99, 107), (108, 109, 107.5, 108.5), (108, 108, 101, 102)], -1),
    "inside_three": ([(106, 107, 99, 100), (103, 104, 102, 103.5), (103, 108, 103, 107)], 1),
    "outside_three": ([(101, 102, 99, 100), (99, 103, 98, 102), (102, 105, 101, 104)], 1),
    "soldiers": ([(100, 103.2, 99, 103), (102, 106.2, 101, 106), (105, 109.2, 104, 109)], 1),
}


@pytest.mark.parametrize("pattern", DRAWN)
@pytest.mark.parametrize("unit", [1.0, 0.37, 3.1e-4])
def test_a_drawn_pattern_is_seen_in_any_unit(pattern: str, unit: float) -> None:
    drawn, expected = DRAWN[pattern]
    bars = after_usual(*drawn)
    scaled = Bars(
        "UNIT", bars.timestamp, *(unit * x for x in (bars.open, bars.high, bars.low, bars.close)), bars.volume
    )
    assert SPECS[f"candle_{pattern}"].function(scaled)[-1] == expected


def test_a_balance_sums_the_directed_patterns_of_ten_bars(daily: Bars) -> None:
    directed = [spec for name, spec in SPECS.items() if name in list(SPECS)[3:13]]
    each: list[FeatureSpec] = [spec for spec in directed if spec.name != "candle_balance_10"]
    assert len(each) == 10
    summed = pd.Series(sum(spec.function(daily) for spec in each)).rolling(10).sum().to_numpy()
    np.testing.assert_array_equal(SPECS["candle_balance_10"].function(daily), summed)
