"""Pairs against NumPy and statsmodels, and on pairs whose spread is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.features.stat_arb import pair

ROWS = (119, 500, 1811, 3269)


def of(bars: Bars, window: int) -> tuple[np.ndarray, ...]:
    """Return hedge ratio, R², z-score, statistic, log half-life and crossings over 60 or 120 bars."""
    return pair(bars, "SP500")[:6] if window == 60 else pair(bars, "SP500")[6:]


def residuals(bars: Bars, row: int, window: int) -> np.ndarray:
    part = slice(row - window + 1, row + 1)
    y, x = np.log(bars.close[part]), np.log(bars.context["SP500"][part])
    return y - np.polyval(np.polyfit(x, y, 1), x)


@pytest.mark.parametrize("window", [60, 120])
@pytest.mark.parametrize("row", ROWS)
def test_the_regression_is_that_of_numpy(row: int, window: int, daily: Bars) -> None:
    hedge, explained, zscore, _, life, crossings = (values[row] for values in of(daily, window))
    part = slice(row - window + 1, row + 1)
    y, x = np.log(daily.close[part]), np.log(daily.context["SP500"][part])
    spread = residuals(daily, row, window)
    assert hedge == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-9)
    assert explained == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-8)
    assert zscore == pytest.approx(spread[-1] / spread.std(), rel=1e-8)
    slope = (spread[:-1] @ np.diff(spread)) / (spread[:-1] @ spread[:-1])
    assert life == pytest.approx(np.log(np.clip(-np.log(2) / np.log1p(slope), 1, window)), rel=1e-8)
    assert crossings == pytest.approx((np.diff(np.sign(spread)) != 0).mean())


@pytest.mark.parametrize("window", [60, 120])
@pytest.mark.parametrize("row", ROWS)
def test_the_statistic_is_that_of_statsmodels(row: int, window: int, daily: Bars) -> None:
    from statsmodels.tsa.stattools import adfuller

    theirs = adfuller(residuals(daily, row, window), maxlag=1, autolag=None, regression="n", result_object=False)[0]
    assert of(daily, window)[3][row] == pytest.approx(theirs, rel=1e-8)


def made(noise: np.ndarray, hedge: float, seed: int = 4) -> Bars:
    """Return a symbol that is `hedge` times a random walk in logs, and a spread."""
    x = np.cumsum(np.random.default_rng(seed).normal(0, 0.01, len(noise)))
    close = 20 * np.exp(hedge * x + noise)
    times = np.datetime64("2020-01-01", "us") + np.arange(len(noise)) * np.timedelta64(1, "h")
    return Bars("PAIR", times, close, close, close, close, close, {"SP500": 70 * np.exp(x)})


def test_a_spread_that_reverts_is_told_from_one_that_walks() -> None:
    """An autoregression of 0.7 has a half-life of ln 2 / −ln 0.7 = 1.94 bars; the 5 % point of the test is −3.4."""
    rng = np.random.default_rng(5)
    shocks = rng.normal(0, 0.005, 2000)
    reverting = np.zeros(2000)
    for i in range(1, 2000):
        reverting[i] = 0.7 * reverting[i - 1] + shocks[i]
    rows = slice(200, None)
    stays, walks = of(made(reverting, 1.5), 120), of(made(np.cumsum(shocks), 1.5), 120)
    assert np.median(stays[0][rows]) == pytest.approx(1.5, abs=0.1)
    assert (stays[3][rows] < -3.4).mean() > 0.95 and (walks[3][rows] < -3.4).mean() < 0.2
    assert np.exp(np.median(stays[4][rows])) == pytest.approx(1.94, abs=0.5)
    assert np.median(walks[4][rows]) > np.log(5)
    assert np.median(stays[5][rows]) > 2 * np.median(walks[5][rows])


def test_a_spread_that_does_not_move_is_neutral() -> None:
    bars = made(np.zeros(300), 0.8)
    hedge, explained, zscore, adf, life, crossings = (values[119:] for values in of(bars, 120))
    np.testing.assert_allclose(hedge, 0.8, rtol=1e-9)
    np.testing.assert_allclose(explained, 1.0, rtol=1e-9)
    assert (zscore == 0).all() and (adf == 0).all() and (crossings == 0).all() and (life == np.log(120)).all()


def test_a_series_that_never_moves_leaves_the_price_as_the_spread(daily: Bars) -> None:
    flat = replace(daily[:300], context={"SP500": np.full(300, 55.0)})
    hedge, explained, zscore, *_ = (values[200] for values in of(flat, 60))
    y = np.log(flat.close[141:201])
    assert hedge == 0 and explained == pytest.approx(0, abs=1e-12)
    assert zscore == pytest.approx((y[-1] - y.mean()) / y.std())


def test_a_hole_spoils_the_windows_that_hold_it(daily: Bars) -> None:
    series = daily.context["SP500"].copy()
    series[700] = np.nan
    for whole, holed in zip(of(daily, 60), of(replace(daily, context={"SP500": series}), 60), strict=True):
        assert np.isnan(holed[700:760]).all()
        np.testing.assert_array_equal(np.delete(holed, range(700, 760)), np.delete(whole, range(700, 760)))
