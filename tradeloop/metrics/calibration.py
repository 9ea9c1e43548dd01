"""Calibration: does a probability mean what it says, and does an interval hold what it promises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tradeloop.metrics.base import Floats, columns, mean, metric

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Mean forecast and observed frequency in each bin, lowest forecasts first; arrays (bins,)."""

    mean_p: Floats
    frequency: Floats
    count: NDArray[np.intp]


def _bin_of(p_up: Floats) -> NDArray[np.intp]:
    """Return each row's bin: bins of equal count, since market probabilities crowd around one half."""
    edges = np.unique(np.quantile(p_up, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, p_up, side="right")


@metric("classification", "lower", reference=0.0, resamples_high=True)
def ece(label: Floats, p_up: Floats, *, weights: Floats) -> Floats:
    """Mean distance of forecast from frequency over ten bins of equal count (expected calibration error).

    The reference 0 is out of reach on a finite sample: a perfect forecast of n rows scores about
    ``0.4 · sqrt(10 / n)`` by chance alone (.025 at 2,600 rows).
    """
    member = np.eye(BINS)[_bin_of(p_up)]
    gap = np.abs(weights @ (member * (label - p_up)[:, None]))
    return np.asarray(gap.sum(axis=1) / weights.sum(axis=1))


@metric("interval", "nominal")
def coverage(actual: Floats, low: Floats, high: Floats, *, weights: Floats) -> Floats:
    """Share of outcomes inside their interval, both ends included."""
    return mean(((low <= actual) & (actual <= high)).astype(np.float64), weights)


@metric("interval", "lower")
def width(actual: Floats, low: Floats, high: Floats, *, weights: Floats) -> Floats:
    """Mean width of the intervals, in the target's unit."""
    del actual
    return mean(high - low, weights)


@metric("interval", "lower")
def interval_score(actual: Floats, low: Floats, high: Floats, *, weights: Floats, level: float) -> Floats:
    """Mean width plus ``2 / (1 − level)`` times the miss, `level` nominal (Gneiting and Raftery 2007, section 6.2)."""
    miss = np.maximum(low - actual, 0) + np.maximum(actual - high, 0)
    return mean(high - low + 2.0 / (1.0 - level) * miss, weights)


@metric("regression", "lower")
def pinball(actual: Floats, forecast: Floats, *, weights: Floats, level: float) -> Floats:
    """Pinball loss of a forecast of quantile `level`: ``max(level · e, (level − 1) · e)``, e = actual − forecast."""
    error = actual - forecast
    return mean(np.maximum(level * error, (level - 1.0) * error), weights)


def reliability(label: ArrayLike, p_up: ArrayLike) -> Reliability:
    """Return the reliability diagram of label (n,) and p_up (n,) over the bins of `ece`; empty bins are left out."""
    y, p = columns(label, p_up)
    member = _bin_of(p)
    count = np.bincount(member, minlength=BINS)
    kept = count > 0
    sums_p, sums_y = (np.bincount(member, weights=values, minlength=BINS)[kept] for values in (p, y))
    return Reliability(sums_p / count[kept], sums_y / count[kept], count[kept])
