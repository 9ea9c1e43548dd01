"""Regime: what kind of market this is, judged by its own past.

Volatility's regime is a rank among the past; the market's is read from trend strength, range and momentum; the hidden
Markov model's are probabilities given the returns and ranges so far, **filtered**: never smoothed by later bars, and
fitted on bars before a boundary only (`tradeloop.features.refits`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, parkinson_variance, spread, true_range
from tradeloop.features.compiled import compiled
from tradeloop.features.gaussian_hmm import STATES, Model, filtered, fit
from tradeloop.features.oscillators import rsi
from tradeloop.features.refits import CACHED, HISTORY, LOOKBACK, STEADY, rounded, segments
from tradeloop.features.registry import feature
from tradeloop.features.rolling import lag, mean, memory
from tradeloop.features.timeframes import Integers
from tradeloop.features.trend import adx
from tradeloop.features.volatility import QUIET, log_volatility_of

WINDOW = 20
RANKED = 250
LONGEST = 24
"""Bars to which a regime's age is counted."""

SAME = 1e-9
"""Log volatilities this close are the same: what is left is rounding."""

LOW, HIGH, EXTREME = 0.25, 0.75, 0.95

WILDER = 1 / 14
RISING, TRENDING = 0.2, 0.25
SPEED = 0.1
EXPANDED = math.log(1.25)

FAR = 8.0
"""An observation counts for no more standard deviations of the history."""


@compiled
def _age(labels: Integers, first: int) -> Floats:
    """Return for how many bars the label has been what it is, over `LONGEST`, from bar `first` on."""
    result = np.full(len(labels), np.nan)
    for i in range(first, len(labels)):
        age = 1
        while age < LONGEST and labels[i - age] == labels[i]:
            age += 1
        result[i] = age / LONGEST
    return result


@compiled
def _standing(volatility: Floats, first: int) -> tuple[Floats, Integers]:
    """Return the rank among the last `RANKED` in (0, 1], equal ones by half, and its level 0 to 3, from `first` on."""
    ranks, levels = np.full(len(volatility), np.nan), np.zeros(len(volatility), np.int64)
    for i in range(first, len(volatility)):
        below = 0.5
        for j in range(i - RANKED + 1, i):
            if volatility[j] < volatility[i] - SAME:
                below += 1.0
            elif volatility[j] <= volatility[i] + SAME:
                below += 0.5
        ranks[i] = below / RANKED
        levels[i] = int(ranks[i] >= LOW) + int(ranks[i] >= HIGH) + int(ranks[i] >= EXTREME)
    return ranks, levels


@feature(
    lookback=WINDOW + RANKED - 1 + LONGEST - 1, columns=("volatility_rank", "volatility_level", "volatility_level_age")
)
def volatility_regime(bars: Bars) -> tuple[Floats, Floats, Floats]:
    """Regime of the 20-bar Parkinson volatility among its last 250 values, itself included.

    volatility_rank in (0, 1), equal values by half; volatility_level: 0 low, 1/3 normal from rank 0.25, 2/3 high from
    0.75, 1 extreme from 0.95; volatility_level_age: bars in this level over 24, at most 1.
    """
    volatility = log_volatility_of(mean(parkinson_variance(bars), WINDOW))
    ranks, levels = _standing(volatility, WINDOW + RANKED - 2)
    return ranks, levels / 3, _age(levels, WINDOW + RANKED + LONGEST - 3)


@compiled
def _market(strength: Floats, speed: Floats, expansion: Floats) -> tuple[Floats, Floats, Integers]:
    """Return whether each bar is trending, whether volatile, and both in one label."""
    size = len(strength)
    trending, volatile, labels = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size, np.int64)
    for i in range(size):
        if not np.isnan(strength[i] + speed[i] + expansion[i]):
            wide = expansion[i] >= EXPANDED
            steep = strength[i] >= TRENDING or (strength[i] >= RISING and abs(speed[i]) >= SPEED)
            volatile[i], trending[i] = 1.0 if wide else 0.0, 1.0 if steep and not wide else 0.0
            labels[i] = int(volatile[i] + 2 * trending[i])
    return trending, volatile, labels


