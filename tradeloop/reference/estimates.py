"""Estimates that the reference is made of: logistic lines, autoregressions, and how far dependent outcomes count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.ensemble import sigmoid

MEMORY = 12
"""Values that an autoregression may look back on."""
_PRIOR = 1.0 / 25.0  # precision of slope and intercept, see `fit_line`
_STEPS = 50

Index = NDArray[np.intp]


def fit_line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return intercept and slope (2,) of the logistic regression of y (n,), 0 or 1, on x (n,), and their covariance.

    A priori both are 0 ± 5, so that separable labels, and no rows at all, have an answer too.
    """
    columns = np.column_stack([np.ones(len(x)), x])
    found: Floats = np.zeros(2)
    for _ in range(_STEPS):
        p = sigmoid(columns @ found)
        information = (columns * (p * (1 - p))[:, None]).T @ columns + _PRIOR * np.eye(2)
        step = np.linalg.solve(information, columns.T @ (y - p) - _PRIOR * found)
        # Newton's step can overshoot where p is near 0 or 1: no row moves by more than two units of log odds.
        found = found + step / max(1.0, float(np.abs(columns @ step).max(initial=0.0)) / 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    p = sigmoid(columns @ found)
    inverse = np.asarray(
        np.linalg.inv((columns * (p * (1 - p))[:, None]).T @ columns + _PRIOR * np.eye(2)), dtype=np.float64
    )
    return found, inverse


def likelihood(line: Floats, x: Floats, y: Floats) -> float:
    """Return the log likelihood of y (n,), 0 or 1, under intercept and slope (2,) on x (n,)."""
    margin = line[0] + line[1] * x
    return float((y * margin - np.logaddexp(0.0, margin)).sum())


def lagged(values: Floats, symbol: Index) -> Floats:
    """Return each value and the `MEMORY` before it of its symbol (n, 1 + MEMORY), newest first, 0 where none is."""
    columns = np.zeros((len(values), 1 + MEMORY))
    for number in range(int(symbol.max()) + 1):
        at = np.flatnonzero(symbol == number)
        for lag in range(min(1 + MEMORY, len(at))):
            columns[at[lag:], lag] = values[at[: len(at) - lag]]
    return columns


def autoregression(columns: Floats) -> Floats:
    """Return the coefficients by least squares on the columns of `lagged`, of the order with the least BIC."""
    gram = columns.T @ columns
    n = len(columns)
    best = np.inf
    chosen: Floats = np.zeros(0)
    for order in range(MEMORY + 1):
        part = slice(1, order + 1)
        coefficients = np.linalg.lstsq(gram[part, part], gram[part, 0], rcond=None)[0]
        left = float(gram[0, 0] - coefficients @ gram[part, 0])
        criterion = n * np.log(max(left, 1e-300) / n) + order * np.log(n)
        if criterion < best:
            best, chosen = criterion, np.asarray(coefficients, dtype=np.float64)
    return chosen


def clustered_effect(score: Floats, time: Index, lags: int, *, tapered: bool = False) -> float:
    """Return long-run variance of the scores' sum over the variance of independent ones, at least 1.

    Scores are summed over the symbols of one time, and the autocovariances of these sums up to `lags` times are added:
    all in full where labels overlap by that much; `tapered` counts the farther half of them less and less, where
    dependence fades out (the trapezoid of Politis and Romano 1995).
    """
    sums = np.bincount(time, weights=score)
    total = float(sums @ sums)
    for lag in range(1, min(lags, len(sums) - 1) + 1):
        weight = min(1.0, 2.0 - 2.0 * lag / (lags + 1.0)) if tapered else 1.0
        total += 2.0 * weight * float(sums[lag:] @ sums[:-lag])
    return max(ratio(total, float(score @ score), otherwise=1.0), 1.0)


def correlation(score: Floats, time: Index) -> float:
    """Return the correlation of the scores of two symbols at one time, on average; 0 with one symbol."""
    apart = score - score.mean() if len(score) else score
    sums, counts = np.bincount(time, weights=apart), np.bincount(time)
    pairs = float((counts * (counts - 1)).sum())
    own = float(apart @ apart)
    return ratio(float(sums @ sums) - own, pairs * own / max(len(apart), 1))


def ratio(above: float, below: float, *, otherwise: float = 0.0) -> float:
    """Return ``above / below``, `otherwise` where nothing is below."""
    return above / below if below > 0 else otherwise
