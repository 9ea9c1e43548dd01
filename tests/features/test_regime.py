"""Regimes: ranks and ages by hand, the hidden Markov model against hmmlearn, and that it is filtered."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.features.conftest import market_bars
from tradeloop.bars import Bars
from tradeloop.features import gaussian_hmm, registered
from tradeloop.features.refits import HISTORY, LOOKBACK, segments
from tradeloop.features.regime import hidden_regime, market_regime, volatility_regime

SPECS = {spec.name: spec for spec in registered(["regime"])}


def observations(bars: Bars, boundary: int, stop: int) -> np.ndarray:
    """Return log returns and log ranges of the history and what follows, standardised by the history."""
    rows = slice(boundary - HISTORY, stop)
    change = np.log(bars.close[1:] / bars.close[:-1])[boundary - HISTORY - 1 : stop - 1]
    spread = np.log(np.maximum(np.log(bars.high / bars.low), 1e-5))[rows]
    raw = np.column_stack([change, spread])
    history = raw[:HISTORY]
    return np.clip((raw - history.mean(axis=0)) / history.std(axis=0), -8, 8)


def hmmlearn_model(history: np.ndarray, rounds: int) -> Any:
    """Return hmmlearn's model after so many rounds from our prior, on a history that it sees unrounded."""
    from hmmlearn.hmm import GaussianHMM

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)  # it warns of rounds that gain little
    prior = gaussian_hmm.prior()
    model = GaussianHMM(3, covariance_type="diag", n_iter=rounds, tol=-np.inf, init_params="")
    model.startprob_, model.transmat_ = prior.start, prior.transition
    model.means_, model.covars_ = prior.means, prior.variances
    return model.fit(history)


def windows() -> list[np.ndarray]:
    bars = market_bars("us_daily", "AAPL")
    return [observations(bars, boundary, boundary) for boundary, _, _ in list(segments(bars))[::12]]


def test_the_fit_is_that_of_hmmlearn() -> None:
    for history in windows():
        ours, theirs = gaussian_hmm.fit(history), hmmlearn_model(history, gaussian_hmm.ROUNDS)
        variances = np.array([np.diag(matrix) for matrix in theirs.covars_])
        by = np.argsort(variances[:, 0])
        np.testing.assert_allclose(ours.start, theirs.startprob_[by], atol=1e-9)
        np.testing.assert_allclose(ours.transition, theirs.transmat_[np.ix_(by, by)], atol=1e-9)
        np.testing.assert_allclose(ours.means, theirs.means_[by], atol=1e-9)
        np.testing.assert_allclose(ours.variances, variances[by], atol=1e-9)
        assert (np.diff(ours.variances[:, 0]) > 0).all()


def test_filtered_is_hmmlearn_s_posterior_of_the_newest_bar() -> None:
    """The smoother and the filter agree at the last observation, and only there."""
    history = windows()[1]
    theirs = hmmlearn_model(history, gaussian_hmm.ROUNDS)
    model = gaussian_hmm.Model(
        theirs.startprob_, theirs.transmat_, theirs.means_, np.array([np.diag(m) for m in theirs.covars_])
    )
    filtered = gaussian_hmm.filtered(history, model)
    for count in (1, 2, 50, 137, HISTORY):
        np.testing.assert_allclose(filtered[count - 1], theirs.predict_proba(history[:count])[-1], atol=1e-9)
    assert np.abs(filtered - theirs.predict_proba(history)).max() > 0.2


def test_columns_are_the_filter_on_parameters_of_the_history(daily: Bars) -> None:
    found = np.stack(hidden_regime(daily), axis=1)
    for boundary, first, stop in list(segments(daily))[4::10]:
        seen = observations(daily, boundary, stop)
        model = gaussian_hmm.fit(np.rint(seen[:HISTORY] * 1024) / 1024)
        now = gaussian_hmm.filtered(seen, model)[first - boundary + HISTORY :]
        expected = np.column_stack(
            [now[:, 0], now[:, 2], now @ (1 - np.diag(model.transition)), now @ model.transition @ model.means[:, 0]]
        )
        np.testing.assert_allclose(found[first:stop], expected, atol=1e-9)


def test_planted_regimes_are_found() -> None:
    """Stretches of 100 bars, calm and three times as wild: the probability of turbulence tells them apart."""
    rng = np.random.default_rng(6)
    size = 3000
    wild = np.arange(size) // 100 % 2 == 1
    scale = np.where(wild, 0.03, 0.01)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1, size) * scale))
    half = np.exp(np.abs(rng.normal(1, 0.3, size)) * scale)
    times = np.datetime64("2020-01-01", "us") + np.arange(size) * np.timedelta64(1, "h")
    calm, turbulent, *_ = hidden_regime(Bars("X", times, close, close * half, close / half, close, np.ones(size)))
    rows = slice(LOOKBACK, None)
    assert turbulent[rows][wild[rows]].mean() > 0.5 > 0.1 > turbulent[rows][~wild[rows]].mean()
    assert calm[rows][~wild[rows]].mean() > 0.3 and calm[rows][wild[rows]].mean() < 0.05


