"""Batch and tail, and the schema that binds a row to the definitions that made it."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.features.conftest import SERIES, made_bars, market_bars, market_params
from tradeloop.bars import Bars
from tradeloop.config import Params
from tradeloop.errors import ConfigError, SchemaMismatch
from tradeloop.features import (
    compiled,
    compute,
    compute_tail,
    engine,
    feature,
    feature_lookback,
    registered,
    registry,
    schema_for,
    schema_hash,
    specs_for,
)
from tradeloop.features.engine import syntax_hash
from tradeloop.features.registry import column_prefix
from tradeloop.schema import Schema


def with_market(params: Params, **changes: object) -> Params:
    market = params.active.model_copy(update=changes)
    return params.model_copy(update={"markets": {**params.markets, params.market: market}})


def with_families(params: Params, *families: str) -> Params:
    return params.model_copy(update={"features": params.features.model_copy(update={"families": list(families)})})


@pytest.mark.parametrize("market", ["us_daily", "eurusd_hourly", "aapl_hourly", "btc_15m"])
def test_batch_is_every_feature_by_itself(market: str) -> None:
    params = market_params(market)
    schema = schema_for(params)
    bars = market_bars(market, params.active.symbols[0])
    rows = compute(bars, schema)
    assert rows.dtype == np.float32 and rows.shape == (len(bars), len(schema)) and rows.flags.f_contiguous
    assert schema.names == tuple(spec.name for spec in specs_for(params))
    for column, spec in enumerate(specs_for(params)):
        expected = spec.function(bars).astype(np.float32)
        expected[: spec.lookback - 1] = np.nan
        np.testing.assert_array_equal(rows[:, column], expected, err_msg=spec.name)
    assert np.isfinite(rows[feature_lookback(params) - 1 :]).all()


@pytest.mark.parametrize("market", ["us_daily", "eurusd_hourly", "btc_15m"])
def test_tail_is_the_last_row_of_the_batch_bit_for_bit(market: str) -> None:
    params = market_params(market)
    schema = schema_for(params)
    bars = market_bars(market, params.active.symbols[0])
    rows, lookback = compute(bars, schema), feature_lookback(params)
    assert lookback <= 300
    for row in np.random.default_rng(1).integers(lookback - 1, len(bars), 40):
        tail = compute_tail(bars[row - lookback + 1 : row + 1], schema)
        assert tail.dtype == np.float32
        np.testing.assert_array_equal(tail, rows[row])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_tail_and_batch_agree_on_made_bars(bars: Bars) -> None:
    params = with_market(market_params("btc_15m"), context=list(SERIES))
    schema = schema_for(params)
    np.testing.assert_array_equal(compute_tail(bars, schema), compute(bars, schema)[-1])


def test_a_short_history_is_warm_up_and_no_error(daily: Bars, daily_params: Params) -> None:
    schema = schema_for(daily_params)
    for size in (0, 1, 2, 30):
        rows = compute(daily[:size], schema)
        assert rows.shape == (size, len(schema))
        known = np.array([spec.lookback <= size for spec in specs_for(daily_params)])
        if size:
            tail = compute_tail(daily[:size], schema)
            np.testing.assert_array_equal(tail, rows[-1])
            np.testing.assert_array_equal(np.isfinite(tail), known)


def test_strided_bars_give_the_same_bits(daily: Bars, daily_params: Params) -> None:
    schema = schema_for(daily_params)
    block = np.stack([daily.open, daily.high, daily.low, daily.close, daily.volume], axis=1)
    strided = Bars("AAPL", daily.timestamp, *block.T, context=daily.context)
    assert not strided.close.flags.c_contiguous
    np.testing.assert_array_equal(compute(strided, schema), compute(daily, schema))


def test_rows_differ_where_the_bars_differ(daily: Bars, daily_params: Params) -> None:
    """No column ignores the bars: each changes somewhere when all inputs are replaced by another symbol's."""
    schema = schema_for(daily_params)
    other = market_bars("us_daily", "IBM")
    moved = replace(other, timestamp=daily.timestamp + np.timedelta64(50, "D"),
                    context={name: series[::-1].copy() for name, series in other.context.items()})  # fmt: skip
    moved.timestamp[1::2] += np.timedelta64(1, "h")
    same = (compute(daily, schema) == compute(moved, schema))[300:].all(axis=0)
    assert [name for name, unchanged in zip(schema.names, same, strict=True) if unchanged] == []


