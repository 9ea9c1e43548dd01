"""The contract on everything registered, on real and on made bars; and the same checks on features that break it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.features.conftest import SERIES, made_bars, made_inputs, market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, registered
from tradeloop.features.contract import Function, violations
from tradeloop.features.engine import registered_for

if TYPE_CHECKING:
    from hmmlearn.hmm import GaussianHMM

MARKETS = (("us_daily", "AAPL"), ("us_daily", "GOOG"), ("eurusd_hourly", "EURUSD"), ("btc_15m", "BTCUSD"))
HOUR = timedelta(hours=1)


def kernels(specs: Iterable[FeatureSpec]) -> list[list[FeatureSpec]]:
    """Return the features by the function that gives them: what is computed once is checked once."""
    found: dict[int, list[FeatureSpec]] = {}
    for spec in specs:
        found.setdefault(id(spec.kernel), []).append(spec)
    return list(found.values())


def rows_of(specs: list[FeatureSpec], bars: Bars) -> np.ndarray:
    values = specs[0].kernel(bars)
    return np.column_stack([spec.pick(values) for spec in specs])


def breaches(specs: list[FeatureSpec], bars: Bars) -> list[str]:
    first = specs[0]
    return violations(
        partial(rows_of, specs), bars, first.lookback, recursive=first.recursive, scale_free=first.scale_free
    )


def real_cases() -> list[tuple[str, str, list[FeatureSpec]]]:
    return [
        (market, symbol, specs)
        for market, symbol in MARKETS
        for specs in kernels(registered_for(market_params(market)))
    ]


@pytest.mark.parametrize(
    ("market", "symbol", "specs"), real_cases(), ids=lambda x: x[0].name if isinstance(x, list) else x
)
def test_holds_on_real_bars(market: str, symbol: str, specs: list[FeatureSpec]) -> None:
    assert breaches(specs, market_bars(market, symbol)[-2000:]) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_holds_on_made_bars(bars: Bars) -> None:
    for specs in kernels(registered(context=SERIES, interval=HOUR)):
        assert breaches(specs, bars) == [], specs[0].name


def test_returns_that_differ_by_next_to_nothing_are_flat() -> None:
    """A price that rises by one tick a bar: the returns' differences are mostly rounding, which scaling changes."""
    close = 1.097041 + 0.000011 * np.arange(400)
    times = np.datetime64("2020-01-01", "us") + np.arange(400) * np.timedelta64(1, "h")
    volume = np.random.default_rng(5).lognormal(8, 1, 400)
    bars = Bars("TICKS", times, close, close, close, close, volume, {"SP500": close[::-1].copy()})
    bars = replace(bars, inputs=made_inputs(bars, np.random.default_rng(6)))
    for specs in kernels(registered(context=["SP500"], interval=HOUR)):
        assert breaches(specs, bars) == [], specs[0].name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars(), at=st.floats(0, 1))
def test_a_finite_window_is_the_same_to_the_last_bit(bars: Bars, at: float) -> None:
    for specs in kernels(registered(context=SERIES, interval=HOUR)):
        lookback = specs[0].lookback
        row = lookback - 1 + round(at * (len(bars) - lookback))
        tail, full = rows_of(specs, bars[row - lookback + 1 : row + 1])[-1], rows_of(specs, bars)[row]
        assert specs[0].recursive or np.array_equal(tail, full, equal_nan=True), f"{specs[0].name}: {tail} not {full}"


def _series(values: np.ndarray) -> pd.Series:
    return pd.Series(values)


def _log_return(bars: Bars) -> np.ndarray:
    return np.log(_series(bars.close)).diff().to_numpy()


def _next_return(bars: Bars) -> np.ndarray:
    return np.log(_series(bars.close)).diff().shift(-1).to_numpy()


def _filled_shift(bars: Bars) -> np.ndarray:
    change = np.log(_series(bars.close)).diff()
    return change.shift(3).fillna(change.mean()).to_numpy()


def _centred_mean(bars: Bars) -> np.ndarray:
    return np.log(_series(bars.close) / _series(bars.close).rolling(5, center=True).mean()).to_numpy()


