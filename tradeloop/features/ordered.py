"""Rolling order statistics: extremes, ranks and quantiles of the last `window` bars.

They select and count, so they are the same on any slice that holds the window. Conventions as in
`tradeloop.features.rolling`: the first ``window - 1`` values are NaN, a NaN spoils only windows that hold it.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Floats
from tradeloop.features.compiled import compiled


@compiled
def _extreme(values: Floats, window: int, sign: float, oldest: bool) -> tuple[Floats, Floats]:
    """Return the largest of ``sign × values``, with its own sign again, and the age in bars of the newest such.

    With `oldest` it is the age of the oldest such.
    """
    size = len(values)
    found, age = np.full(size, np.nan), np.full(size, np.nan)
    best, best_at, unknown_at = -np.inf, -1, -1
    for i in range(size):
        value = sign * values[i]
        if np.isnan(value):
            unknown_at = i
        elif value > best or best_at < 0 or (value == best and not oldest):
            best, best_at = value, i
        first = i - window + 1
        if first < 0:
            continue
        if best_at < first:
            best, best_at = -np.inf, -1
            for j in range(first, i + 1):
                other = sign * values[j]
                if not np.isnan(other) and (other > best or best_at < 0 or (other == best and not oldest)):
                    best, best_at = other, j
        if unknown_at < first:
            found[i], age[i] = sign * best, i - best_at
    return found, age


def maximum(values: Floats, window: int) -> Floats:
    """Largest of the last `window` values."""
    return _extreme(values, window, 1.0, False)[0]


def minimum(values: Floats, window: int) -> Floats:
    """Smallest of the last `window` values."""
    return _extreme(values, window, -1.0, False)[0]


def age_of_maximum(values: Floats, window: int, *, oldest: bool = False) -> Floats:
    """Bars since the newest (or `oldest`) largest value: 0 if the newest bar is it, at most ``window - 1``."""
    return _extreme(values, window, 1.0, oldest)[1]


def age_of_minimum(values: Floats, window: int, *, oldest: bool = False) -> Floats:
    """Bars since the newest (or `oldest`) smallest value: 0 if the newest bar is it, at most ``window - 1``."""
    return _extreme(values, window, -1.0, oldest)[1]


@compiled
def _place(ordered: Floats, count: int, value: float) -> int:
    """Return how many of the first `count` values are below `value`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def order(values: Floats, window: int, low: float, high: float) -> tuple[Floats, Floats, Floats]:
    """Quantiles at `low` and `high` (interpolated linearly), and the newest value's rank in (0, 1], ties averaged."""
    size = len(values)
    result = np.full((3, size), np.nan)
    ordered, held, unknown = np.empty(window + 1), 0, 0
    for i in range(size):
        if i >= window:
            left = values[i - window]
            if np.isnan(left):
                unknown -= 1
            else:
                held -= 1
                for j in range(_place(ordered, held + 1, left), held):
                    ordered[j] = ordered[j + 1]
        value = values[i]
        if np.isnan(value):
            unknown += 1
            continue
        at = _place(ordered, held, value)
        for j in range(held, at, -1):
            ordered[j] = ordered[j - 1]
        ordered[at] = value
        held += 1
        if i < window - 1 or unknown:
            continue
        equal = 1
        while at + equal < held and ordered[at + equal] == value:
            equal += 1
        for row, share in ((0, low), (1, high)):
            position = share * (window - 1)
            below = min(int(position), window - 2) if window > 1 else 0
            above = min(below + 1, window - 1)
            result[row, i] = ordered[below] + (ordered[above] - ordered[below]) * (position - below)
        result[2, i] = (at + (equal + 1) / 2) / window
    return result[0], result[1], result[2]


def quantile(values: Floats, window: int, share: float) -> Floats:
    """Quantile at `share` of the last `window` values, interpolated linearly."""
    return order(values, window, share, share)[0]


def rank(values: Floats, window: int) -> Floats:
    """Rank of the newest value among the last `window`, in (0, 1]; the average rank where values are equal."""
    return order(values, window, 0.5, 0.5)[2]
