"""Transition counts by hand and by brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.features.conftest import market_bars
from tradeloop.bars import Bars
from tradeloop.features.markov import markov


def bars_of(up: list[bool], spread: list[float]) -> Bars:
    """Return bars that rise or fall by 1 % each, with these log ranges."""
    change = np.where(up, 0.01, -0.01)
    close = 100 * np.exp(np.cumsum(change))
    half = np.exp(np.array(spread) / 2)
    times = np.datetime64("2020-01-01", "us") + np.arange(len(up)) * np.timedelta64(1, "h")
    return Bars("X", times, close, close * half, close / half, close, np.ones(len(up)))


def test_six_transitions_by_hand() -> None:
    """Window of 6; ranges 1, 2, 3 (%) have terciles between them. The newest bar's state is up and narrow.

    Changes into bars 1 to 6: up narrow, down wide, up narrow, up narrow, down wide, up narrow. After "up narrow" came
    down wide, up narrow, down wide: three visits, one up.
    """
    bars = bars_of([True, True, False, True, True, False, True], [0.02, 0.01, 0.03, 0.01, 0.01, 0.03, 0.01])
    up, wide, persistence, entropy, run = (values[6] for values in markov(bars, 6))
    assert up == pytest.approx((1 + 1) / (3 + 2))
    assert wide == pytest.approx((2 + 1) / (3 + 3))
    assert persistence == pytest.approx((1 + 1) / (3 + 6))
    shares = np.array([2, 3, 1, 1, 1, 1]) / 9
    assert entropy == pytest.approx(-(shares * np.log(shares)).sum() / np.log(6))
    assert run == pytest.approx(-np.log(1 - 2 / 5))


def test_a_state_never_left_before_is_a_uniform_guess() -> None:
    bars = bars_of([False] * 6 + [True], [0.01, 0.01, 0.02, 0.03, 0.01, 0.02, 0.03])
    up, wide, persistence, entropy, run = (values[6] for values in markov(bars, 6))
    assert (up, wide, persistence) == (0.5, pytest.approx(1 / 3), pytest.approx(1 / 6))
    assert entropy == pytest.approx(1) and run == pytest.approx(np.log(2))


@pytest.mark.parametrize(("market", "symbol"), [("us_daily", "IBM"), ("eurusd_hourly", "EURUSD")])
def test_real_bars_by_brute_force(market: str, symbol: str) -> None:
    bars = market_bars(market, symbol)[-900:]
    found = markov(bars, 250)
    change = np.log(bars.close[1:] / bars.close[:-1])
    for row in (250, 600, 899):
        spread = np.log(bars.high / bars.low)[row - 249 : row + 1]
        terciles = np.quantile(spread, [1 / 3, 2 / 3])
        wide = (spread[:, None] > terciles + 1e-9).sum(axis=1)
        states = 3 * (change[row - 250 : row] > 1e-8) + wide
        after = [new for old, new in pairwise(states) if old == states[-1]]
        counts = np.bincount(after, minlength=6)
        seen = counts.sum()
        shares = (counts + 1) / (seen + 6)
        expected = [
            (counts[3:].sum() + 1) / (seen + 2),
            (counts[2] + counts[5] + 1) / (seen + 3),
            shares[states[-1]],
            -(shares * np.log(shares)).sum() / np.log(6),
        ]
        np.testing.assert_allclose([values[row] for values in found[:4]], expected, rtol=1e-12)
    assert seen > 20


def test_a_planted_reversal_is_found() -> None:
    """A rise is followed by a fall and the other way round: nine times in ten."""
    rng = np.random.default_rng(2)
    up = [True]
    for flip in rng.random(999) < 0.9:
        up.append(up[-1] != flip)
    probability = markov(bars_of(up, rng.exponential(0.01, 1000).tolist()), 250)[0][300:]
    assert np.median(probability[np.array(up)[300:]]) < 0.2
    assert np.median(probability[~np.array(up)[300:]]) > 0.8