def test_nothing_observed_is_impossible(daily: Bars) -> None:
    """After a history of tiny moves comes a crash, and flat bars after that: probabilities all the same."""
    close = 100 * np.exp(1e-4 * np.sin(np.arange(700.0)) + np.where(np.arange(700) > 500, -0.9, 0.0))
    close[600:] = close[600]
    bars = Bars("X", daily.timestamp[:700], close, close, close, close, np.ones(700))
    found = np.stack(hidden_regime(bars))[:, LOOKBACK - 1 :]
    assert np.isfinite(found).all() and (found[:3] >= 0).all() and (found[:2].sum(axis=0) <= 1 + 1e-12).all()


def test_a_history_that_did_not_move_is_neutral(daily: Bars) -> None:
    flat = np.full(500, 7.0)
    bars = Bars("X", daily.timestamp[:500], flat, flat, flat, flat, flat)
    found = np.stack(hidden_regime(bars))[:, LOOKBACK - 1 :]
    np.testing.assert_array_equal(found, np.tile([[1 / 3], [1 / 3], [0.0], [0.0]], found.shape[1]))


def test_rank_level_and_age_of_volatility_by_brute_force(daily: Bars) -> None:
    rank, level, age = volatility_regime(daily)
    variance = np.log(daily.high / daily.low) ** 2 / (4 * np.log(2))
    volatility = np.array([0.5 * np.log(variance[max(i - 19, 0) : i + 1].mean()) for i in range(len(variance))])
    ranks = np.full(len(variance), np.nan)
    for i in range(268, len(variance)):
        past = volatility[i - 249 : i + 1]
        ranks[i] = ((past < volatility[i] - 1e-9).sum() + 0.5) / 250
    np.testing.assert_allclose(rank[268:], ranks[268:])
    expected = np.digitize(ranks[268:], [0.25, 0.75, 0.95]) / 3
    np.testing.assert_allclose(level[268:], expected)
    assert set(np.unique(expected * 3).round()) == {0, 1, 2, 3}
    run = 0
    for i in range(1, len(expected)):
        run = run + 1 if expected[i] == expected[i - 1] else 0
        if i >= 23:
            assert age[268 + i] == min(run + 1, 24) / 24


def test_the_market_s_regime_by_its_definition(daily: Bars) -> None:
    import talib

    speed, expansion, trending, volatile, age = market_regime(daily)
    high, low, close = np.log(daily.high), np.log(daily.low), np.log(daily.close)
    rows = slice(600, None)  # TA-Lib's recursions begin elsewhere: give them time to forget it
    rsi = talib.RSI(close, 14) / 100
    np.testing.assert_allclose(speed[rows], (rsi[10:] - rsi[:-10])[590:], atol=2e-3)
    spread = talib.TRANGE(high, low, close)
    ratio = np.log(talib.SMA(spread, 14) / talib.SMA(spread, 100))
    np.testing.assert_allclose(expansion[rows], ratio[rows], rtol=1e-9, atol=1e-12)
    adx = talib.ADX(high, low, close, 14) / 100
    wide = ratio >= np.log(1.25)
    steep = (adx >= 0.25) | ((adx >= 0.2) & (np.abs(speed) >= 0.1))
    assert (volatile[rows] == wide[rows]).all()
    assert (trending[rows] == (steep & ~wide)[rows]).mean() > 0.99  # but for what is forgotten, at the edge
    for values in (trending[rows], volatile[rows], (1 - trending - volatile)[rows]):
        assert 0.1 < values.mean() < 0.8
    label = volatile + 2 * trending
    changed = np.flatnonzero(np.diff(label[rows])) + 601
    assert (age[changed] == 1 / 24).all() and age[rows].max() == 1


@pytest.mark.parametrize("column", ["volatility_level", "market_volatile", "hmm_turbulent"])
def test_a_storm_is_seen_when_it_comes_and_not_before(column: str, daily: Bars) -> None:
    storm = slice(1500, 1540)
    shock = np.exp(np.where(np.arange(40) % 2, -0.12, 0.12))
    high, low, close = daily.high.copy(), daily.low.copy(), daily.close.copy()
    close[storm], high[storm], low[storm] = close[storm] * shock, high[storm] * 1.2, low[storm] / 1.2
    close = np.clip(close, low, high)
    stormy = SPECS[column].function(replace(daily, high=high, low=low, close=close))
    calm = SPECS[column].function(daily)
    np.testing.assert_array_equal(stormy[:1500], calm[:1500])
    assert stormy[1510:1540].mean() > max(calm[1510:1540].mean(), 0.9)