def _sample_zscore(bars: Bars) -> np.ndarray:
    change = np.nan_to_num(_log_return(bars))
    return (change - change.mean()) / change.std()


def _rolled(bars: Bars) -> np.ndarray:
    return np.log(bars.close / np.roll(bars.close, 1))


def _back_filled(bars: Bars) -> np.ndarray:
    return _series(_log_return(bars)).rolling(5).mean().bfill().to_numpy()


def _reversed_ewm(bars: Bars) -> np.ndarray:
    return _series(_log_return(bars))[::-1].ewm(span=5).mean()[::-1].to_numpy()


def _sample_rank(bars: Bars) -> np.ndarray:
    return _series(bars.volume).rank(pct=True).to_numpy()


def _last_price(bars: Bars) -> np.ndarray:
    return np.log(bars.close / bars.close[-1])


def _observations(bars: Bars) -> np.ndarray:
    return np.column_stack([np.nan_to_num(_log_return(bars)) * 50, np.log(np.log(bars.high / bars.low) + 1e-4)])


def _hidden_markov() -> GaussianHMM:
    """Return a model of two states with fixed parameters, so that all that looks ahead is how it is read."""
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(2, covariance_type="diag")
    model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.1, 0.9]])
    model.means_ = np.array([[0.0, -4.1], [0.0, -3.5]])
    model.covars_ = np.array([[0.5, 0.3], [2.0, 0.3]])
    return model


def _smoothed_states(bars: Bars) -> np.ndarray:
    return _hidden_markov().predict_proba(_observations(bars))[:, 1]


def _most_likely_path(bars: Bars) -> np.ndarray:
    return _hidden_markov().predict(_observations(bars)).astype(float)


def _open_higher_bar(bars: Bars) -> np.ndarray:
    """Join the five bars' close to each of the five, as a resample that is merged back by its label does."""
    label = np.arange(len(bars)) // 5
    ends = np.minimum(5 * label + 4, len(bars) - 1)
    return np.log(bars.close[ends] / bars.open[5 * label])


def _sample_quantile_regime(bars: Bars) -> np.ndarray:
    spread = np.log(bars.high / bars.low)
    return np.digitize(spread, np.quantile(spread, [0.25, 0.75])).astype(float)


LOOK_AHEAD = {
    "shift(-1)": _next_return,
    "fill with the mean": _filled_shift,
    "centred window": _centred_mean,
    "full-sample z-score": _sample_zscore,
    "np.roll": _rolled,
    "back fill": _back_filled,
    "smoothing from both ends": _reversed_ewm,
    "full-sample rank": _sample_rank,
    "relative to the last price": _last_price,
    "smoothed states of a hidden Markov model": _smoothed_states,
    "its likeliest path": _most_likely_path,
    "an open higher bar": _open_higher_bar,
    "regimes by quantiles of the sample": _sample_quantile_regime,
}


@pytest.mark.parametrize("trap", LOOK_AHEAD)
@pytest.mark.parametrize("size", [40, 3000])
def test_look_ahead_is_caught(trap: str, size: int, daily: Bars) -> None:
    found = violations(LOOK_AHEAD[trap], daily[-size:], 6)
    assert any(line.startswith("look-ahead: ") for line in found), found


def test_one_value_from_the_future_among_many_is_caught(daily: Bars) -> None:
    def mostly_honest(bars: Bars) -> np.ndarray:
        values = np.column_stack([_log_return(bars)] * 5)
        values[:, 3] = _next_return(bars)
        return values

    assert any(line.startswith("look-ahead: ") for line in violations(mostly_honest, daily, 2))


def _changing(bars: Bars) -> np.ndarray:
    bars.volume[bars.volume > 0] *= 2
    return np.zeros(len(bars))


def _counter() -> Function:
    calls: list[int] = []

    def impure(bars: Bars) -> np.ndarray:
        calls.append(1)
        return np.full(len(bars), float(len(calls)))

    return impure


def _short(bars: Bars) -> np.ndarray:
    return np.diff(bars.close)


def _holes(bars: Bars) -> np.ndarray:
    change = _log_return(bars)
    return np.where(change > 0.01, np.nan, change)


