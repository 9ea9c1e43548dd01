"""GARCH(1,1): the volatility of the next bar as the returns so far imply it, parameters fitted on the past only.

σ²_{t+1} = ω + α r²_t + β σ²_t for log returns r of mean zero, Bollerslev (1986). ω, α, β are the likeliest on the
`HISTORY` bars before the boundary (`tradeloop.features.refits`), as arch's `ZeroMean` with `GARCH(1, 0, 1)` finds them,
in a thirteenth of its time; from the first of those bars on the recursion runs to the present, starting at their mean
square. A history whose root mean square is at most `STEADY` has no parameters: the volatility is `QUIET`, the rest 0.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change
from tradeloop.features.compiled import compiled
from tradeloop.features.refits import CACHED, HISTORY, LOOKBACK, STEADY, root_mean_square, rounded, segments
from tradeloop.features.registry import feature
from tradeloop.features.volatility import QUIET

STEPS = 200
LEAST = 1e-6
"""Smallest ω, as a share of the mean square."""

LARGEST = 10.0
"""A shock counts for no more standard deviations, and a ratio for no larger log."""


@compiled
def _loss(returns: Floats, omega: float, alpha: float, beta: float) -> float:
    """Return twice the negative log likelihood, but for a constant; infinite outside ω > 0, α, β ≥ 0, α + β < 1."""
    if omega < LEAST or alpha < 0 or beta < 0 or alpha + beta >= 1:
        return np.inf
    variance, loss = 1.0, 0.0
    for value in returns:
        square = value * value
        loss += math.log(variance) + square / variance
        variance = omega + alpha * square + beta * variance
    return loss


@compiled
def _start(returns: Floats) -> Floats:
    """Return the best of a few usual parameters that keep the mean square at 1."""
    best, found = np.inf, np.empty(3)
    for alpha in (0.02, 0.05, 0.1, 0.2):
        for persistence in (0.5, 0.8, 0.95, 0.98):
            loss = _loss(returns, 1 - persistence, alpha, persistence - alpha)
            if loss < best:
                best = loss
                found[0], found[1], found[2] = 1 - persistence, alpha, persistence - alpha
    return found


@compiled
def likeliest(returns: Floats, steps: int) -> Floats:
    """Return ω, α, β that are the likeliest for returns of mean square 1, found by the simplex of Nelder, Mead (1965).

    The recursion starts from a variance of 1.
    """
    corners, losses = np.empty((4, 3)), np.empty(4)
    start = _start(returns)
    for i in range(4):
        corners[i] = start
        if i > 0:
            corners[i, i - 1] *= 0.7
        losses[i] = _loss(returns, corners[i, 0], corners[i, 1], corners[i, 2])
    tried = np.empty((2, 3))
    for _ in range(steps):
        worst, best = 0, 0
        for i in range(4):
            worst = i if losses[i] > losses[worst] else worst
            best = i if losses[i] < losses[best] else best
        second = -np.inf
        for i in range(4):
            second = max(second, losses[i]) if i != worst else second
        # Reflect the worst corner in the others' centre; then further out if that is the best yet, or half the way.
        for d in range(3):
            centre = (corners[0, d] + corners[1, d] + corners[2, d] + corners[3, d] - corners[worst, d]) / 3
            tried[0, d] = centre - corners[worst, d]
            tried[1, d] = centre
        reflected = tried[1] + tried[0]
        loss = _loss(returns, reflected[0], reflected[1], reflected[2])
        step = 2.0 if loss < losses[best] else 0.5 if loss < losses[worst] else -0.5
        other = tried[1] + step * tried[0]
        other_loss = _loss(returns, other[0], other[1], other[2])
        if other_loss < loss and (step == 2.0 or loss >= second) and other_loss < losses[worst]:
            corners[worst], losses[worst] = other, other_loss
        elif loss < second:
            corners[worst], losses[worst] = reflected, loss
        else:
            for i in range(4):
                if i != best:
                    corners[i] = (corners[i] + corners[best]) / 2
                    losses[i] = _loss(returns, corners[i, 0], corners[i, 1], corners[i, 2])
    found: Floats = corners[np.argmin(losses)]
    return found


@lru_cache(maxsize=CACHED)
def _parameters(history: bytes) -> tuple[float, float, float]:
    omega, alpha, beta = likeliest(np.frombuffer(history), STEPS)
    return float(omega), float(alpha), float(beta)


@compiled
def _run(returns: Floats, scale: float, parameters: tuple[float, float, float], first: int) -> Floats:
    """Return the columns as rows for the returns from number `first` on; the recursion begins at number 0."""
    omega, alpha, beta = parameters
    usual = omega / (1 - alpha - beta)
    result = np.empty((3, len(returns) - first))
    variance = 1.0
    for i in range(len(returns)):
        value = returns[i] / scale
        after = omega + alpha * value * value + beta * variance
        if i >= first:
            result[0, i - first] = max(0.5 * math.log(after) + math.log(scale), math.log(QUIET))
            result[1, i - first] = min(max(value / math.sqrt(variance), -LARGEST), LARGEST)
            result[2, i - first] = min(max(0.5 * math.log(after / usual), -LARGEST), LARGEST)
        variance = after
    return result


@feature(lookback=LOOKBACK, columns=("garch_log_volatility", "garch_shock", "garch_log_ratio"))
def garch(bars: Bars) -> tuple[Floats, ...]:
    """GARCH(1,1) with parameters fitted before the boundary, Bollerslev (1986); refitted every 66 bars on average.

    garch_log_volatility: ln σ_{t+1}, one step ahead; garch_shock: r_t / σ_t, within ±10; garch_log_ratio: ln of σ_{t+1}
    over the long-run volatility √(ω / (1 − α − β)), within ±10. ln 1e-5, 0, 0 where the history did not move.
    """
    changes = change(bars)
    columns = np.full((3, len(bars)), np.nan)
    for boundary, first, stop in segments(bars):
        begin = boundary - HISTORY
        history = changes[begin:boundary]
        scale = root_mean_square(history)
        if scale <= STEADY:
            columns[:, first:stop] = [[math.log(QUIET)], [0.0], [0.0]]
        else:
            parameters = _parameters(rounded(history / scale).tobytes())
            columns[:, first:stop] = _run(changes[begin:stop], scale, parameters, first - begin)
    return tuple(columns)
