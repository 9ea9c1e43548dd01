"""A hidden Markov model with Gaussian emissions: fitted by expectation maximisation, read by its forward filter.

Source: Rabiner (1989), A tutorial on hidden Markov models. The fit equals hmmlearn's `GaussianHMM` of diagonal
covariances (with its prior of 0.01 on their sums of squares) from the same start, and takes a twentieth of its time.
The filter gives P(state now | observations until now); the smoother, which the fit has inside, never leaves it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tradeloop.bars import Floats
from tradeloop.features.compiled import compiled

STATES = 3
ROUNDS = 25
"""Rounds of expectation maximisation: a number, not a tolerance, so that no fit stops short of another."""

LEAST = 0.01
"""Added to each sum of squares: the prior that keeps a state from collapsing on one value."""

NEVER = 1e-12
"""Least probability of a transition, and"""

UNLIKELY = 1e-100
"""least density of a state as a share of the likeliest one's: nothing observed is impossible in all states at once."""


class Model(NamedTuple):
    """Parameters: `start` (k,), `transition` (k, k) from row to column, `means` and `variances` (k, d)."""

    start: Floats
    transition: Floats
    means: Floats
    variances: Floats


def prior() -> Model:
    """Return where the fit starts: calm, usual and turbulent, for standardised returns and log ranges."""
    return Model(
        np.full(STATES, 1 / STATES),
        np.full((STATES, STATES), 0.05) + 0.85 * np.eye(STATES),
        np.array([[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]]),
        np.array([[0.3, 0.5], [0.8, 0.5], [2.0, 0.5]]),
    )


def fit(observations: Floats) -> Model:
    """Return the model after `ROUNDS` from the prior on observations (n, d), states by the first variance, rising."""
    model = Model(*_fit(np.ascontiguousarray(observations), *prior(), ROUNDS))
    by = np.argsort(model.variances[:, 0], kind="stable")
    return Model(model.start[by], model.transition[np.ix_(by, by)], model.means[by], model.variances[by])


def filtered(observations: Floats, model: Model) -> Floats:
    """Return P(state | observations until then), (n, k)."""
    return _forward(_densities(observations, model.means, model.variances), model.start, model.transition)[0]


@compiled
def _densities(observations: Floats, means: Floats, variances: Floats) -> Floats:
    """Return each state's density, as a share of the likeliest state's, (n, k)."""
    size, states = len(observations), len(means)
    result, width, narrow = np.empty((size, states)), np.zeros(states), np.empty(variances.shape)
    for k in range(states):
        for d in range(observations.shape[1]):
            width[k] += 0.5 * np.log(variances[k, d])
            narrow[k, d] = 0.5 / variances[k, d]
    for t in range(size):
        highest = -np.inf
        for k in range(states):
            log = -width[k]
            for d in range(observations.shape[1]):
                offset = observations[t, d] - means[k, d]
                log -= offset * offset * narrow[k, d]
            result[t, k] = log
            highest = max(highest, log)
        for k in range(states):
            result[t, k] = max(np.exp(result[t, k] - highest), UNLIKELY)
    return result


@compiled
def _forward(densities: Floats, start: Floats, transition: Floats) -> tuple[Floats, Floats]:
    """Return the filtered probabilities (n, k), and the sums by which they were normalised."""
    size, states = densities.shape
    result, sums = np.empty((size, states)), np.empty(size)
    for t in range(size):
        whole = 0.0
        for k in range(states):
            expected = start[k]
            if t > 0:
                expected = 0.0
                for j in range(states):
                    expected += result[t - 1, j] * transition[j, k]
            result[t, k] = expected * densities[t, k]
            whole += result[t, k]
        for k in range(states):
            result[t, k] = result[t, k] / whole
        sums[t] = whole
    return result, sums


@compiled
def _round(observations: Floats, start: Floats, transition: Floats, means: Floats, variances: Floats) -> None:
    """Improve the parameters in place by one round: expected occupancies, forward and backward, then their means."""
    size, states = len(observations), len(means)
    densities = _densities(observations, means, variances)
    forward, sums = _forward(densities, start, transition)
    moves, occupied = np.zeros((states, states)), forward.copy()
    backward, weighted = np.ones(states), np.empty(states)
    for t in range(size - 1, 0, -1):
        for k in range(states):
            weighted[k] = densities[t, k] * backward[k] / sums[t]
        for j in range(states):
            backward[j] = 0.0
            for k in range(states):
                share = transition[j, k] * weighted[k]
                backward[j] += share
                moves[j, k] += forward[t - 1, j] * share
            occupied[t - 1, j] = forward[t - 1, j] * backward[j]
    for k in range(states):
        start[k] = occupied[0, k]
        weight, left = 0.0, 0.0
        for t in range(size):
            weight += occupied[t, k]
        for j in range(states):
            left += moves[k, j]
        for j in range(states):
            transition[k, j] = max(moves[k, j] / left, NEVER) if left > 0 else transition[k, j]
        for d in range(observations.shape[1] if weight > 0 else 0):
            total, squares = 0.0, LEAST
            for t in range(size):
                total += occupied[t, k] * observations[t, d]
            means[k, d] = total / weight
            for t in range(size):
                squares += occupied[t, k] * (observations[t, d] - means[k, d]) ** 2
            variances[k, d] = squares / weight


@compiled
def _fit(
    observations: Floats, start: Floats, transition: Floats, means: Floats, variances: Floats, rounds: int
) -> tuple[Floats, Floats, Floats, Floats]:
    for _ in range(rounds):
        _round(observations, start, transition, means, variances)
    return start, transition, means, variances
