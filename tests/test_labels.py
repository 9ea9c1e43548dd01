"""Labels against a bar-by-bar oracle, and the promise that nothing after a label's end moves it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.labels import labels as labels_stage
from tradeloop.atomic import write_parquet
from tradeloop.bars import COLUMNS, TIME, Bars
from tradeloop.config import Labels, load_params
from tradeloop.errors import DataError
from tradeloop.features import volatility
from tradeloop.labels import QUIET, compute_labels
from tradeloop.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
ENTRIES, RANGES, HORIZONS = ("close", "next_open"), ("parkinson", "realised"), (1, 2, 3, 4, 5)


def made_bars(size: int, seed: int = 3, *, flat: bool = False) -> Bars:
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, size)))
    close[size // 2 :: 3] = close[size // 2 - 1 : -1 : 3][: len(close[size // 2 :: 3])]  # some flat trades
    opened = close * np.exp(rng.normal(0, 0.01, size))
    high = np.maximum(opened, close) * np.exp(rng.exponential(0.01, size))
    low = np.minimum(opened, close) * np.exp(-rng.exponential(0.01, size))
    if flat:
        opened = high = low = close = np.full(size, 50.0)
    hours = np.cumsum(rng.integers(1, 60, size))
    times = np.datetime64("2020-01-01", "us") + hours * np.timedelta64(1, "h")
    return Bars("X", times, opened, high, low, close, np.ones(size))


def oracle(bars: Bars, config: Labels) -> list[tuple[object, float, float, float]]:
    """Return (label_end, direction, return, range) bar by bar, as the module's docstring defines them."""
    rows: list[tuple[object, float, float, float]] = []
    for t in range(len(bars)):
        end = t + config.horizon
        if end > len(bars) - 1:
            rows.append((pd.NaT, math.nan, math.nan, math.nan))
            continue
        entry = bars.open[t + 1] if config.entry == "next_open" else bars.close[t]
        gross = math.log(bars.close[end] / entry)
        squares = [
            math.log(bars.high[i] / bars.low[i]) ** 2 / (4 * math.log(2))
            if config.range == "parkinson"
            else math.log(bars.close[i] / bars.close[i - 1]) ** 2
            for i in range(t + 1, end + 1)
        ]
        spread = math.log(max(math.sqrt(sum(squares) / config.horizon), 1e-5))
        rows.append((pd.Timestamp(bars.timestamp[end], tz="UTC"), float(gross > 0), gross, spread))
    return rows


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("measure", RANGES)
@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("size", [0, 1, 3, 120])
def test_equals_the_oracle(entry: str, measure: str, horizon: int, size: int) -> None:
    bars, config = made_bars(120)[:size], Labels.model_validate({"entry": entry, "horizon": horizon, "range": measure})
    frame, expected = compute_labels(bars, config), oracle(bars, config)
    assert list(frame.columns) == ["symbol", "timestamp", "label_end", "direction", "return", "range"]
    assert len(frame) == size and (frame["symbol"] == "X").all()
    assert str(frame["timestamp"].dtype) == str(frame["label_end"].dtype) == TIME
    assert (frame[["direction", "return", "range"]].dtypes == np.float64).all()
    assert frame["timestamp"].tolist() == [pd.Timestamp(t, tz="UTC") for t in bars.timestamp]
    for row, (end, direction, gross, spread) in zip(frame.itertuples(index=False, name=None), expected, strict=True):
        assert row[2] == end or (row[2] is pd.NaT and end is pd.NaT)
        np.testing.assert_allclose(row[3:], (direction, gross, spread), rtol=1e-12, atol=1e-15)


def test_a_worked_example() -> None:
    """Open 100, then 104 → close 110 with high 121 and low 100, twice."""
    times = np.array(["2024-01-02T21:00", "2024-01-03T21:00", "2024-01-04T21:00"], dtype="datetime64[us]")
    opened, close = np.array([100.0, 104.0, 104.0]), np.array([100.0, 110.0, 104.0])
    high, low = np.array([100.0, 121.0, 110.0]), np.array([100.0, 100.0, 100.0])
    bars = Bars("X", times, opened, high, low, close, np.ones(3))
    first, second, last = compute_labels(bars, Labels()).itertuples(index=False)
    assert (first.label_end, first.direction) == (pd.Timestamp("2024-01-03T21:00", tz="UTC"), 1.0)
    assert first[4] == pytest.approx(0.0560895, abs=1e-7)  # ln(110 / 104)
    assert first.range == pytest.approx(math.log(0.1906204 / 1.6651092), abs=1e-6)  # ln(1.21) over √(4 ln 2)
    assert (second.direction, second[4]) == (0.0, 0.0)  # 104 → 104: flat is not up
    assert last.label_end is pd.NaT and math.isnan(last.direction)
    held = compute_labels(bars, Labels(entry="close", horizon=2, range="realised"))
    assert held["return"][0] == pytest.approx(math.log(1.04))
    moves = (math.log(1.1) ** 2 + math.log(104 / 110) ** 2) / 2
    assert held["range"][0] == pytest.approx(0.5 * math.log(moves))