@feature(
    lookback=2 * memory(WILDER) + LONGEST - 1,
    columns=("rsi_slope_10", "range_expansion_14_100", "market_trending", "market_volatile", "market_age"),
)
def market_regime(bars: Bars) -> tuple[Floats, ...]:
    """Trending, ranging or volatile, from ADX, the ratio of true ranges and the slope of RSI.

    rsi_slope_10: RSI_14 less that of 10 bars ago; range_expansion_14_100: ln of the mean true range of log prices over
    14 bars over that of 100. market_volatile: 1 if the expansion is at least ln 1.25; else market_trending: 1 if ADX_14
    is at least 0.25, or 0.2 while RSI has moved by 0.1; both 0: ranging. market_age: bars in this regime over 24, at
    most 1.
    """
    strength, momentum, ranges = adx(bars)[0], rsi(bars, 14), true_range(bars)
    speed = momentum - lag(momentum, 10)
    expansion = np.log(np.maximum(mean(ranges, 14), QUIET) / np.maximum(mean(ranges, 100), QUIET))
    trending, volatile, labels = _market(strength, speed, expansion)
    return speed, expansion, trending, volatile, _age(labels, 2 * memory(WILDER) + LONGEST - 2)


@lru_cache(maxsize=CACHED)
def _model(history: bytes) -> Model:
    return fit(np.frombuffer(history).reshape(-1, 2))


@compiled
def _standardised(change: Floats, log_range: Floats, history: int) -> Floats:
    """Return both, (n, 2), less their mean and over their deviation among the first `history`; empty if steady."""
    result = np.empty((len(change), 2))
    for column, values, least in ((0, change, STEADY), (1, log_range, 1e-6)):
        average, squares = 0.0, 0.0
        for i in range(history):
            average += values[i] / history
        for i in range(history):
            squares += (values[i] - average) ** 2
        deviation = math.sqrt(squares / history)
        if deviation <= least:
            if column == 0:
                return result[:0]
            deviation = 1.0
        for i in range(len(values)):
            result[i, column] = min(max((values[i] - average) / deviation, -FAR), FAR)
    return result


@compiled
def _read(now: Floats, transition: Floats, means: Floats, first: int) -> Floats:
    """Return the columns as rows from the probabilities of each state, (n, k), for the bars from number `first` on."""
    states = len(means)
    result = np.zeros((4, len(now) - first))
    for i in range(first, len(now)):
        result[0, i - first], result[1, i - first] = now[i, 0], now[i, states - 1]
        for j in range(states):
            result[2, i - first] += now[i, j] * (1 - transition[j, j])
            for k in range(states):
                result[3, i - first] += now[i, j] * transition[j, k] * means[k, 0]
    return result


@feature(lookback=LOOKBACK, columns=("hmm_calm", "hmm_turbulent", "hmm_switch", "hmm_drift"))
def hidden_regime(bars: Bars) -> tuple[Floats, ...]:
    """Probabilities, filtered, of a 3-state Gaussian hidden Markov model on log returns and log ranges.

    Fitted on the 250 bars before the boundary, states by the variance of returns: hmm_calm, hmm_turbulent: P(lowest),
    P(highest | bars so far); hmm_switch: P(another state at the next bar); hmm_drift: expected return of the next bar,
    in standard deviations of the history. 1/3, 1/3, 0, 0 where the history did not move. Rabiner (1989).
    """
    changes, log_range = change(bars), np.log(np.maximum(spread(bars), QUIET))
    columns = np.full((4, len(bars)), np.nan)
    for boundary, first, stop in segments(bars):
        begin = boundary - HISTORY
        observations = _standardised(changes[begin:stop], log_range[begin:stop], HISTORY)
        if not len(observations):
            columns[:, first:stop] = [[1 / STATES], [1 / STATES], [0.0], [0.0]]
            continue
        model = _model(rounded(observations[:HISTORY]).tobytes())
        columns[:, first:stop] = _read(filtered(observations, model), *model[1:3], first - begin)
    return tuple(columns)