def test_the_schema_follows_families_interval_and_context(daily_params: Params) -> None:
    full = schema_for(daily_params)
    assert "sp500_beta_60" in full.names and "time_of_day_sin" not in full.names
    assert full.market == "us_daily"
    fewer = schema_for(with_market(daily_params, context=["SP500"]))
    assert set(full.names) - set(fewer.names) == {n for n in full.names if n.startswith(("nasdaq_", "wti_"))}
    hourly = schema_for(with_market(daily_params, interval="1h"))
    assert set(hourly.names) - set(full.names) == {"time_of_day_sin", "time_of_day_cos"}
    trend = schema_for(with_families(daily_params, "trend"))
    assert set(trend.names) < set(full.names)
    assert len({schema.hash for schema in (full, fewer, hourly, trend)}) == 4


def test_the_order_of_families_in_the_parameters_does_not_matter(daily_params: Params) -> None:
    assert schema_for(with_families(daily_params, "volume", "trend")) == schema_for(
        with_families(daily_params, "trend", "volume")
    )


def test_the_hash_covers_name_order_and_lookback(daily_params: Params) -> None:
    specs = specs_for(daily_params)
    known = schema_hash(specs)
    assert schema_hash(specs_for(daily_params)) == known
    assert schema_hash([*specs[1:], specs[0]]) != known
    assert schema_hash([replace(specs[0], name="other"), *specs[1:]]) != known
    assert schema_hash([replace(specs[0], lookback=specs[0].lookback + 1), *specs[1:]]) != known


def other_join() -> None:
    """Stand for another way to join."""