@settings(deadline=None, max_examples=60)
@given(
    entry=st.sampled_from(ENTRIES), measure=st.sampled_from(RANGES), horizon=st.integers(1, 5), at=st.integers(0, 59)
)
def test_no_label_moves_when_bars_after_its_end_change(entry: str, measure: str, horizon: int, at: int) -> None:
    bars, config = made_bars(60), Labels.model_validate({"entry": entry, "horizon": horizon, "range": measure})
    before = compute_labels(bars, config)
    later = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for prices in later.values():
        prices[at:] *= np.linspace(1.3, 2.9, len(prices) - at)
    later["high"][at:] *= 1.5
    after = compute_labels(replace(bars, **later), config)
    known = (before["label_end"] < pd.Timestamp(bars.timestamp[at], tz="UTC")).to_numpy()
    assert known.sum() == max(at - horizon, 0)
    pd.testing.assert_frame_equal(before[known], after[known])
    truncated = compute_labels(bars[: max(at, 1)], config)
    pd.testing.assert_frame_equal(truncated[: known.sum()], before[: known.sum()])
    if at + 1 < len(bars):  # and a bar inside the horizon does move it
        assert not before["range"][at : at + 1].equals(after["range"][at : at + 1]) or at + horizon >= len(bars)


def test_each_parameter_changes_the_result() -> None:
    bars, base = made_bars(80), compute_labels(made_bars(80), Labels())
    assert not base["return"].equals(compute_labels(bars, Labels(entry="close"))["return"])
    assert not base["range"].equals(compute_labels(bars, Labels(range="realised"))["range"])
    assert not base["label_end"].equals(compute_labels(bars, Labels(horizon=2))["label_end"])
    assert not base["return"].equals(compute_labels(bars, Labels(horizon=2))["return"])


@pytest.mark.parametrize("measure", RANGES)
def test_no_movement_has_the_floor_and_no_direction(measure: str) -> None:
    bars = made_bars(20, flat=True)
    frame = compute_labels(bars, Labels.model_validate({"range": measure}))[:-1]
    assert (frame["range"] == math.log(QUIET)).all()
    assert (frame["return"] == 0).all() and (frame["direction"] == 0).all()


def test_the_floor_is_that_of_the_features() -> None:
    assert QUIET == volatility.QUIET


def test_the_range_label_is_the_range_feature_of_the_bar_it_asks_about() -> None:
    """A forecast that repeats the last range is then in the same unit as the label."""
    bars = made_bars(60)
    for horizon in (1, 5):
        label = compute_labels(bars, Labels(horizon=horizon))["range"].to_numpy()
        np.testing.assert_allclose(label[:-horizon], volatility.log_parkinson(bars, horizon)[horizon:], rtol=1e-12)


def test_scale_does_not_matter() -> None:
    bars = made_bars(60)
    scaled = replace(bars, open=bars.open * 7.3, high=bars.high * 7.3, low=bars.low * 7.3, close=bars.close * 7.3)
    for name in ("return", "range"):
        np.testing.assert_allclose(
            compute_labels(bars, Labels())[name], compute_labels(scaled, Labels())[name], rtol=1e-9, atol=1e-14
        )


def test_the_stage_writes_one_file_a_symbol_the_same_each_time(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    layout = Layout(tmp_path)
    for seed, symbol in enumerate(params.active.symbols):
        bars = made_bars(40, seed)
        frame = pd.DataFrame({name: getattr(bars, name) for name in COLUMNS})
        frame["timestamp"] = frame["timestamp"].dt.tz_localize("UTC")
        write_parquet(layout.clean / "bars" / f"{symbol}.parquet", frame)
    labels_stage(layout, params)
    written = {path.name: path.read_bytes() for path in layout.labels.iterdir()}
    assert set(written) == {f"{symbol}.parquet" for symbol in params.active.symbols}
    frame = pd.read_parquet(layout.labels / "IBM.parquet")
    expected = compute_labels(replace(made_bars(40, 1), symbol="IBM"), params.labels)
    pd.testing.assert_frame_equal(frame, expected)
    labels_stage(layout, params)
    assert {path.name: path.read_bytes() for path in layout.labels.iterdir()} == written


def test_the_stage_names_a_broken_bar(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    bars = made_bars(40)
    frame = pd.DataFrame({name: getattr(bars, name) for name in COLUMNS})
    frame["timestamp"] = frame["timestamp"].dt.tz_localize("UTC")
    frame.loc[5, "low"] = -1.0
    write_parquet(Layout(tmp_path).clean / "bars" / "AAPL.parquet", frame)
    with pytest.raises(DataError, match=r"AAPL at .*prices must be positive"):
        labels_stage(Layout(tmp_path), params)
    assert not Layout(tmp_path).labels.exists()
