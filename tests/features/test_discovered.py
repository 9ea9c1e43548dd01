"""Columns made of two others: named by what they are, and held to the contract of every feature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.features.conftest import SERIES, made_bars, market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.config import Discovered
from tradeloop.errors import ConfigError, SchemaMismatch
from tradeloop.features import FeatureSpec, compute, compute_tail, registered, schema_for, specs_for
from tradeloop.features.contract import violations
from tradeloop.features.discovered import OPERATIONS, WINDOW, compose, composed, discovered
from tradeloop.schema import Schema

PAIRS = (
    ("return_5", "rsi_14", 0),
    ("log_volatility_20", "volume_zscore_20", 3),
    ("weekday_sin", "streak", 1),
    ("sp500_return_1", "close_location", 2),
    ("sp500_beta_60", "return_1", 0),
)
NAMES = [compose(left, op, right, ago) for left, right, ago in PAIRS for op in OPERATIONS]


def specs(context: tuple[str, ...] = SERIES) -> list[FeatureSpec]:
    return discovered(NAMES, registered(context=context))


def column(bars: Bars, name: str) -> np.ndarray:
    (spec,) = [spec for spec in registered(context=tuple(bars.context)) if spec.name == name]
    values = spec.function(bars).copy()
    values[: spec.lookback - 1] = np.nan
    return values


def test_each_operation_by_hand(daily: Bars) -> None:
    bars = daily[:400]
    left, right = column(bars, "return_5"), column(bars, "volume_zscore_20")
    row, lookback = 300, {spec.name: spec.lookback for spec in registered()}

    def z(values: np.ndarray, at: int) -> float:
        window = values[at - WINDOW + 1 : at + 1]
        return (values[at] - window.mean()) / window.std(ddof=1)

    def r(values: np.ndarray, at: int) -> float:
        window = values[at - WINDOW + 1 : at + 1]
        return ((window < values[at]).sum() + ((window == values[at]).sum() + 1) / 2) / WINDOW

    expected = {
        "minus": z(left, row) - z(right, row - 2),
        "times": z(left, row) * z(right, row - 2),
        "over": z(left, row) / (1 + abs(z(right, row - 2))),
        "above": r(left, row) - r(right, row - 2),
    }
    for op, value in expected.items():
        (spec,) = discovered([f"return_5__{op}__volume_zscore_20__lag2"], registered())
        assert spec.function(bars)[row] == pytest.approx(value, rel=1e-3)
        assert spec.lookback == max(lookback["return_5"], lookback["volume_zscore_20"] + 2) + WINDOW - 1
        assert spec.family == "discovered"


@pytest.mark.parametrize("spec", specs(("SP500",)), ids=lambda spec: spec.name)
def test_holds_on_real_bars(spec: FeatureSpec, daily: Bars) -> None:
    assert violations(spec.function, daily[-1500:], spec.lookback) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_holds_on_made_bars(bars: Bars) -> None:
    for spec in specs():
        assert violations(spec.function, bars, spec.lookback) == [], spec.name


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_a_tail_gives_the_same_to_the_last_bit(bars: Bars) -> None:
    for spec in specs():
        for row in (spec.lookback - 1, len(bars) - 1):
            tail = spec.function(bars[row - spec.lookback + 1 : row + 1])[-1]
            assert np.array_equal(tail, spec.function(bars)[row], equal_nan=True), spec.name


def test_switched_on_they_stand_behind_the_row_and_whoever_has_the_schema_computes_them() -> None:
    base = market_params("us_daily")
    names = ["sp500_return_1__times__rsi_14__lag1", "return_2__above__gap"]
    features = base.features.model_copy(update={"families": ["trend"], "discovered": Discovered(columns=names)})
    params = base.model_copy(update={"features": features})
    schema = schema_for(params)
    assert schema.names[-2:] == tuple(names)  # of columns that the row itself does not have
    assert [spec.family for spec in specs_for(params)[-2:]] == ["discovered"] * 2
    read = Schema.of(schema.content())
    bars = market_bars("us_daily", "MSFT")[-600:]
    rows = compute(bars, read)
    np.testing.assert_array_equal(compute_tail(bars, read), rows[-1])
    assert np.isfinite(rows[-1]).all()
    without = schema_for(
        params.model_copy(update={"features": features.model_copy(update={"discovered": Discovered()})})
    )
    assert without.hash != schema.hash and without.names == schema.names[:-2]


def test_the_hash_covers_the_code_of_what_a_column_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeloop.features import engine

    made = discovered(["return_5__minus__rsi_14"], registered())
    seen: list[str] = []
    real = engine._syntax
    monkeypatch.setattr(engine, "_syntax", lambda module: seen.append(module) or real(module))
    engine.schema_hash(made)
    parts = {spec.module for spec in registered() if spec.name in ("return_5", "rsi_14")}
    assert parts | {"tradeloop.features.discovered", "tradeloop.features.rolling"} <= set(seen)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("return_5", "is named left__op__right"),
        ("return_5__divided__rsi_14", r"op one of \['minus'"),
        ("return_5__minus__rsi_14__lag0", "is named left__op__right"),
        ("return_5__minus__rsy_14", "the market has no feature 'rsy_14'"),
        ("retrun_5__minus__rsi_14", "the market has no feature 'retrun_5'"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        discovered([name], registered())


def test_a_schema_with_a_column_of_an_unknown_feature_is_refused(daily: Bars) -> None:
    schema = Schema("us_daily", ("return_5__minus__gone_14",), "0" * 64)
    with pytest.raises(SchemaMismatch, match="has no feature 'gone_14'"):
        compute(daily, schema)


def test_names_are_read_as_they_are_composed() -> None:
    for name in NAMES:
        assert composed(name)
        assert [spec.name for spec in discovered([name], registered(context=SERIES))] == [name]
    assert not any(composed(spec.name) for spec in registered(context=SERIES))
