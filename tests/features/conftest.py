"""Real bars of the bundled markets, and made ones that hold what real ones seldom do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    bars = Bars("MADE", times, opened, high, low, close, volume, context)
    return replace(bars, inputs=made_inputs(bars, rng))


def _stretched(rng: np.random.Generator, values: np.ndarray, calm: float | np.ndarray) -> np.ndarray:
    """Return the values with a stretch of the calm one, as real data have them: a constant rate, no liquidations."""
    first, length = rng.integers(0, len(values)), rng.choice([0, 5, 90, 300])
    values = values.copy()
    values[first : first + length] = np.broadcast_to(calm, len(values))[first : first + length]
    return values


def made_inputs(bars: Bars, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return every column that `Bars.inputs` may have, within its kind's rules; one kind begins later than the bars.

    Families on data beyond bars are part of ``registered(...)`` unless ``inputs`` says otherwise, so whatever runs all
    that is registered needs these.
    """
    size, volume = len(bars), np.where(bars.volume > 0, bars.volume, 1.0)
    half = np.maximum(1.0, rng.integers(1, 5, size)) * 1e-5
    sizes = {side: _stretched(rng, volume * rng.lognormal(-3, 1, size), np.median(volume)) for side in ("bid", "ask")}
    bought = bars.volume * _stretched(rng, rng.random(size), 1.0)
    some = {
        name: _stretched(rng, rng.poisson(rate, size).astype(float), 0.0)
        for name, rate in (("updates", 30), ("trades", 3), ("puts", 8), ("calls", 9), ("news", 0.3))
    }
    liquidated = {
        side: _stretched(rng, rng.exponential(1e5, size) * (rng.random(size) < 0.2), 0.0) for side in ("long", "short")
    }
    iv = _stretched(rng, 0.5 * np.exp(np.cumsum(rng.normal(0, 0.02, size))), 0.4)
    hours = rng.choice([1.0, 4.0, 8.0])
    due = rng.random(size) * hours
    values = {
        "book.bid_price": bars.close * (1 - half),
        "book.bid_size": sizes["bid"],
        "book.ask_price": bars.close * (1 + half),
        "book.ask_size": sizes["ask"],
        "book.bid_depth": sizes["bid"] * 3,
        "book.ask_depth": sizes["ask"] * rng.lognormal(1, 0.3, size).clip(1),
        "book.order_flow": _stretched(rng, volume * rng.normal(0, 1, size), 0.0),
        "book.updates": some["updates"],
        "trades.buy_volume": bought,
        "trades.sell_volume": bars.volume - bought,
        "trades.count": some["trades"],
        "funding.rate": _stretched(rng, rng.normal(1e-4, 1e-4, size), 1e-4),
        "funding.hours": np.full(size, hours),
        "funding.hours_to_next": due,
        "liquidations.long": liquidated["long"],
        "liquidations.short": liquidated["short"],
        "options.atm_iv": iv,
        "options.far_iv": iv * 1.1,
        "options.put_iv": _stretched(rng, iv * rng.lognormal(0.1, 0.05, size), iv),
        "options.call_iv": iv,
        "options.put_volume": some["puts"],
        "options.call_volume": some["calls"],
        "options.put_open_interest": _stretched(rng, rng.poisson(500, size).astype(float), 0.0),
        "options.call_open_interest": _stretched(rng, rng.poisson(700, size).astype(float), 0.0),
        "events.hours_until": rng.choice([0.0, 0.5, 24.0, 300.0, 720.0], size),
        "events.hours_since": rng.choice([0.0, 1.0, 200.0], size),
        "events.importance_next": rng.choice([0.0, 1.0, 3.0], size),
        "news.count": some["news"],
    }
    late = rng.choice(["book", "trades", "funding", "liquidations", "options", "events", "news", "none"])
    for name in values:
        if name.startswith(f"{late}."):
            values[name] = np.where(np.arange(size) < size // 5, np.nan, values[name])
    return values


def hand_bars(close: Sequence[float] | int, volume: Sequence[float] | None = None, **inputs: Sequence[float]) -> Bars:
    """Return hourly bars at given closes (or so many at 100) with inputs, ``book__bid_price`` being book.bid_price."""
    prices = np.full(close, 100.0) if isinstance(close, int) else np.asarray(close, float)
    amounts = np.ones(len(prices)) if volume is None else np.asarray(volume, float)
    times = np.datetime64("2024-03-04T00:00", "us") + np.arange(len(prices)) * np.timedelta64(1, "h")
    given = {name.replace("__", "."): np.broadcast_to(np.asarray(x, float), len(prices)) for name, x in inputs.items()}
    return Bars("HAND", times, prices, prices, prices, prices, amounts, inputs={k: v.copy() for k, v in given.items()})
