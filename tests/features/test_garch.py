"""GARCH against arch: parameters, recursion, and the past that they come from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.features.conftest import market_bars
from tradeloop.bars import Bars
from tradeloop.features.garch import LEAST, STEPS, garch, likeliest
from tradeloop.features.refits import HISTORY, LOOKBACK, REACH, boundaries, segments
from tradeloop.features.rolling import log_return
from tradeloop.features.volatility import log_volatility


def loss(returns: np.ndarray, omega: float, alpha: float, beta: float) -> float:
    """Twice the negative log likelihood but for its constant, written plainly."""
    variance, total = 1.0, 0.0
    for value in returns:
        total += np.log(variance) + value**2 / variance
        variance = omega + alpha * value**2 + beta * variance
    return total


def windows(count: int) -> list[np.ndarray]:
    change = log_return(market_bars("us_daily", "IBM").close)[1:]
    starts = np.linspace(0, len(change) - HISTORY, count).astype(int)
    return [change[i : i + HISTORY] / np.sqrt(np.mean(change[i : i + HISTORY] ** 2)) for i in starts]


def test_parameters_are_as_likely_as_arch_s() -> None:
    from arch.univariate import GARCH, ZeroMean

    same = 0
    for returns in windows(12):
        model = ZeroMean(returns, rescale=False, volatility=GARCH(1, 0, 1))
        theirs = model.fit(disp="off", show_warning=False, backcast=1.0).params.to_numpy()
        ours = likeliest(returns, STEPS)
        assert ours[0] >= LEAST and min(ours[1:]) >= 0 and ours[1] + ours[2] < 1
        if theirs[1] + theirs[2] < 1:
            assert loss(returns, *ours) < loss(returns, *theirs) + 0.01
        same += bool(np.abs(ours - theirs).max() < 0.01)
    assert same >= 8  # elsewhere the likelihood is as good as flat, or arch ends on the edge


def test_the_simplex_finds_planted_parameters() -> None:
    rng = np.random.default_rng(11)
    returns, variance = np.empty(20_000), 1.0
    for i in range(len(returns)):
        returns[i] = np.sqrt(variance) * rng.normal()
        variance = 0.05 + 0.1 * returns[i] ** 2 + 0.85 * variance
    np.testing.assert_allclose(likeliest(returns, STEPS), [0.05, 0.1, 0.85], atol=0.015)


def test_columns_are_the_recursion_with_arch_s_variances(daily: Bars) -> None:
    """From the history's first bar to the present, arch's own conditional variances with our parameters."""
    from arch.univariate import GARCH, ZeroMean

    found = garch(daily)
    change = log_return(daily.close)
    for boundary, first, stop in list(segments(daily))[5:8]:
        history = change[boundary - HISTORY : boundary]
        scale = np.sqrt(np.mean(history**2))
        parameters = likeliest(np.rint(history / scale * 1024) / 1024, STEPS)
        returns = np.append(change[boundary - HISTORY : stop] / scale, 0.0)
        model = ZeroMean(returns, rescale=False, volatility=GARCH(1, 0, 1))
        sigma = np.empty(len(returns))
        bounds = np.tile([0.0, 1e9], (len(returns), 1))
        variances = model.volatility.compute_variance(parameters, returns, sigma, 1.0, bounds)
        rows = slice(first - boundary + HISTORY, stop - boundary + HISTORY)
        ahead, now = np.sqrt(variances[1:])[rows], np.sqrt(variances[:-1])[rows]
        usual = np.sqrt(parameters[0] / (1 - parameters[1] - parameters[2]))
        np.testing.assert_allclose(found[0][first:stop], np.log(ahead * scale), rtol=1e-9)
        np.testing.assert_allclose(found[1][first:stop], np.clip(returns[:-1][rows] / now, -10, 10), rtol=1e-9)
        np.testing.assert_allclose(found[2][first:stop], np.log(ahead / usual), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("symbol", ["AAPL", "IBM"])
def test_it_forecasts_the_next_bar_better_than_a_mean_of_squares(symbol: str) -> None:
    """By the Gaussian likelihood of the next return, against the mean squares of 20 and 60 bars."""
    bars = market_bars("us_daily", symbol)
    following = log_return(bars.close)[LOOKBACK:]

    def score(log_volatility: np.ndarray) -> float:
        variance = np.exp(2 * log_volatility[LOOKBACK - 1 : -1])
        return float(np.mean(following**2 / variance + np.log(variance)))

    ours = score(garch(bars)[0])
    assert ours + 0.01 < min(score(log_volatility(bars, window)) for window in (20, 60))


def test_a_history_that_did_not_move_is_neutral(daily: Bars) -> None:
    close = daily.close[:800].copy()
    close[:400] = 100.0
    bars = replace(daily[:800], close=close)
    rows = slice(LOOKBACK - 1, 400)
    level, shock, ratio = garch(bars)
    assert (level[rows] == np.log(1e-5)).all() and (shock[rows] == 0).all() and (ratio[rows] == 0).all()
    assert np.isfinite(np.stack([level, shock, ratio])[:, LOOKBACK - 1 :]).all() and np.abs(shock[700:]).mean() > 0.5


def test_parameters_know_nothing_from_the_boundary_on(daily: Bars) -> None:
    """A crash after the boundary moves the variance by the recursion of old parameters; before it, nothing."""
    boundary, first, stop = list(segments(daily))[10]
    assert first >= boundary and stop - first > 20
    crash = daily.close.copy()
    crash[first + 5 :] *= 0.5
    before, after = garch(daily), garch(replace(daily, close=crash))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new[: first + 5], old[: first + 5])
    ratio = np.exp(2 * (after[0] - before[0])[first + 5 : stop])
    assert ratio[0] > 2 and (np.diff(np.log(ratio)) < 0.5).all()


@pytest.mark.parametrize("step", [1, 7, 60, 1440])
@pytest.mark.parametrize("reach", [2, 16, REACH])
def test_a_boundary_is_the_coarsest_beginning_of_its_reach(step: int, reach: int) -> None:
    rng = np.random.default_rng(step)
    times = np.datetime64("1969-06-01", "us") + np.cumsum(rng.integers(1, 4, 900)) * np.timedelta64(step, "m")
    stamps = times.view(np.int64)
    found = boundaries(stamps, reach, reach)
    assert (found[:reach] == -1).all() and (np.diff(found) >= 0).all()
    for i in range(reach, len(stamps), 13):
        # the coarsest power of two of microseconds of which a multiple lies after the bar before, and up to the bar
        begun = [max(k for k in range(63) if stamps[j] >> k != stamps[j - 1] >> k) for j in range(i - reach + 1, i + 1)]
        assert found[i] == i - reach + 1 + int(np.argmax(begun)) and begun.count(max(begun)) == 1


@pytest.mark.parametrize(
    ("market", "symbol"), [("us_daily", "IBM"), ("eurusd_hourly", "EURUSD"), ("btc_15m", "BTCUSD")]
)
def test_refits_are_few(market: str, symbol: str) -> None:
    bars = market_bars(market, symbol)
    runs = list(segments(bars))
    assert runs[0][1] == LOOKBACK - 1 and runs[-1][2] == len(bars)
    assert all(before[2] == after[1] for before, after in pairwise(runs))
    assert all(HISTORY < boundary <= first and stop - boundary <= REACH for boundary, first, stop in runs)
    assert 40 < (len(bars) - LOOKBACK) / len(runs) <= REACH
