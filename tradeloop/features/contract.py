"""The feature contract as checks: what a function of bars must satisfy before its values may be trusted.

Each check returns what is wrong, one line a violation, and nothing if the function passes. They hold for any
function of `Bars` that returns one value (or one row of values) a bar, registered or not, so they also judge a suspect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars
from tradeloop.inputs.contract import unit_of

Values = NDArray[Any]
Function = Callable[[Bars], Values]

EXACT = 1e-12
RECURSIVE = 1e-6
SCALES = (0.37, 4096.0, 3.1e-4)
POSITIONS = 12


@dataclass(frozen=True)
class _Close:
    """Equality of values up to a relative tolerance; two NaN are equal."""

    tolerance: float
    absolute: float

    def __call__(self, left: Values, right: Values) -> NDArray[np.bool_]:
        return np.isclose(left, right, rtol=self.tolerance, atol=self.absolute, equal_nan=True)


def _equality(recursive: bool) -> _Close:
    return _Close(RECURSIVE if recursive else EXACT, EXACT)


def violations(
    function: Function, bars: Bars, lookback: int, *, recursive: bool = False, scale_free: bool = True
) -> list[str]:
    """Return every breach of the feature contract that these bars can show.

    Parameters
    ----------
    function
        Bars of length n to an array of length n (or n rows).
    bars
        Enough for the warm-up: at least ``lookback + 2``; many times that shows more.
    lookback
        Bars, the current one included, that decide a value.
    recursive
        Allow a tail 1e-6 relative instead of 1e-12.
    scale_free
        False: the values may follow the scale of prices and volume.

    Raises
    ------
    ValueError
        The bars are too few to judge.
    """
    if len(bars) < lookback + 2:
        raise ValueError(
            f"a lookback of {lookback} bars needs at least {lookback + 2} bars to be checked, got {len(bars)}"
        )
    found = check_purity(function, bars)
    if found:  # what has no stable shape or changes its input cannot be compared any further
        return found
    return [
        *check_prefix_invariance(function, bars),
        *check_tail_equality(function, bars, lookback, recursive=recursive),
        *(check_scale_freedom(function, bars) if scale_free else ()),
        *check_finiteness(function, bars, lookback),
    ]


def check_purity(function: Function, bars: Bars) -> list[str]:
    """One row a bar; the same again when called again; the bars left as they were."""
    before = _copy(bars)
    first = np.asarray(function(bars))
    if first.shape[:1] != (len(bars),):
        return [f"shape: expected {len(bars)} rows, one a bar, got shape {first.shape}"]
    found = []
    if not np.array_equal(first, function(bars), equal_nan=True):
        found.append("purity: a second call gave other values")
    if not _same(before, bars):
        found.append("purity: the bars were changed")
    return found


def check_prefix_invariance(function: Function, bars: Bars) -> list[str]:
    """No value changes when later bars are appended: the mark of a look at the future or at the whole sample."""
    full = np.asarray(function(bars))
    for count in _spread(2, len(bars) - 1):
        known = np.asarray(function(bars[:count]))
        wrong = ~_equality(False)(known, full[:count])
        if wrong.any():
            rows = np.unique(np.argwhere(wrong)[:, 0])
            return [
                f"look-ahead: once bar {count} and later ones are known, {len(rows)} earlier values change, "
                f"the first at bar {rows[0]}: {known[rows[0]]} becomes {full[rows[0]]}"
            ]
    return []


def check_tail_equality(function: Function, bars: Bars, lookback: int, *, recursive: bool = False) -> list[str]:
    """Values of the last `lookback` bars alone are those that the whole history gives."""
    full = np.asarray(function(bars))
    equal = _equality(recursive)
    for row in _spread(lookback - 1, len(bars) - 1):
        tail = np.asarray(function(bars[row - lookback + 1 : row + 1]))[-1]
        if not equal(tail, full[row]).all():
            return [f"tail: at bar {row} the last {lookback} bars give {tail}, the whole history {full[row]}"]
    return []


def check_scale_freedom(function: Function, bars: Bars) -> list[str]:
    """Prices × c and sizes ÷ c, and each context series × a factor of its own, leave the values as they are."""
    full = np.asarray(function(bars))
    for scale in SCALES:
        scaled = np.asarray(function(_scaled(bars, scale)))
        wrong = ~_Close(1e-6, 1e-8)(scaled, full)
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            return [f"scale: with prices × {scale:g} bar {row} gives {scaled[row]} instead of {full[row]}"]
    return []


def check_finiteness(function: Function, bars: Bars, lookback: int) -> list[str]:
    """Nothing infinite anywhere, and no NaN once `lookback` bars have passed since context or inputs were unknown."""
    values = np.asarray(function(bars))
    if np.isinf(values).any():
        return [f"finite: bar {int(np.argwhere(np.isinf(values))[0][0])} is infinite"]
    start = lookback - 1
    unknown = [~(series > 0) for series in bars.context.values()] + [np.isnan(x) for x in bars.inputs.values()]
    for missing in unknown:
        start = max(start, int(np.flatnonzero(missing)[-1]) + lookback) if missing.any() else start
    holes = np.argwhere(np.isnan(values[start:]))
    return [f"finite: bar {start + int(holes[0][0])} is NaN after a warm-up of {start} bars"] if len(holes) else []


def _spread(first: int, last: int) -> list[int]:
    """Return up to `POSITIONS` positions from first to last, both included."""
    return sorted({int(position) for position in np.linspace(first, last, POSITIONS)})


def _scaled(bars: Bars, scale: float) -> Bars:
    prices = {name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")}
    context = {name: series * (scale * (2 + i)) for i, (name, series) in enumerate(bars.context.items())}
    factors: dict[str, float] = {"price": scale, "size": 1 / scale}
    inputs = {name: values * factors.get(unit_of(name), 1.0) for name, values in bars.inputs.items()}
    return replace(bars, **prices, volume=bars.volume / scale, context=context, inputs=inputs)


def _arrays(bars: Bars) -> list[Values]:
    given = (*bars.context.values(), *bars.inputs.values())
    return [bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume, *given]


def _copy(bars: Bars) -> list[Values]:
    return [array.copy() for array in _arrays(bars)]


def _same(before: list[Values], bars: Bars) -> bool:
    def equal(old: Values, new: Values) -> bool:
        return np.array_equal(old, new, equal_nan=old.dtype.kind == "f")

    return all(equal(old, new) for old, new in zip(before, _arrays(bars), strict=True))
