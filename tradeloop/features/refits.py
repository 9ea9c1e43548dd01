"""When a fitted model is fitted anew: at boundaries in time that a bar's own past decides.

A feature that fits parameters must give the same value from the last `lookback` bars as from the whole history, so
what it fits on may depend neither on where the history begins nor on what came later. The rule: of the last `REACH`
bars, the *boundary* is the one at which the coarsest stretch of UTC time begins, stretches being 2^k microseconds long,
counted from 1970; the fit sees the `HISTORY` bars before the boundary, and the filter runs on from there. Between two
bars the coarsest such beginning is the highest bit in which their times differ; no other bar of the reach has it too,
so the boundary is unique, moves forward only, and stays for `REACH` bars or until a coarser one comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.compiled import compiled
from tradeloop.features.timeframes import Integers

HISTORY = 250
"""Bars that a fit sees."""

REACH = 96
"""Bars that parameters last, at most."""

LOOKBACK = HISTORY + REACH + 1
"""Bars that decide a value: the oldest change of the history needs the bar before it."""

STEADY = 2e-5
"""A history whose returns have no larger root mean square, a fifth of a basis point, is not fitted."""

GRAIN = 1024
"""Parts of a standard deviation to which a fit's observations are rounded: see `rounded`."""

CACHED = 4096
"""Fits that are remembered, by their observations: bars that stream in need no fit until the boundary moves."""


@compiled
def boundaries(times: Integers, reach: int, first: int) -> Integers:
    """Return each bar's boundary among the last `reach` bars, itself included; −1 before bar `first`.

    Times are in microseconds and increase; ``first ≥ reach``.
    """
    result = np.full(len(times), -1, np.int64)
    at, coarsest = -1, np.int64(-1)
    for i in range(first, len(times)):
        oldest = i - reach + 1
        for j in range(oldest if at < oldest else i, i + 1):
            begun = (times[j] ^ times[j - 1]) & np.int64(0x7FFFFFFFFFFFFFFF)  # 1970 itself is the coarsest of all
            if j == oldest or begun > coarsest:
                at, coarsest = j, begun
        result[i] = at
    return result


def segments(bars: Bars) -> Iterator[tuple[int, int, int]]:
    """Yield boundary, first and last + 1 of each run of bars with one boundary, from bar ``LOOKBACK - 1`` on."""
    found = boundaries(bars.timestamp.view(np.int64), REACH, LOOKBACK - 1)
    first = LOOKBACK - 1
    while first < len(found):
        boundary = int(found[first])
        stop = int(np.searchsorted(found, boundary, side="right"))
        yield boundary, first, stop
        first = stop


@compiled
def root_mean_square(values: Floats) -> float:
    """Return the root of the mean square."""
    total = 0.0
    for value in values:
        total += value * value
    return math.sqrt(total / len(values))


def rounded(values: Floats) -> Floats:
    """Return standardised values to 1 / `GRAIN`, for a fit.

    The last bits of a log return depend on the price's scale, and a search for the likeliest parameters makes them
    count; rounded off, the same moves have the same fit, and the same entry among those remembered.
    """
    result: Floats = np.rint(values * GRAIN) / GRAIN
    return result
