"""Real bars of the bundled markets, and made ones that hold what real ones seldom do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from tradeloop.bars import Bars
from tradeloop.config import Params, load_params
from tradeloop.sources import open_source

ROOT = Path(__file__).resolve().parents[2]
SERIES = ("SP500", "WTI")


@cache
def market_params(market: str) -> Params:
    return load_params(ROOT / "params.yaml").model_copy(update={"market": market})


@cache
def market_bars(market: str, symbol: str) -> Bars:
    """All bars of a bundled series; repeated timestamps keep their first row, for the check stage is not at work."""
    active = market_params(market).active
    source = open_source(active, root=ROOT, seed=0)
    frame = source.read(symbol).drop_duplicates("timestamp").sort_values("timestamp")
    return Bars.from_frame(symbol, frame, {name: source.read_context(name) for name in active.context})


@pytest.fixture(scope="session")
def daily() -> Bars:
    return market_bars("us_daily", "AAPL")


@pytest.fixture(scope="session")
def daily_params() -> Params:
    return market_params("us_daily")


def _segment(kind: str, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log moves between bars, log ranges and volumes of a stretch of bars."""
    moves, ranges = rng.normal(0, 0.01, length), rng.exponential(0.01, length)
    volume = np.round(rng.lognormal(8, 1, length))
    if kind == "flat":
        moves, ranges = np.zeros(length), np.zeros(length)
    elif kind == "untraded":
        moves, ranges, volume = np.zeros(length), np.zeros(length), np.zeros(length)
    elif kind == "no volume":
        volume = np.zeros(length)
    elif kind == "jump":
        moves[0] = rng.choice([-1, 1]) * 1.5
    elif kind == "steady":
        moves, volume = np.full(length, 0.004), np.full(length, 1000.0)
    elif kind == "quiet":
        moves, ranges = moves * 1e-3, ranges * 1e-3
    return moves, ranges, volume


KINDS = ("normal", "flat", "untraded", "no volume", "jump", "steady", "quiet")


@st.composite
def made_bars(draw: st.DrawFn) -> Bars:
    """About 350 to 650 bars on a tick grid, in stretches of very different character, with gaps in time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = st.one_of(st.integers(1, 60), st.just(280))
    pieces = draw(st.lists(st.tuples(st.sampled_from(KINDS), lengths), min_size=2, max_size=6))
    pieces = [*pieces, ("normal", max(350 - sum(length for _, length in pieces), 1))]
    if draw(st.booleans()):
        pieces.reverse()
    moves, ranges, volume = (np.concatenate(x) for x in zip(*(_segment(k, n, rng) for k, n in pieces), strict=True))
    moves, ranges, volume = moves[:650], ranges[:650], volume[:650]
    return _bars(moves, ranges, volume, rng, price=draw(st.sampled_from([0.07, 1.1, 131.0, 45_000.0])))


def _bars(moves: np.ndarray, ranges: np.ndarray, volume: np.ndarray, rng: np.random.Generator, *, price: float) -> Bars:
    size, tick = len(moves), price * 1e-5
    close = price * np.exp(np.cumsum(moves - moves.mean()))
    opened = np.where(ranges > 0, close * np.exp(rng.normal(0, 1, size) * ranges / 3), close)
    close, opened = (np.maximum(np.round(x / tick), 1) * tick for x in (close, opened))
    high = np.maximum(np.maximum(opened, close), np.round(np.maximum(opened, close) * np.exp(ranges / 4) / tick) * tick)
    low = np.minimum(
        np.minimum(opened, close),
        np.maximum(np.round(np.minimum(opened, close) * np.exp(-ranges / 4) / tick), 1) * tick,
    )
    steps = rng.choice([1, 1, 1, 2, 72], size)
    times = np.datetime64("2016-02-27T23:00", "us") + np.cumsum(steps) * np.timedelta64(1, "h")
    context = {name: 50 * np.exp(np.cumsum(rng.normal(0, 0.01, size) * (rng.random(size) < 0.5))) for name in SERIES}
    context["WTI"][: rng.integers(0, size // 3)] = np.nan
    return Bars("MADE", times, opened, high, low, close, volume, context)
