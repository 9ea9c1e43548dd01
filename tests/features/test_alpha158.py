"""Alpha158 against Qlib's own expressions, written down in pandas; `benchmarks/against_pyqlib.py` asks Qlib itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from tests.features.conftest import made_bars, market_bars
from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, compute, compute_tail, registered, schema_hash
from tradeloop.features.contract import violations
from tradeloop.features.nested import EXTREME, WINDOWS, summaries
from tradeloop.features.rolling import MOMENTS, moments
from tradeloop.schema import Schema

SPECS = registered(["alpha158"])
SCHEMA = Schema("any", tuple(spec.name for spec in SPECS), schema_hash(SPECS))

Series = Any


def _lines(y: np.ndarray, window: int) -> pd.DataFrame:
    """Return slope, R² and last residual of the least-squares line of each window; NaN before the first."""
    time = np.column_stack([np.arange(1, window + 1), np.ones(window)])
    windows = np.lib.stride_tricks.sliding_window_view(y, window).T
    found, squares, *_ = np.linalg.lstsq(time, windows, rcond=None)
    rows = [found[0], 1 - squares / (windows.var(axis=0) * window), windows[-1] - time[-1] @ found]
    return pd.DataFrame(np.vstack([np.full((window - 1, 3), np.nan), np.column_stack(rows)]))


def expected(bars: Bars) -> pd.DataFrame:
    """Return Qlib's columns by their names here, its expressions read as they stand, 1e-12 and all."""
    o, h, l, c, v = (pd.Series(getattr(bars, name)) for name in ("open", "high", "low", "close", "volume"))  # noqa: E741
    least, most, span = np.minimum(o, c), np.maximum(o, c), h - l + 1e-12
    found: dict[str, Series] = {
        "kmid": (c - o) / o, "klen": (h - l) / o, "kmid2": (c - o) / span, "kup": (h - most) / o,
        "kup2": (h - most) / span, "klow": (least - l) / o, "klow2": (least - l) / span,
        "ksft": (2 * c - h - l) / o, "ksft2": (2 * c - h - l) / span,
        "open_0": o / c, "high_0": h / c, "low_0": l / c, "vwap_0": (h + l + c) / 3 / c,
    }  # fmt: skip
    for window in WINDOWS:
        found |= {f"{name}_{window}": values for name, values in _of_window(h, l, c, v, window).items()}
    return pd.DataFrame({f"alpha158_{name}": values for name, values in found.items()})


