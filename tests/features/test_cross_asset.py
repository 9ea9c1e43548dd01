"""What is read from a context series beside the symbol, against NumPy on single windows and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, registered
from tradeloop.features.context import comovement, lead, sided_beta
from tradeloop.features.rolling import log_return

SPECS = {spec.name: spec for spec in registered(["context"], context=["SP500"])}
ROWS = (60, 400, 1234, 3269)


def of(bars: Bars, window: int) -> tuple[np.ndarray, ...]:
    """Return beta, correlation, lead, beta up, beta down and residual over so many bars."""
    beta, correlation, residual = comovement(bars, "SP500", window)
    return beta, correlation, lead(bars, "SP500", window), *sided_beta(bars, "SP500", window), residual


def moves(bars: Bars, row: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(row - window, row + 1)
    return np.diff(np.log(bars.close[part])), np.diff(np.log(bars.context["SP500"][part]))


@pytest.mark.parametrize("window", [20, 60])
@pytest.mark.parametrize("row", ROWS)
def test_comovement_is_that_of_numpy(row: int, window: int, daily: Bars) -> None:
    ours = [values[row] for values in of(daily, window)]
    r, x = moves(daily, row, window)
    slope, offset = np.polyfit(x, r, 1)
    residual = r - slope * x - offset
    expected = [
        slope,
        np.corrcoef(r, x)[0, 1],
        np.corrcoef(r[1:], x[:-1])[0, 1],
        np.polyfit(x[x > 0], r[x > 0], 1)[0],
        np.polyfit(x[x < 0], r[x < 0], 1)[0],
        residual[-1] / residual.std(ddof=1),
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_other_columns_by_hand(daily: Bars) -> None:
    series, row = daily.context["SP500"], 1000
    x = log_return(series)
    value = {name: spec.function(daily)[row] for name, spec in SPECS.items()}
    assert value["sp500_return_5"] == pytest.approx(np.log(series[row] / series[row - 5]))
    short, long = (np.sqrt(np.mean(x[row - window + 1 : row + 1] ** 2)) for window in (5, 60))
    assert value["sp500_volatility_trend_5_60"] == pytest.approx(np.log(short / long))
    last = series[row - 59 : row + 1]
    assert value["sp500_level_zscore_60"] == pytest.approx((last[-1] - last.mean()) / last.std(ddof=1))
    for window in (5, 20, 60):
        own = np.log(daily.close[row] / daily.close[row - window])
        assert value[f"sp500_relative_strength_{window}"] == pytest.approx(
            own - np.log(series[row] / series[row - window])
        )


def test_a_planted_lead_and_two_betas_are_found() -> None:
    """The symbol follows yesterday's series; or moves twice as much as it when it falls, half as much when it rises."""
    rng = np.random.default_rng(8)
    x = rng.normal(0, 0.01, 500)
    times = np.datetime64("2020-01-01", "us") + np.arange(500) * np.timedelta64(1, "h")

    def bars(r: np.ndarray) -> Bars:
        close = 100 * np.exp(np.cumsum(r))
        return Bars("X", times, close, close, close, close, close, {"SP500": 50 * np.exp(np.cumsum(x))})

    follows = of(bars(np.roll(x, 1) + rng.normal(0, 0.002, 500)), 60)
    assert follows[2][60:].min() > 0.9 and np.abs(follows[1][60:]).max() < 0.6
    bent = of(bars(np.where(x > 0, 0.5 * x, 2 * x)), 60)
    np.testing.assert_allclose(bent[3][60:], 0.5, rtol=1e-9)
    np.testing.assert_allclose(bent[4][60:], 2.0, rtol=1e-9)
    assert (bent[0][60:] > 0.5).all() and (bent[0][60:] < 2).all()


def test_a_series_that_never_moves_has_no_part_in_anything(daily: Bars) -> None:
    flat = replace(daily[:300], context={"SP500": np.full(300, 123.4)})
    beta, correlation, leads, up, down, residual = (values[60:] for values in of(flat, 60))
    for values in (beta, correlation, leads, up, down):
        assert (values == 0).all()
    r, _ = moves(flat, 200, 60)
    assert residual[200 - 60] == pytest.approx((r[-1] - r.mean()) / r.std(ddof=1))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_hole_in_the_series_spoils_the_windows_that_hold_it(spec: FeatureSpec, daily: Bars) -> None:
    series = daily.context["SP500"].copy()
    series[700] = np.nan
    whole = spec.function(daily)
    holed = spec.function(replace(daily, context={"SP500": series}))
    assert np.isnan(holed[700:702]).any()  # what leads is known a bar longer
    np.testing.assert_array_equal(holed[:700], whole[:700])
    np.testing.assert_array_equal(holed[700 + spec.lookback :], whole[700 + spec.lookback :])
