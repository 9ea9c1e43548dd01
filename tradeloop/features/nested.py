"""Several windows at once, each made of shorter ones: a sixth of the work of as many windows by themselves.

The runs of bars of `WINDOWS` lie within one another, so that seven merges of adjacent runs make all five. A window's
length fixes its merges, as in `tradeloop.features.rolling`: its value is the same, to the last bit, on any slice that
holds it.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Floats
from tradeloop.features.compiled import compiled
from tradeloop.features.rolling import merge

WINDOWS = (5, 10, 20, 30, 60)
_WINDOWS = np.array(WINDOWS)
_STEPS = np.array([(1, 1), (2, 2), (4, 1), (5, 5), (10, 10), (20, 10), (30, 30)])
"""Each run is two shorter ones side by side, the older one and the newer."""

_AGAIN = 10
"""The one run, but for single bars, that is needed again later than in the next step."""

EXTREME = -1
"""The largest value, and how many bars ago it was; of equal ones the oldest counts. Beside the kinds of `rolling`."""


@compiled
def _join(kind: int, older: Floats, newer: Floats, sizes: tuple[int, int]) -> None:
    a, b = sizes
    count = older.shape[1] - a - b + 1
    if kind != EXTREME:
        merge(kind, older, newer, a, count, sizes, 0.0)
        return
    for i in range(count):
        if older[0, i] >= newer[0, i + a]:
            older[1, i] += b
        else:
            older[0, i], older[1, i] = newer[0, i + a], newer[1, i + a]


@compiled
def nested(kind: int, block: Floats) -> Floats:
    """Return the summaries of the windows that end at each bar, shape (windows, k, n), given those of single bars.

    NaN where the window is not full; `kind` is EXTREME or one of `rolling.merge`, but for DECAYED. What is given is
    overwritten.
    """
    rows, size = block.shape
    found = np.full((len(_WINDOWS), rows, size), np.nan)
    run, other = np.empty((rows, size)), np.empty((rows, size))
    _copy(block, run, 0, size)
    for step in range(len(_STEPS)):
        a, b = _STEPS[step]
        if a + b > size:
            break
        if a == b:  # into another array, for what is merged within one cannot be done many bars at a time
            _copy(run, other, 0, size)
            _join(kind, other, run, (a, b))
            run, other = other, run
        else:
            _join(kind, run, block, (a, b))
        if a + b == _AGAIN:
            _copy(run, block, 0, size)
        for w in range(len(_WINDOWS)):
            if _WINDOWS[w] == a + b:
                _copy(run, found[w], a + b - 1, size - a - b + 1)
    return found


@compiled
def _copy(source: Floats, target: Floats, start: int, count: int) -> None:
    for row in range(len(source)):
        for i in range(count):
            target[row, start + i] = source[row, i]


def summaries(kind: int, rows: int, *values: Floats) -> Floats:
    """Return what `nested` makes of one or more series of length n; `rows` is how many numbers summarise a run."""
    block = np.zeros((rows, len(values[0])))
    block[: len(values)] = values
    return nested(kind, block)
