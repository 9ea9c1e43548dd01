"""One target's learner: it sees what was forecast and what came, and says which part of a snapshot follows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradeloop.adaptation import ONLINE, REACH
from tradeloop.config import Adapt, Target
from tradeloop.loop.mixing import Recalibration, Shift, State, Weights, Width, limited

SURE: Final[Mapping[Target, float]] = {"return": 400.0, "range": 4.0}
"""How many residuals the prior of no shift is worth: the mean of returns is mostly chance, that of volatility moves."""


@dataclass(frozen=True, slots=True)
class Row:
    """One forecast of one target, in the target's space, and its label.

    Attributes
    ----------
    base, low, high
        The packaged forecast and the ends of its interval (direction: log odds, no interval).
    unit
        1 for direction, half the interval's width otherwise.
    members
        What the bundle's members said.
    apart
        What the linear member says: its distance from `base` in units.
    """

    base: float
    unit: float
    members: Mapping[str, float]
    apart: float
    label: float
    low: float = math.nan
    high: float = math.nan


class Learner(ABC):
    """Learns of one target."""

    def __init__(self, members: list[str], config: Adapt) -> None:
        self.weights = Weights([*members, ONLINE], config)

    @abstractmethod
    def step(self, row: Row) -> None:
        """Learn from one outcome."""

    @abstractmethod
    def part(self) -> dict[str, Any]:
        """Return the target's part of a snapshot, but for the linear member's coefficients."""

    @abstractmethod
    def _parts(self) -> dict[str, Weights | Recalibration | Shift | Width]:
        """Return what is learned, by name."""

    def forget(self) -> None:
        """Go back to the bundle as it was packaged."""
        for part in self._parts().values():
            part.forget()

    def state(self) -> State:
        """Return what `restore` takes."""
        return {name: part.state() for name, part in self._parts().items()}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        for name, part in self._parts().items():
            part.restore(state[name])

    def _apart(self, row: Row) -> dict[str, float]:
        """Return how far each member lies from the packaged forecast, in units."""
        apart = {name: (said - row.base) / row.unit for name, said in row.members.items()}
        apart[ONLINE] = limited(row.apart, -REACH, REACH)
        return apart

    def _mixed(self, apart: Mapping[str, float]) -> float:
        """Return how far the mixture lies from the packaged forecast, in units."""
        return sum(weight * apart[name] for name, weight in self.weights.members.items())


class DirectionLearner(Learner):
    """Weights on the log loss, then the recalibration of what they give."""

    def __init__(self, members: list[str], config: Adapt) -> None:
        super().__init__(members, config)
        self.recalibration = Recalibration(config)

    def step(self, row: Row) -> None:
        """Learn from one outcome."""
        apart = self._apart(row)
        z = row.base + self._mixed(apart)
        error = 1.0 / (1.0 + math.exp(-limited(z, -30.0, 30.0))) - row.label
        self.recalibration.step(z, row.label)
        self.weights.step({name: error * distance for name, distance in apart.items()})

    def part(self) -> dict[str, Any]:
        """Return weights, slope and intercept."""
        weights = dict(self.weights.members)
        return {"weights": weights, "slope": self.recalibration.slope, "intercept": self.recalibration.intercept}

    def _parts(self) -> dict[str, Weights | Recalibration | Shift | Width]:
        return {"weights": self.weights, "recalibration": self.recalibration}


class ValueLearner(Learner):
    """Weights on the squared error, then shift and widths of the interval about what they give."""

    def __init__(self, target: Target, members: list[str], config: Adapt, *, coverage: float) -> None:
        super().__init__(members, config)
        self.shift = Shift(config, sure=SURE[target])
        self.low = Width(config, tail=(1.0 - coverage) / 2)
        self.high = Width(config, tail=(1.0 - coverage) / 2)

    def step(self, row: Row) -> None:
        """Learn from one outcome."""
        apart = self._apart(row)
        mixed = self._mixed(apart)
        residual = (row.label - row.base) / row.unit - mixed
        low = (row.low - row.base) / row.unit + self.shift.value - (self.low.value - 1.0)
        high = (row.high - row.base) / row.unit + self.shift.value + (self.high.value - 1.0)
        self.low.step(missed=residual < low)
        self.high.step(missed=residual > high)
        self.shift.step(residual)
        error = limited(residual, -3.0, 3.0)
        self.weights.step({name: -error * distance for name, distance in apart.items()})

    def part(self) -> dict[str, Any]:
        """Return weights, shift and widths."""
        weights = dict(self.weights.members)
        widths = {"low": self.low.value, "high": self.high.value}
        return {"weights": weights, "intercept": self.shift.value, **widths}

    def _parts(self) -> dict[str, Weights | Recalibration | Shift | Width]:
        return {"weights": self.weights, "shift": self.shift, "low": self.low, "high": self.high}
