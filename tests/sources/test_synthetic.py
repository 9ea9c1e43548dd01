from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tradeloop.bars import COLUMNS, Floats, to_times, validate_bars
from tradeloop.config import Market, SyntheticMarket
from tradeloop.errors import ConfigError
from tradeloop.sources.synthetic import FADE_BARS, Synthetic

DRIFTS = ["sign_flip", "fading_edge", "new_regime", "volatility_jump"]
BARS = 40_000
DRIFT_BAR = 15_000


def source(seed: int = 1, *, interval: str = "1h", calendar: str = "24/7", **planted: Any) -> Synthetic:
    planted = {"bars": BARS, **planted}
    market = Market(
        source="synthetic", symbols=["S"], calendar=calendar, interval=interval, synthetic=SyntheticMarket(**planted)
    )
    return Synthetic(market, root=Path(), seed=seed)


def hits(planted: Synthetic, frame: pd.DataFrame | None = None) -> np.ndarray:
    """Return, for the trade of each bar but the first, whether the oracle's side of one half was right."""
    bars = planted.read("S") if frame is None else frame
    up = bars["close"].to_numpy() > bars["open"].to_numpy()
    return (planted.oracle("S").p_up[:-1] > 0.5) == up[1:]


def assert_rate(rate: np.ndarray, expected: float) -> None:
    """Within four standard errors of a binomial share."""
    error = np.sqrt(expected * (1 - expected) / len(rate))
    assert abs(rate.mean() - expected) < 4 * error, (rate.mean(), expected, error)


def location(bars: pd.DataFrame) -> Floats:
    return ((bars["close"] - bars["low"]) / (bars["high"] - bars["low"])).to_numpy()


def test_bars_are_good_bars_on_an_hourly_grid() -> None:
    bars = validate_bars(source(bars=500, start="2020-01-01T02:00:00+02:00").read("S"), name="S")
    assert list(bars.columns) == list(COLUMNS)
    times = to_times(bars["timestamp"])
    np.testing.assert_array_equal(times, np.datetime64("2020-01-01T01", "us") + np.arange(500) * np.timedelta64(1, "h"))


@pytest.mark.parametrize("regimes", [False, True])
@pytest.mark.parametrize("accuracy", [0.5, 0.55, 0.6, 0.9])
def test_the_oracle_is_right_as_often_as_was_asked_for(accuracy: float, regimes: bool) -> None:
    planted = source(bayes_accuracy=accuracy, regimes=regimes, bars=60_000)
    oracle = planted.oracle("S")
    assert oracle.accuracy_before == oracle.accuracy_after == pytest.approx(accuracy, abs=1e-12)
    assert_rate(hits(planted), accuracy)
    # The same number from the probabilities alone: its own claim of how often it will be right.
    assert np.maximum(oracle.p_up, 1 - oracle.p_up).mean() == pytest.approx(accuracy, abs=0.004)


def test_the_oracle_is_calibrated() -> None:
    planted = source(bayes_accuracy=0.7, bars=80_000)
    bars, p_up = planted.read("S"), planted.oracle("S").p_up[:-1]
    up = (bars["close"] > bars["open"]).to_numpy()[1:]
    for low in np.arange(0, 1, 0.1):
        rows = (p_up >= low) & (p_up < low + 0.1)
        assert abs(up[rows].mean() - p_up[rows].mean()) < 4 * np.sqrt(0.25 / rows.sum())


def test_shuffled_outcomes_leave_nothing() -> None:
    planted = source(bayes_accuracy=0.6, bars=60_000)
    bars = planted.read("S")
    up = (bars["close"] > bars["open"]).to_numpy()[1:]
    side = planted.oracle("S").p_up[:-1] > 0.5
    assert_rate(np.random.default_rng(0).permutation(up) == side, 0.5)


