"""Outcomes of a champion whose world is known, since every number of it was drawn here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tests.matrices import planted
from tradeloop.config import Target
from tradeloop.dataset import Matrix
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.reference import Reference, build_reference

START = datetime(2021, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class World:
    """How outcomes follow from forecasts.

    Attributes
    ----------
    intercept, slope
        ``P(up) = sigmoid(intercept + slope · log odds)``, the log odds being those of `p_up`.
    spread
        Standard deviation of the forecast log odds.
    bias, noise, memory
        Of the log range's error: mean, standard deviation of its innovations, autocorrelation.
    tails
        Degrees of freedom of Student's t that these innovations follow; 0: normal.
    common
        Share of an outcome's randomness that all symbols have in common: 0 independent, 1 the same.
    symbols
        How many symbols are forecast at one time.
    """

    intercept: float = 0.0
    slope: float = 1.0
    spread: float = 0.8
    bias: float = 0.0
    noise: float = 0.3
    memory: float = 0.0
    tails: int = 0
    common: float = 0.0
    symbols: int = 1

    def draw(self, times: int, seed: int) -> dict[str, np.ndarray]:
        """Return forecasts and labels by name, each (times, symbols)."""
        rng = np.random.default_rng(seed)
        shape = (times, self.symbols)

        def normal() -> np.ndarray:
            own, shared = rng.standard_normal(shape), rng.standard_normal((times, 1))
            return np.sqrt(self.common) * shared + np.sqrt(1 - self.common) * own

        x = self.spread * normal()
        log_range = -4.5 + 0.3 * rng.standard_normal(shape)
        error = np.empty(shape)
        before = np.zeros(self.symbols)
        shocks = self.noise * normal()
        if self.tails:
            shocks /= np.sqrt(rng.chisquare(self.tails, size=shape) / self.tails)
        for at in range(times):
            before = self.memory * before + shocks[at]
            error[at] = self.bias + before
        uniform = _cdf(normal())
        up = uniform < 1 / (1 + np.exp(-(self.intercept + self.slope * x)))
        size = np.abs(rng.standard_normal(shape)) * np.exp(log_range)
        return {
            "p_up": 1 / (1 + np.exp(-x)),
            "ret": 0.3 * x * np.exp(log_range),
            "range": log_range,
            "up": up.astype(np.float64),
            "actual": np.where(up, size, -size),
            "label": log_range + error,
        }


def _cdf(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def make_reference(world: World, *, times: int = 8_000, seed: int = 1, horizon: int = 1, **options: Any) -> Reference:
    """Return what a holdout of `times` bars of `world` says."""
    return Reference.parse(make_content(world, times=times, seed=seed, horizon=horizon, **options))


def make_content(
    world: World, *, times: int = 8_000, seed: int = 1, horizon: int = 1, shuffled: bool = False, **change: Any
) -> dict[str, Any]:
    """Return the reference's JSON; `change` replaces columns of forecasts or labels, `shuffled` the order of rows."""
    columns = {name: values.ravel() for name, values in world.draw(times, seed).items()} | change
    matrix = make_matrix(columns, world.symbols, horizon=horizon)
    frame = pd.DataFrame({"row": np.arange(len(matrix))}).assign(**_forecasts(columns))
    if shuffled:
        frame = frame.sample(frac=1.0, random_state=3)
    return build_reference(frame, matrix, train=np.arange(len(matrix)), coverage=0.9)


def make_matrix(columns: dict[str, np.ndarray], symbols: int, *, horizon: int = 1) -> Matrix:
    """Return a matrix with these labels, a bar an hour, whose labels end after `horizon` bars."""
    n = len(columns["up"])
    like = planted(bars=n // symbols, symbols=symbols)
    y: dict[Target, np.ndarray] = {
        "direction": columns["up"],
        "return": columns["actual"],
        "range": columns["label"],
    }
    return replace(like, y=y, label_end=like.timestamp + horizon * np.timedelta64(1, "h"))


def _forecasts(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    wide = np.exp(columns["range"])
    return {
        "p_up": columns["p_up"],
        "ret": columns["ret"],
        "ret_low": columns["ret"] - 1.645 * wide,
        "ret_high": columns["ret"] + 1.645 * wide,
        "range": columns["range"],
        "range_low": columns["range"] - 0.5,
        "range_high": columns["range"] + 0.5,
    }


def batches(world: World, times: int, *, seed: int = 100, first: int = 0) -> Iterator[tuple[Resolved, ...]]:
    """Yield the outcomes of `times` bars, those of one time together, from bar number `first` on."""
    columns = world.draw(times, seed)
    flat = {name: values.ravel() for name, values in columns.items()}
    said = {name: np.exp(values) if name.startswith("range") else values for name, values in _forecasts(flat).items()}
    table = {name: values.reshape(times, -1).tolist() for name, values in said.items()}
    up, actual, label = (columns[name].tolist() for name in ("up", "actual", "label"))
    for at in range(times):
        yield tuple(
            make_resolved(
                (first + at) * world.symbols + i + 1,
                first + at,
                symbol=f"S{i}",
                forecasts={name: values[at][i] for name, values in table.items()},
                labels=(up[at][i], actual[at][i], label[at][i]),
            )
            for i in range(world.symbols)
        )


def make_resolved(
    seq: int,
    bar: int,
    *,
    symbol: str,
    forecasts: dict[str, float],
    labels: tuple[float, float, float],
) -> Resolved:
    """Return one outcome; forecasts as they are logged, labels as `Outcome` has them."""
    time = START + bar * HOUR
    logged = Logged(
        id=str(seq),
        symbol=symbol,
        model="m" * 64,
        arm="champion",
        answered=True,
        parent=None,
        asked_at=time,
        feature_time=time,
        clock="virtual",
        verdict="trade",
        side="long",
        edge=0.0,
        latency=1.0,
        adaptation=None,
        **forecasts,
    )
    known = time + HOUR
    outcome = Outcome(seq, str(seq), "resolved", None, known, *labels, "normal", 0, known)
    return Resolved(logged, outcome)