def _of_window(h: Series, l: Series, c: Series, v: Series, d: int) -> dict[str, Series]:  # noqa: E741
    before, flow = c.shift(1), v.shift(1)
    rise, fall = np.maximum(c - before, 0), np.maximum(before - c, 0)
    more, less = np.maximum(v - flow, 0), np.maximum(flow - v, 0)
    weighted = (c / before - 1).abs() * v
    lines = _lines(c.to_numpy(), d)
    first_high = h.rolling(d).apply(lambda x: x.argmax() + 1, raw=True)
    first_low = l.rolling(d).apply(lambda x: x.argmin() + 1, raw=True)
    lowest, highest = l.rolling(d).min(), h.rolling(d).max()
    moved, flowed = (c - before).abs().rolling(d).sum() + 1e-12, (v - flow).abs().rolling(d).sum() + 1e-12
    return {
        "roc": c.shift(d) / c, "ma": c.rolling(d).mean() / c, "std": c.rolling(d).std() / c,
        "beta": lines[0] / c, "rsqr": lines[1], "resi": lines[2] / c,
        "max": highest / c, "min": lowest / c, "rsv": (c - lowest) / (highest - lowest + 1e-12),
        "qtlu": c.rolling(d).quantile(0.8) / c, "qtld": c.rolling(d).quantile(0.2) / c,
        "rank": c.rolling(d).rank(pct=True),
        "imax": first_high / d, "imin": first_low / d, "imxd": (first_high - first_low) / d,
        "corr": c.rolling(d).corr(np.log(v + 1)), "cord": (c / before).rolling(d).corr(np.log(v / flow + 1)),
        "cntp": (c > before).rolling(d).mean(), "cntn": (c < before).rolling(d).mean(),
        "cntd": (c > before).rolling(d).mean() - (c < before).rolling(d).mean(),
        "sump": rise.rolling(d).sum() / moved, "sumn": fall.rolling(d).sum() / moved,
        "sumd": (rise.rolling(d).sum() - fall.rolling(d).sum()) / moved,
        "vma": v.rolling(d).mean() / (v + 1e-12), "vstd": v.rolling(d).std() / (v + 1e-12),
        "wvma": weighted.rolling(d).std() / (weighted.rolling(d).mean() + 1e-12),
        "vsump": more.rolling(d).sum() / flowed, "vsumn": less.rolling(d).sum() / flowed,
        "vsumd": (more.rolling(d).sum() - less.rolling(d).sum()) / flowed,
    }  # fmt: skip


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Real bars, with two that a market without trades would have."""
    made = market_bars("us_daily", "AAPL")[-700:]
    made = replace(made, **{name: getattr(made, name).copy() for name in ("open", "high", "low", "close")})
    for at in (300, 301):
        for values in (made.open, made.high, made.low, made.close):
            values[at] = made.close[299]
    return made


def test_there_are_158() -> None:
    assert len(SPECS) == 158 == len(set(SCHEMA.names))
    assert {spec.name for spec in SPECS if not spec.scale_free} == {
        f"alpha158_{name}_{window}" for name in ("vma", "vstd", "corr") for window in WINDOWS
    }


def test_against_its_expressions(bars: Bars) -> None:
    theirs = expected(bars)
    assert set(theirs) == set(SCHEMA.names)
    for spec in SPECS:
        ours = spec.function(bars)
        assert np.isnan(ours[: spec.lookback - 1]).all() and np.isfinite(ours[spec.lookback - 1 :]).all(), spec.name
        np.testing.assert_allclose(
            ours[spec.lookback - 1 :], theirs[spec.name][spec.lookback - 1 :], rtol=1e-7, atol=1e-9, err_msg=spec.name
        )


def test_batch_and_tail(bars: Bars) -> None:
    rows = compute(bars, SCHEMA)
    for end in (1, 4, 5, 6, 37, 60, 61, 305, len(bars)):
        np.testing.assert_array_equal(compute_tail(bars[:end], SCHEMA), rows[end - 1])


def _columns(lookback: int, scale_free: bool) -> tuple[list[FeatureSpec], Callable[[Bars], np.ndarray]]:
    specs = [spec for spec in SPECS if (spec.lookback, spec.scale_free) == (lookback, scale_free)]
    return specs, lambda bars: np.column_stack([spec.function(bars) for spec in specs])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_holds_the_contract_on_made_bars(bars: Bars) -> None:
    for lookback, scale_free in {(spec.lookback, spec.scale_free): None for spec in SPECS}:
        specs, together = _columns(lookback, scale_free)
        names = [spec.name for spec in specs]
        assert violations(together, bars, lookback, scale_free=scale_free) == [], names


def test_what_follows_the_scale_is_said_to(bars: Bars) -> None:
    """The flag stands only where it must: the marked columns do break the rule that they are let off."""
    for spec in (spec for spec in SPECS if not spec.scale_free):
        dry = replace(bars, volume=np.where(np.arange(len(bars)) % 7 == 3, 0.0, bars.volume * 1e-6))
        assert any(line.startswith("scale: ") for line in violations(spec.function, dry, spec.lookback)), spec.name


def test_without_volume_or_movement(bars: Bars) -> None:
    size = 90
    flat = np.full(size, 12.5)
    still = Bars("STILL", bars.timestamp[:size], flat, flat, flat, flat, np.zeros(size))
    for spec in SPECS:
        base = spec.name.removeprefix("alpha158_").rpartition("_")[0] or spec.name.removeprefix("alpha158_")
        value = spec.function(still)[-1]
        one = {"open", "high", "low", "vwap", "roc", "ma", "max", "min", "qtlu", "qtld"}
        window = int(spec.name.rpartition("_")[2]) if base in ("rank", "imax", "imin") else 1
        place = {"rank": (window + 1) / 2 / window, "imax": 1 / window, "imin": 1 / window}
        assert value == pytest.approx(place.get(base, float(base in one)), abs=1e-15), spec.name


@pytest.mark.parametrize("size", [1, 4, 5, 9, 10, 59, 60, 61, 200])
def test_nested_windows_are_the_windows(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 9, size).astype(float)
    found, extreme = summaries(MOMENTS, 2, values), summaries(EXTREME, 2, values)
    for w, window in enumerate(WINDOWS):
        average, variance = moments(values, window)
        np.testing.assert_allclose(found[w, 0], average, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found[w, 1] / (window - 1), variance, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(extreme[w, 0], pd.Series(values).rolling(window).max())
        oldest = pd.Series(values).rolling(window).apply(lambda x: len(x) - 1 - x.argmax(), raw=True)
        np.testing.assert_array_equal(extreme[w, 1], oldest)
