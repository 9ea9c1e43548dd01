"""One asset under two names: real and made twins are found, and what only moves alike is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.raw_bars import PARAMS, look, real, scale, series
from tradeloop.bars import PRICES
from tradeloop.integrity import Report, inspect
from tradeloop.integrity.twins import LEAST, find_twins, with_twins
from tradeloop.sources import open_source


def named(symbol: str, frame: pd.DataFrame, **check: float) -> Report:
    report = look(frame, **check)
    return Report(symbol, report.series, report.hits, report.kept, report.score, report.raw)


def pairs(*reports: Report, least: float = 0.995) -> dict[tuple[str, str], float]:
    return {(twin.symbol, twin.other): twin.correlation for twin in find_twins(reports, least)}


def test_identical_series_are_twins_whatever_their_unit() -> None:
    frame = series()
    scaled = frame.copy()
    scaled[list(PRICES)] *= 1e-4
    found = pairs(named("A", frame), named("B", series(seed=1)), named("C", scaled), named("D", frame))
    assert set(found) == {("C", "A"), ("D", "A")} and all(value == pytest.approx(1) for value in found.values())


def test_the_same_share_from_two_vendors_is_found() -> None:
    """Apple, of two packages: adjusted in another way, and much longer in one of them."""
    source = open_source(PARAMS.markets["us_daily"], root=Path(), seed=0)
    reports = [real("us_daily", symbol) for symbol in ("IBM", "AAPL", "MSFT", "GOOG")]
    market = PARAMS.markets["us_daily"]
    other = inspect(
        "AAPL_1D",
        source.read("AAPL_1D"),
        calendar=market.calendar,
        interval=pd.Timedelta(days=1).to_pytimedelta(),
        config=PARAMS.check,
    )
    assert pairs(*reports) == {}
    (twin,) = find_twins([*reports, other], PARAMS.check.twin_correlation)
    assert (twin.symbol, twin.other, len(twin.common)) == ("AAPL_1D", "AAPL", 3269)
    assert twin.correlation == pytest.approx(0.9998, abs=1e-4)


def test_what_moves_alike_is_no_twin_below_the_parameter() -> None:
    frame, noise = series(2000), series(2000, seed=5)
    mixed = frame.copy()
    close = np.exp(np.log(frame["close"]) + 0.1 * np.log(noise["close"]))
    for name in PRICES:
        mixed[name] = close
    correlation = 1 / np.sqrt(1 + 0.1**2)
    a, b = named("A", frame), named("B", mixed)
    found = pairs(a, b, least=0.99)
    assert found[("B", "A")] == pytest.approx(correlation, abs=2e-3) and pairs(a, b, least=0.998) == {}


def test_correlations_are_over_what_both_have() -> None:
    """As pandas computes them pair by pair."""
    one, two = series(600), series(500, seed=3)
    two["close"] = np.exp(0.5 * np.log(one["close"][:500]) + 0.5 * np.log(two["close"]))
    for name in PRICES:
        two[name] = two["close"]
    two = two.drop(index=range(200, 260)).reset_index(drop=True)
    reports = [named("A", one), named("B", two)]
    panel = pd.DataFrame({name: f.set_index("timestamp")["close"] for name, f in (("A", one), ("B", two))})
    returns = np.log(panel).diff()
    (twin,) = find_twins(reports, 0.1)
    assert twin.correlation == pytest.approx(returns["A"].corr(returns["B"]), rel=1e-9)
    assert len(twin.common) == returns.dropna().shape[0]


def test_few_bars_in_common_or_no_movement_prove_nothing() -> None:
    frame = series()
    assert pairs(named("A", frame), named("B", frame[: LEAST + 1])) != {}
    assert pairs(named("A", frame), named("B", frame[:LEAST])) == {}
    flat = frame.copy()
    flat[list(PRICES)] = 100.0
    assert pairs(named("A", flat), named("B", flat)) == {} and pairs(named("A", frame)) == {}
    # What is left of steady growth is rounding, which agrees wholly with itself.
    steady = series().assign(close=100 * 1.003 ** np.arange(400))
    assert pairs(named("A", steady), named("B", steady)) == {}


def test_a_twin_is_a_finding_that_costs_nothing() -> None:
    frame = series()
    spoilt = frame.copy()
    scale(spoilt, slice(200, 200), 1.0)
    first, second = with_twins([named("A", frame), named("B", spoilt)], 0.995)
    assert first.hits == {} and second.score == 100
    (finding,) = second.findings("twin")
    assert (finding.symbol, finding.time, finding.severity) == ("B", "2024-01-01T02:00:00Z", "warning")
    assert finding.text == "returns are those of A: correlation 1.000000 over 399 bars"


def test_broken_prices_are_left_to_their_own_rules() -> None:
    frame = series()
    frame.loc[7, "close"], frame.loc[9, "close"] = -1.0, np.nan
    assert ("B", "A") in pairs(named("A", frame), named("B", series()))