def _infinite(bars: Bars) -> np.ndarray:
    change = _log_return(bars)
    return np.where(change > 0.01, np.inf, change)


BREACHES = {
    "a raw price": (lambda bars: bars.close, 1, "scale"),
    "a raw volume": (lambda bars: bars.volume, 1, "scale"),
    "a raw context level": (lambda bars: bars.context["SP500"], 1, "scale"),
    "a tick size in currency": (lambda bars: np.round(bars.close - bars.open, 2) / bars.close, 1, "scale"),
    "an understated lookback": (lambda bars: _series(_log_return(bars)).rolling(6).mean().to_numpy(), 6, "tail"),
    "a count of bars so far": (lambda bars: np.arange(len(bars)) / 100, 1, "tail"),
    "an unbounded memory": (lambda bars: _series(_log_return(bars)).expanding().mean().to_numpy(), 50, "tail"),
    "holes": (_holes, 2, "finite"),
    "infinities": (_infinite, 2, "finite"),
    "another length": (_short, 2, "shape"),
    "changed bars": (_changing, 1, "purity"),
    "a memory of calls": (_counter(), 1, "purity"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_every_other_breach_is_caught(breach: str, daily: Bars) -> None:
    function, lookback, kind = BREACHES[breach]
    copy = Bars("COPY", *(x.copy() for x in (daily.timestamp, daily.open, daily.high, daily.low, daily.close)),
                daily.volume.copy(), daily.context)  # fmt: skip
    found = violations(function, copy, lookback)
    assert any(line.startswith(f"{kind}: ") for line in found), found


def test_a_definition_that_follows_the_scale_says_so(daily: Bars) -> None:
    def logs(bars: Bars) -> np.ndarray:
        return np.log(bars.volume + 1)

    assert [line.split(":")[0] for line in violations(logs, daily, 1)] == ["scale"]
    assert violations(logs, daily, 1, scale_free=False) == []


def test_an_honest_function_passes(daily: Bars) -> None:
    assert violations(_log_return, daily, 2) == []
    assert violations(lambda bars: np.column_stack([_log_return(bars), -_log_return(bars)]), daily, 2) == []


def test_a_recursive_function_needs_its_tolerance(daily: Bars) -> None:
    def recursive(bars: Bars) -> np.ndarray:
        return np.log(talib.EMA(bars.close, 10) / bars.close)

    assert violations(recursive, daily, 150, recursive=True) == []
    assert [line.split(":")[0] for line in violations(recursive, daily, 100, recursive=False)] == ["tail"]
    assert [line.split(":")[0] for line in violations(recursive, daily, 20, recursive=True)] == ["tail"]


def test_a_context_series_that_begins_later_is_warm_up(daily: Bars) -> None:
    late = daily.context["SP500"].copy()
    late[:500] = np.nan
    bars = Bars("LATE", daily.timestamp, daily.open, daily.high, daily.low, daily.close, daily.volume, {"SP500": late})
    for spec in registered(["context"], context=["SP500"]):
        values = spec.function(bars)
        assert (
            np.isnan(values[: 500 + spec.lookback - 1]).any() and np.isfinite(values[500 + spec.lookback - 1 :]).all()
        )
        assert violations(spec.function, bars, spec.lookback) == []


def test_a_context_that_is_not_positive_is_unknown(daily: Bars) -> None:
    crude = daily.context["WTI"].copy()
    crude[1000] = -37.63
    bars = Bars("WTI", daily.timestamp, daily.open, daily.high, daily.low, daily.close, daily.volume, {"WTI": crude})
    for spec in registered(["context"], context=["WTI"]):
        values = spec.function(bars)
        assert np.isnan(values[1000:1002]).any() and not np.isinf(values).any()  # what leads is known a bar longer
        assert np.isfinite(values[1000 + spec.lookback :]).all()


def test_too_few_bars_to_judge_is_an_error(daily: Bars) -> None:
    with pytest.raises(ValueError, match=r"a lookback of 10 bars needs at least 12 bars to be checked, got 11"):
        violations(_log_return, daily[:11], 10)