def test_the_signal_is_the_close_location_and_no_more() -> None:
    """The oracle is a monotone function of one number of the last bar; given that, nothing else is of use."""
    planted = source(bayes_accuracy=0.6, bars=80_000)
    bars, p_up = planted.read("S"), planted.oracle("S").p_up
    order = np.argsort(location(bars))
    assert (np.diff(p_up[order]) > -1e-9).all()
    up = (bars["close"] > bars["open"]).to_numpy()
    surprise = up[1:] - p_up[:-1]
    body = np.log(bars["close"] / bars["open"]).to_numpy()
    gap = np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])
    others = {"last body": body[:-1], "last direction": up[:-1], "gap": gap, "volume": np.log(bars["volume"])[:-1]}
    others["range"] = np.log(bars["high"] / bars["low"])[:-1]
    for name, other in others.items():
        assert abs(np.corrcoef(surprise, other)[0, 1]) < 4 / np.sqrt(len(surprise)), name
    assert abs(np.corrcoef(surprise[1:], surprise[:-1])[0, 1]) < 4 / np.sqrt(len(surprise))


def test_the_next_open_neither_tells_nor_takes_the_signal() -> None:
    bars = source(bayes_accuracy=0.6).read("S")
    gap = np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])
    assert_rate((gap > 0) == (bars["close"] > bars["open"]).to_numpy()[1:], 0.5)
    assert np.abs(gap).mean() < 0.1 * np.abs(np.log(bars["close"] / bars["open"])).mean()


def test_range_can_be_forecast() -> None:
    bars = source().read("S")
    width = np.log(np.log(bars["high"] / bars["low"]))
    known = width.ewm(span=15).mean().shift(1)[100:]
    assert 0.5 < np.corrcoef(known, width[100:])[0, 1] ** 2 < 0.8


def test_regimes_turn_the_relation_with_the_volatility() -> None:
    planted = source(bayes_accuracy=0.65, regimes=True, bars=60_000)
    bars = planted.read("S")
    near_end = location(bars) > 0.5
    width = np.log(bars["high"] / bars["low"]).rolling(10).mean().to_numpy()
    calm, turbulent = width < np.nanquantile(width, 0.2), width > np.nanquantile(width, 0.8)
    p_up = planted.oracle("S").p_up
    assert ((p_up > 0.5) == near_end)[calm].mean() > 0.99
    assert ((p_up > 0.5) != near_end)[turbulent].mean() > 0.99


@pytest.mark.parametrize("regimes", [False, True])
@pytest.mark.parametrize("drift", DRIFTS)
def test_before_the_drift_the_bars_are_the_very_same(drift: str, regimes: bool) -> None:
    still = source(regimes=regimes).read("S")
    drifting = source(regimes=regimes, drift=drift, drift_bar=DRIFT_BAR).read("S")
    pd.testing.assert_frame_equal(still[:DRIFT_BAR], drifting[:DRIFT_BAR], check_exact=True)
    after = slice(DRIFT_BAR, DRIFT_BAR + 50)
    if drift == "volatility_jump":
        assert not np.isclose(still["high"] / still["low"], drifting["high"] / drifting["low"], rtol=1e-9)[after].any()
    else:
        up, new_up = (frame["close"] > frame["open"] for frame in (still, drifting))
        assert (up != new_up)[DRIFT_BAR:].any()
    assert source(drift=drift).read("S").equals(source().read("S")), "without a bar there is no drift"


def test_the_drift_is_at_its_bar_and_nowhere_else() -> None:
    planted = source(drift="sign_flip", drift_bar=DRIFT_BAR)
    agrees = (planted.oracle("S").p_up > 0.5) == (location(planted.read("S")) > 0.5)
    # The first direction of the new kind is that of the drift bar: what the bar before it tells.
    assert agrees[: DRIFT_BAR - 1].all() and not agrees[DRIFT_BAR - 1 :].any()
    strong = source(drift="sign_flip", drift_bar=DRIFT_BAR, bayes_accuracy=0.995)
    bars = strong.read("S")
    up = (bars["close"] > bars["open"]).to_numpy()[1:]
    right = (location(bars)[:-1] > 0.5) == up
    around = slice(DRIFT_BAR - 31, DRIFT_BAR - 1), slice(DRIFT_BAR - 1, DRIFT_BAR + 29)
    assert right[around[0]].mean() > 0.9 and right[around[1]].mean() < 0.1


