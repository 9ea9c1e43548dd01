"""What a metric is: one function that scores a sample and, by weights, a thousand resamples of it at once.

The same code gives the point value (every row weighs 1) and the replicates of a bootstrap (a row weighs as often as
it was drawn), so an interval can never belong to another definition than the value that it surrounds.

NaN policy, for all metrics: a value that is not finite anywhere in the input gives NaN, an empty sample gives NaN,
and a score that is not defined on the sample (AUC with one class only) gives NaN. Nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Kind = Literal["classification", "regression", "interval", "returns"]
Better = Literal["higher", "lower", "nominal"]

METRICS: dict[str, Metric] = {}


@dataclass(frozen=True)
class Metric:
    """A named score.

    Attributes
    ----------
    kind
        Which arrays it takes: ``classification`` (label 0/1, p_up), ``regression`` (actual, forecast),
        ``interval`` (actual, low, high) or ``returns`` (one value a timestamp, in order of time).
    better
        ``higher``, ``lower``, or ``nominal`` where a stated level is to be met (coverage).
    reference
        What a forecast without skill scores, where such a value exists.
    function
        ``returns``: takes series (B, T) and gives (B,). Others: take arrays (n,) and ``weights`` (B, n), give (B,).
    resamples_high
        Whether resamples score higher than the sample does, because the score counts noise and resampling adds noise.
        Replicates are then moved down to the sample's own score, and not below zero.
    """

    name: str
    kind: Kind
    better: Better
    reference: float | None
    function: Callable[..., Floats]
    __doc__: str
    resamples_high: bool = False

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher value is a better one."""
        return self.better == "higher"

    def __call__(self, *arrays: ArrayLike, **options: float) -> float:
        """Return the score of one sample (see the module's NaN policy); raise ValueError if lengths differ."""
        samples = columns(*arrays)
        if not scorable(*samples):
            return float("nan")
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "returns":
                return float(self.function(*(series[None] for series in samples), **options)[0])
            return float(self.function(*samples, weights=np.ones((1, len(samples[0]))), **options)[0])

    def replicates(self, samples: tuple[Floats, ...], *, index: Any, weights: Any, **options: float) -> Floats:
        """Return the scores (B,) of resamples given as drawn positions (B, T) or, for rows, as weights (B, n)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "returns":
                return self.function(*(series[index] for series in samples), **options)
            return self.function(*samples, weights=weights, **options)


def metric(
    kind: Kind, better: Better, *, reference: float | None = None, resamples_high: bool = False
) -> Callable[[Callable[..., Floats]], Metric]:
    """Register the decorated function under its own name; see `Metric` for what the function takes."""

    def register(function: Callable[..., Floats]) -> Metric:
        if function.__name__ in METRICS:
            raise ValueError(f"a metric named {function.__name__!r} is registered already")
        made = Metric(function.__name__, kind, better, reference, function, function.__doc__ or "", resamples_high)
        METRICS[made.name] = made
        return made

    return register


def columns(*arrays: ArrayLike) -> tuple[Floats, ...]:
    """Return the arrays as float64 (n,); raise ValueError unless they are flat and of one length."""
    samples = tuple(np.asarray(array, dtype=np.float64) for array in arrays)
    shapes = sorted({sample.shape for sample in samples})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise ValueError(f"a metric needs flat arrays of one length, got the shapes {shapes}")
    return samples


def scorable(*samples: Floats) -> bool:
    """Return whether there is a sample, and every value of it is finite."""
    return len(samples[0]) > 0 and all(bool(np.isfinite(sample).all()) for sample in samples)


def mean(values: Floats, weights: Floats) -> Floats:
    """Return the weighted means (B,) of values (n,) or (B, n) under weights (B, n)."""
    total = weights.sum(axis=1)
    if values.ndim == 1:
        return np.asarray(weights @ values / total)
    return np.asarray(np.einsum("bn,bn->b", weights, values) / total)


@dataclass(frozen=True)
class Ranking:
    """An ordering of values with ties grouped, made once and used for every resample."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    group: NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats) -> Ranking:
        """Sort values (n,); equal values share a group."""
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        group = np.empty(len(values), dtype=np.intp)
        group[order] = np.cumsum(fresh) - 1
        return cls(order, np.flatnonzero(fresh), group)

    def sums(self, weights: Floats) -> Floats:
        """Return the weight of each tie group (B, groups), lowest value first, of weights (B, n)."""
        ordered = weights[:, self.order]
        if len(self.starts) == len(self.order):
            return np.asarray(ordered)
        return np.asarray(np.add.reduceat(ordered, self.starts, axis=1))

    def midranks(self, weights: Floats) -> Floats:
        """Return every row's midrank (B, n) in the sample where each row stands as often as it weighs."""
        within = self.sums(weights)
        return np.asarray((np.cumsum(within, axis=1) - within / 2)[:, self.group])
