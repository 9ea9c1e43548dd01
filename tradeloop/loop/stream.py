"""One target's evidence along observations that do not overlap: running scale, skill, and the capitals that bet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from tradeloop.loop.betting import Capital

BOUND = 5.0
"""Differences count up to so many times their running scale."""
WARM_UP = 10
"""Observations that only set the scale."""
MEMORY = 500.0
"""Observations over which scale and skill are averaged, once there are as many."""
_SHRINK = 20.0  # observations of no skill that the champion's mean gain begins with
_COARSE = 1e-3  # share of the baseline's loss below which differences need no finer scale
_TINY = 1e-12


@dataclass(frozen=True)
class Margins:
    """How much better (`improvement`) or worse (`tolerance`) counts, in shares of skill; `floor` in one of the loss."""

    improvement: float
    tolerance: float
    floor: float
    worse_floor: float


class Stream:
    """One target's test along one row of observations that don't overlap."""

    __slots__ = ("base", "better", "clipped", "gain", "mean", "scale", "scored", "times", "worse")

    def __init__(self, enter: float) -> None:
        self.times = 0
        self.scored = 0
        self.clipped = 0
        self.mean = 0.0
        self.scale = 0.0  # mean square
        self.gain = 0.0
        self.base = 0.0
        self.better = Capital(enter)
        self.worse = Capital(enter)

    @property
    def skill(self) -> float:
        """The champion's gain over the baseline, pulled towards none as long as little is known; at least 0."""
        return max(self.gain, 0.0) * self.scored / (self.scored + _SHRINK)

    def update(self, difference: float, gain: float | None, base: float | None, margins: Margins) -> None:
        """Settle the bets on an observation, then learn from it.

        Parameters
        ----------
        difference
            Champion's loss less the challenger's.
        gain, base
            Baseline's loss less the champion's, and the baseline's; None where there was no baseline.
        """
        ahead = max(margins.improvement * self.skill, margins.floor * self.base)
        behind = max(margins.tolerance * self.skill, margins.worse_floor * self.base)
        unit = max(BOUND * self.scale**0.5, ahead, behind, _COARSE * self.base, _TINY)
        square = difference * difference
        if self.times >= WARM_UP:
            square = min(square, unit * unit)
            self.clipped += abs(difference) > unit
            self.better.update(min(max((difference - ahead) / unit, -1.0), 1.0))
            self.worse.update(min(max((-difference - behind) / unit, -1.0), 1.0))
        self.times += 1
        self.mean += (difference - self.mean) / self.times
        self.scale += (square - self.scale) * max(1.0 / self.times, 1.0 / MEMORY)
        if gain is not None and base is not None:
            self.scored += 1
            rate = max(1.0 / self.scored, 1.0 / MEMORY)
            self.gain += (gain - self.gain) * rate
            self.base += (base - self.base) * rate

    def state(self) -> list[Any]:
        """Return what JSON can hold."""
        numbers = [self.times, self.scored, self.clipped, self.mean, self.scale, self.gain, self.base]
        return [*numbers, self.better.state(), self.worse.state()]

    def restore(self, state: Sequence[Any]) -> Self:
        """Take over what `state` returned."""
        self.times, self.scored, self.clipped = (int(value) for value in state[:3])
        self.mean, self.scale, self.gain, self.base = (float(value) for value in state[3:7])
        self.better.restore(state[7])
        self.worse.restore(state[8])
        return self
