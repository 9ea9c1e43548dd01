"""Intervals for scores on time series: the stationary bootstrap of Politis and Romano (1994) over timestamps.

Blocks are runs of whole timestamps, of geometric length with a given mean, wrapped around the end: neighbouring bars
stay together because volatility clusters, and so do all symbols of one timestamp because they move together. The
interval is the percentile interval. Two forecasts are compared on the same draws (paired), which removes what they
share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tradeloop.metrics.base import Floats, Metric, columns, scorable

_CELLS = 1_000_000  # of a weight matrix at a time: 8 MB, so that it stays near the cache
_MAX_UNDEFINED = 0.01


@dataclass(frozen=True)
class Interval:
    """A score with its percentile interval; all three NaN where the score is not defined."""

    value: float
    low: float
    high: float

    def excludes(self, reference: float) -> bool:
        """Return whether `reference` lies outside the interval; an undefined interval excludes nothing."""
        return self.low > reference or self.high < reference

    def as_dict(self) -> dict[str, float | None]:
        """Return value, low and high for JSON, where NaN is written as null."""
        return {name: (value if np.isfinite(value) else None) for name, value in asdict(self).items()}


_UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def stationary_index(length: int, *, block: float, count: int, seed: int) -> NDArray[np.int32]:
    """Return `count` resamples (count, length) of the positions 0..length-1, in blocks of mean length `block`."""
    if length < 1 or count < 1 or block < 1:
        raise ValueError(f"length, count and block must be ≥ 1, got {length}, {count} and {block}")
    rng = np.random.default_rng(seed)
    steps = np.arange(length)
    index = np.empty((count, length), dtype=np.int32)
    for rows in _chunks(count, length):
        fresh = rng.random(index[rows].shape) < 1.0 / block
        fresh[:, 0] = True
        start = rng.integers(0, length, fresh.shape)
        opened = np.maximum.accumulate(np.where(fresh, steps, 0), axis=1)
        index[rows] = (np.take_along_axis(start, opened, axis=1) + steps - opened) % length
    return index


def _chunks(count: int, width: int) -> Iterator[slice]:
    """Yield the rows of a (count, width) matrix in parts of bounded size."""
    size = max(1, _CELLS // width)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass(frozen=True)
class Score:
    """A score, its replicates (B,) on the resamples, and the levels of its interval's ends.

    The difference of two scores of one `Bootstrap` is a paired one: replicate by replicate.
    """

    value: float
    replicates: Floats
    tails: tuple[float, float]

    def __sub__(self, other: Score) -> Score:
        return Score(self.value - other.value, self.replicates - other.replicates, self.tails)

    def gain(self, other: Score, *, power: int = 1) -> Score:
        """Return the share by which this loss is lower than the other, ``1 − (ours / theirs)^power``, paired."""

        def share(ours: Any, theirs: Any) -> Any:
            with np.errstate(divide="ignore", invalid="ignore"):
                return 1.0 - np.divide(ours, theirs) ** power

        return Score(float(share(self.value, other.value)), share(self.replicates, other.replicates), self.tails)

    @property
    def interval(self) -> Interval:
        """The score with its percentile interval.

        Resamples on which the score is undefined are left out; if they are more than 1 in 100, all is NaN.
        """
        defined = self.replicates[np.isfinite(self.replicates)]
        if not np.isfinite(self.value) or len(defined) < (1 - _MAX_UNDEFINED) * len(self.replicates):
            return _UNDEFINED
        low, high = np.quantile(defined, self.tails)
        return Interval(self.value, float(low), float(high))


class Bootstrap:
    """Seeded resamples of the timestamps of one sample, shared by all scores on it so that they can be compared.

    Parameters
    ----------
    timestamp
        Time of each row (n,), in any order; equal times are drawn together.
    block
        Mean block length in timestamps.
    count
        Number of resamples.
    confidence
        Level of the two-sided percentile intervals.
    """

    def __init__(self, timestamp: ArrayLike, *, block: float, count: int, confidence: float, seed: int) -> None:
        times, self._group = np.unique(np.asarray(timestamp), return_inverse=True)
        self._tails = ((1.0 - confidence) / 2, (1.0 + confidence) / 2)
        self._index = stationary_index(len(times), block=block, count=count, seed=seed)

    @property
    def length(self) -> int:
        """Number of distinct timestamps."""
        return int(self._index.shape[1])

    def score(self, metric: Metric, *arrays: ArrayLike, **options: float) -> Score:
        """Return the score of the arrays: one value a row, or one a timestamp in order if the metric takes returns."""
        value, replicates = metric(*arrays, **options), self.replicates(metric, *arrays, **options)
        if metric.resamples_high:
            replicates = np.maximum(replicates - (replicates.mean() - value), 0.0)
        return Score(value, replicates, self._tails)

    def interval(self, metric: Metric, *arrays: ArrayLike, **options: float) -> Interval:
        """Return the score with its interval; see `Score.interval`."""
        return self.score(metric, *arrays, **options).interval

    def replicates(self, metric: Metric, *arrays: ArrayLike, **options: float) -> Floats:
        """Return the score of every resample (count,)."""
        samples = columns(*arrays)
        expected = self.length if metric.kind == "returns" else len(self._group)
        if len(samples[0]) != expected:
            raise ValueError(f"{metric.name} needs arrays of length {expected}, got {len(samples[0])}")
        if not scorable(*samples):
            return np.full(len(self._index), np.nan)
        parts = [
            metric.replicates(samples, index=self._index[rows], weights=self._weights(metric, rows), **options)
            for rows in _chunks(len(self._index), len(self._group))
        ]
        return np.concatenate(parts)

    def _weights(self, metric: Metric, rows: slice) -> Floats | None:
        """Return how often each row was drawn (B, n), float64; a series' metric needs the order instead."""
        if metric.kind == "returns":
            return None
        return self._counts[rows][:, self._group].astype(np.float64)

    @cached_property
    def _counts(self) -> NDArray[np.uint16]:
        """How often each timestamp was drawn, (count, T); no block repeats one 65,536 times."""
        counts = np.empty(self._index.shape, dtype=np.uint16)
        for rows in _chunks(*self._index.shape):
            drawn = self._index[rows]
            cells = drawn.shape[0] * self.length
            offset = np.arange(0, cells, self.length)[:, None]
            counts[rows] = np.bincount((drawn + offset).ravel(), minlength=cells).reshape(drawn.shape)
        return counts