def test_how_context_and_inputs_are_joined_is_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that reads neither keeps its hash."""
    everything = registered(context=["SP500"])
    alone = [spec for spec in everything if not spec.context and not spec.needs][:5]
    context = [spec for spec in everything if spec.context][:5]
    inputs = [spec for spec in everything if spec.needs][:5]
    before = [schema_hash(specs) for specs in (alone, context, inputs)]

    monkeypatch.setattr(engine, "known_close", other_join)
    monkeypatch.setattr(engine, "alignment", other_join)
    after = [schema_hash(specs) for specs in (alone, context, inputs)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_the_hash_covers_formulas_but_not_comments() -> None:
    source = '"""Module."""\nX = 1\ndef f(x):\n    """Return."""\n    return x + X\n'
    assert syntax_hash(source) == syntax_hash('X = 1  # one\n\n\ndef f(x):\n    "Other."\n\n    return (x + X)\n')
    for changed in ("return x - X", "return x + 2 * X"):
        assert syntax_hash(source.replace("return x + X", changed)) != syntax_hash(source)
    assert syntax_hash(source.replace("X = 1", "X = 2")) != syntax_hash(source)


def test_the_hash_covers_the_code_of_families_and_kernels(
    daily_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = specs_for(with_families(daily_params, "trend"))
    known = schema_hash(specs)
    for module, counts in (("trend", True), ("rolling", True), ("volume", False)):
        monkeypatch.setattr(
            "tradeloop.features.engine._syntax", lambda name, m=module: name + "x" * name.endswith(f".{m}")
        )
        changed = schema_hash(specs)
        monkeypatch.setattr("tradeloop.features.engine._syntax", str)
        assert (changed != schema_hash(specs)) is counts, module
    monkeypatch.undo()
    assert schema_hash(specs) == known


def test_a_family_counts_with_the_families_it_borrows_from(daily_params: Params) -> None:
    """Context features use volatility's floor, so a schema with context alone still changes with it."""
    context_only = specs_for(with_families(daily_params, "context"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tradeloop.features.engine._syntax", lambda name: name + "x" * name.endswith(".volatility"))
        changed = schema_hash(context_only)
        patch.setattr("tradeloop.features.engine._syntax", str)
        assert changed != schema_hash(context_only)


def test_rows_of_another_schema_are_refused(daily: Bars, daily_params: Params) -> None:
    schema = schema_for(daily_params)
    with pytest.raises(SchemaMismatch, match=r"has feature schema .{12}, expected ffffffffffff"):
        compute(daily, Schema(schema.market, schema.names, "f" * 64))
    with pytest.raises(SchemaMismatch, match="feature 'alpha_1'"):
        compute_tail(daily, Schema(schema.market, ("alpha_1",), schema.hash))
    bare = replace(daily, context={})
    with pytest.raises(SchemaMismatch, match=r"'sp500_return_1'.*given the context \[\]"):
        compute(bare, schema)


def test_an_unknown_family_is_named_with_the_nearest(daily_params: Params) -> None:
    with pytest.raises(ConfigError, match="got 'volatilty'; did you mean 'volatility'"):
        schema_for(with_families(daily_params, "volatilty"))


def test_two_context_series_may_not_share_columns() -> None:
    with pytest.raises(ConfigError, match=r"'brk_b_beta_\d+' is taken twice"):
        registered(context=["BRK-B", "BRK.B"])


def test_kernels_of_like_lookbacks_share_what_they_remember(monkeypatch: pytest.MonkeyPatch, daily: Bars) -> None:
    made: list[int] = []

    def shared(bars: Bars) -> np.ndarray:
        def make() -> np.ndarray:
            made.append(len(bars))
            return np.log(bars.close)

        return bars.memo("shared", make)

    monkeypatch.setattr(registry, "_definitions", [])

    @feature(lookback=lambda window: window, windows=(1, 3, 20, 64, 65))
    def level(bars: Bars, window: int) -> np.ndarray:
        """Log close, and that of `window` bars."""
        assert len(bars) >= window
        return shared(bars) - np.log(bars.close[-1])

    specs = registered()
    schema = Schema("shared", tuple(spec.name for spec in specs), schema_hash(specs))
    bare = replace(daily, context={})
    np.testing.assert_array_equal(compute_tail(bare[-300:], schema), np.zeros(5, np.float32))
    assert sorted(made) == [64, 128]
    made.clear()
    assert np.isnan(compute_tail(bare[-30:], schema)).tolist() == [False] * 3 + [True] * 2
    assert made == [30]


def test_named_columns_limit_their_families_and_no_other(daily_params: Params) -> None:
    def names(**features: object) -> list[str]:
        block = daily_params.features.model_copy(update=features)
        return [spec.name for spec in specs_for(daily_params.model_copy(update={"features": block}))]

    every = names(families=["trend", "candles", "context"], columns=None)
    chosen = names(families=["trend", "candles", "context"], columns=["adx_14", "series_beta_60", "rsi_14"])
    context = [f"{column_prefix(name)}_beta_60" for name in daily_params.active.context]
    assert [name for name in chosen if name in ("adx_14", *context)] == ["adx_14", *context]
    assert len(chosen) == 1 + len(context) + sum(spec.family == "candles" for spec in registered(["candles"]))
    assert len(every) > len(chosen) and set(chosen) < set(every)
    # A column of another market's is no error: hours of the day do not exist on daily bars.
    assert names(families=["calendar"], columns=["time_of_day_sin", "month_sin"]) == ["month_sin"]
    with pytest.raises(ConfigError, match="got 'adx_15'; did you mean 'adx_14'"):
        names(families=["trend"], columns=["adx_15"])
    with pytest.raises(ConfigError, match="got 'sma_distance'; did you mean 'sma_distance_10'"):
        names(families=["trend"], columns=["sma_distance"])


def test_each_intermediate_that_features_share_has_a_name_of_its_own() -> None:
    """Two makers under one name would give each other's values, whichever comes first."""
    folder = Path(compiled.__file__).parent
    calls = [
        ast.unparse(node.args[0])
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "memo"
    ]
    assert len(calls) > 40
    assert [name for name, count in Counter(calls).items() if count > 1] == []
