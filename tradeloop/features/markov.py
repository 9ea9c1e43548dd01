"""Markov: what followed, in the recent past, on bars like this one.

A bar's state is its direction (up or not) and the tercile of its log range, six in all; the terciles are those of the
window itself, so that no bar of the future has a say. Transitions from the newest bar's state are counted over the
window, and one is added to each count (Laplace), so that a state never seen before is a uniform guess.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, spread
from tradeloop.features.compiled import compiled
from tradeloop.features.ordered import order
from tradeloop.features.registry import feature
from tradeloop.features.rolling import STILL

STATES = 6
SAME = 1e-9
"""A log range that is above a tercile by less than this is not above it: that much is rounding."""


@compiled
def _counts(changes: Floats, ranges: Floats, low: float, high: float, first: int, last: int) -> Floats:
    """Return how often each state came after the state of bar `last`, in bars first to last."""
    counts, before = np.zeros(STATES), -1
    now = 3 * int(changes[last] > STILL) + int(ranges[last] > low + SAME) + int(ranges[last] > high + SAME)
    for i in range(first, last + 1):
        state = 3 * int(changes[i] > STILL) + int(ranges[i] > low + SAME) + int(ranges[i] > high + SAME)
        if before == now:
            counts[state] += 1
        before = state
    return counts


@compiled
def _columns(changes: Floats, ranges: Floats, low: Floats, high: Floats, window: int) -> Floats:
    """Return the columns as rows, from bar `window` on, the first with so many changes."""
    result = np.full((5, len(changes)), np.nan)
    for t in range(window, len(changes)):
        counts = _counts(changes, ranges, low[t], high[t], t - window + 1, t)
        now = 3 * int(changes[t] > STILL) + int(ranges[t] > low[t] + SAME) + int(ranges[t] > high[t] + SAME)
        seen, entropy = counts.sum(), 0.0
        for count in counts:
            share = (count + 1) / (seen + STATES)
            entropy -= share * math.log(share)
        ups = counts[3] + counts[4] + counts[5]
        same_way = ups if now >= 3 else seen - ups
        result[0, t] = (ups + 1) / (seen + 2)
        result[1, t] = (counts[2] + counts[5] + 1) / (seen + 3)
        result[2, t] = (counts[now] + 1) / (seen + STATES)
        result[3, t] = entropy / math.log(STATES)
        result[4, t] = math.log((seen + 2) / (seen - same_way + 1))
    return result


@feature(
    lookback=lambda window: window + 1,
    windows=(250,),
    columns=("markov_up", "markov_wide", "markov_persistence", "markov_entropy", "markov_log_run"),
)
def markov(bars: Bars, window: int) -> tuple[Floats, ...]:
    """From the `window` last bars' transitions out of the newest bar's state: direction × tercile of the log range.

    markov_up: P(next bar up); markov_wide: P(next range in the highest tercile); markov_persistence: P(same state);
    markov_entropy: of the six probabilities, over ln 6; markov_log_run: ln of the bars that the present direction is
    expected to last, 1 / (1 − P(same direction)). With one added to each count; unchanged counts as not up.
    """
    ranges = spread(bars)
    low, high, _ = order(ranges, window, 1 / 3, 2 / 3)
    return tuple(_columns(change(bars), ranges, low, high, window))