@pytest.mark.parametrize("drift", DRIFTS)
def test_the_oracle_knows_the_accuracy_on_both_sides(drift: str) -> None:
    planted = source(bayes_accuracy=0.65, drift=drift, drift_bar=DRIFT_BAR)
    oracle = planted.oracle("S")
    right = hits(planted)  # the first is bar 1's
    assert_rate(right[: DRIFT_BAR - 1], oracle.accuracy_before)
    assert_rate(right[DRIFT_BAR - 1 :], oracle.accuracy_after)
    assert oracle.accuracy_before == pytest.approx(0.65)
    if drift != "fading_edge":
        assert oracle.accuracy_after == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("drift", "after"), [("sign_flip", 0.35), ("fading_edge", 0.5), ("new_regime", 0.5), ("volatility_jump", 0.65)]
)
def test_what_the_old_rule_is_worth_after_the_drift(drift: str, after: float) -> None:
    bars = source(bayes_accuracy=0.65, drift=drift, drift_bar=DRIFT_BAR).read("S")
    right = (location(bars)[:-1] > 0.5) == (bars["close"] > bars["open"]).to_numpy()[1:]
    assert_rate(right[: DRIFT_BAR - 1], 0.65)
    rest = right[DRIFT_BAR - 1 :]
    assert_rate(rest[FADE_BARS:] if drift == "fading_edge" else rest, after)


def test_a_fading_edge_fades_in_a_line() -> None:
    planted = source(bayes_accuracy=0.65, drift="fading_edge", drift_bar=DRIFT_BAR)
    p_up = planted.oracle("S").p_up
    strength = np.abs(p_up - 0.5)
    assert strength[DRIFT_BAR - 1] > 0 and (strength[DRIFT_BAR + FADE_BARS - 1 :] == 0).all()
    halfway = planted.oracle("S").accuracy_after
    share = FADE_BARS / (BARS - DRIFT_BAR)
    assert 0.5 + 0.15 * share * 0.4 < halfway < 0.5 + 0.15 * share * 0.6


def test_volatility_jumps_by_a_factor_of_three() -> None:
    still, jumped = source(), source(drift="volatility_jump", drift_bar=DRIFT_BAR)
    before, after = ((f["high"] - f["low"]) / f["close"] for f in (still.read("S"), jumped.read("S")))
    np.testing.assert_allclose((after / before)[DRIFT_BAR:], 3, rtol=1e-9)
    np.testing.assert_array_equal(still.oracle("S").p_up, jumped.oracle("S").p_up)


def test_seeds_and_symbols_have_streams_of_their_own() -> None:
    frame = source().read("S")
    assert frame.equals(source().read("S"))
    others = [source(seed=2).read("S"), source().read("T")]
    for other in others:
        assert abs(np.corrcoef(location(frame), location(other))[0, 1]) < 4 / np.sqrt(BARS)


def test_a_longer_series_begins_with_the_shorter_one() -> None:
    long, short = source(bars=5_000, regimes=True).read("S"), source(bars=1_000, regimes=True).read("S")
    pd.testing.assert_frame_equal(long[:1_000], short, check_exact=True)


def test_accuracy_shapes_the_same_draws() -> None:
    frame, strong = source().read("S"), source(bayes_accuracy=0.9).read("S")
    np.testing.assert_allclose(location(frame), location(strong), atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calendar": "XNYS"}, "calendar must be 24/7, got 'XNYS'"),
        ({"drift_bar": BARS}, f"drift_bar must be below bars = {BARS}, got {BARS}"),
    ],
)
def test_impossible_markets_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source(**settings).read("S")
    with pytest.raises(ConfigError, match=message):
        source(**settings).oracle("S")
