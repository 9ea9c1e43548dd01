"""What is learned of one target, outcome by outcome: weights of the members, calibration or shift, interval widths.

All of it is plain arithmetic on a few numbers, deterministic, and bounded: no number moves by more than `max_step` an
outcome, nor beyond `tradeloop.adaptation`'s bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from tradeloop.adaptation import CALIBRATION, SHIFT, SLOPE
from tradeloop.config import Adapt

State = dict[str, Any]

_LEAST = 1e-12
_EXTREME = 3.0  # gradients and residuals count no more than so many of their usual size
_ELSEWHERE = 0.1  # the share of the weight that lies with the members where nothing speaks for any of them


def limited(value: float, low: float, high: float) -> float:
    """Return `value`, kept within bounds."""
    return low if value < low else high if value > high else value


class Weights:
    """Weights of the members beside the packaged forecast: exponentiated gradient with fixed share.

    1. A member's gradient is how the loss changes as weight moves to it from the packaged forecast, in units of the
       gradients' usual size.
    2. ``w ∝ w · exp(−rate · gradient)`` (Kivinen & Warmuth 1997), the packaged forecast's own gradient being zero.
    3. A small share of the weight flows back to where it began, so that none is ever lost (fixed share, Herbster &
       Warmuth 1998) and a change is followed.
    """

    def __init__(self, members: list[str], config: Adapt) -> None:
        self._config = config
        self.members = dict.fromkeys(members, 0.0)
        self._power = 0.0
        self._seen = 0

    def step(self, gradients: Mapping[str, float]) -> None:
        """Learn from one outcome."""
        config = self._config
        self._seen += 1
        keep = max(1.0 / self._seen, 1.0 / config.memory)
        power = sum(g * g for g in gradients.values()) / max(len(gradients), 1)
        self._power += keep * (power - self._power)
        size = math.sqrt(self._power) or 1.0
        rate = {name: config.rate * limited(g / size, -_EXTREME, _EXTREME) for name, g in gradients.items()}
        grown = {name: weight * math.exp(-rate[name]) for name, weight in self.members.items()}
        whole = sum(grown.values()) + 1.0 - sum(self.members.values())
        each = _ELSEWHERE * config.share / max(len(grown), 1)
        new = {name: (1.0 - config.share) * weight / whole + each for name, weight in grown.items()}
        most = min(1.0, config.max_weight / max(sum(new.values()), _LEAST))
        moved = sum(abs(most * new[name] - weight) for name, weight in self.members.items())
        part = min(1.0, config.max_step / max(moved, _LEAST))
        self.members = {name: weight + part * (most * new[name] - weight) for name, weight in self.members.items()}

    def forget(self) -> None:
        """Go back to the packaged forecast alone."""
        self.members = dict.fromkeys(self.members, 0.0)

    def state(self) -> State:
        """Return what `restore` takes."""
        return {"members": self.members, "power": self._power, "seen": self._seen}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self.members = {name: float(state["members"][name]) for name in self.members}
        self._power, self._seen = float(state["power"]), int(state["seen"])


class Recalibration:
    """Slope and intercept of the log odds: a logistic regression that remembers the last `memory` outcomes.

    The posterior is kept as a Gaussian; each outcome adds one Newton step, and what is forgotten of the past is
    replaced by the prior, slope 1 ± ½ and intercept 0 ± .1. Where p is near one half all the time, little is learned
    of the slope, and it stays near 1.
    """

    PRIOR: Final = (1 / 0.5**2, 0.0, 1 / 0.1**2)  # precision: slope, both, intercept

    def __init__(self, config: Adapt) -> None:
        self._config = config
        self.slope, self.intercept = 1.0, 0.0
        self._precision: tuple[float, float, float] = self.PRIOR

    def step(self, z: float, up: float) -> None:
        """Learn that log odds `z` were followed by a rise (1) or not (0)."""
        fresh = 1.0 / self._config.memory
        old, prior = self._precision, self.PRIOR
        kept = [(1.0 - fresh) * was + fresh * at for was, at in zip(old, prior, strict=True)]
        # What is forgotten pulls back to slope 1, intercept 0.
        apart = (1.0 - self.slope, -self.intercept)
        pull = (
            fresh * (prior[0] * apart[0] + prior[1] * apart[1]),
            fresh * (prior[1] * apart[0] + prior[2] * apart[1]),
        )
        p = 1.0 / (1.0 + math.exp(-limited(self.slope * z + self.intercept, -30.0, 30.0)))
        sure = p * (1.0 - p)
        a, b, c = kept[0] + sure * z * z, kept[1] + sure * z, kept[2] + sure
        u, v = (up - p) * z + pull[0], (up - p) + pull[1]
        determinant = a * c - b * b
        most = self._config.max_step
        self.slope = limited(self.slope + limited((c * u - b * v) / determinant, -most, most), *SLOPE)
        self.intercept += limited((a * v - b * u) / determinant, -most, most)
        self.intercept = limited(self.intercept, -CALIBRATION, CALIBRATION)
        self._precision = (a, b, c)

    def forget(self) -> None:
        """Go back to the calibration as it was packaged."""
        self.slope, self.intercept, self._precision = 1.0, 0.0, self.PRIOR

    def state(self) -> State:
        """Return what `restore` takes."""
        return {"slope": self.slope, "intercept": self.intercept, "precision": list(self._precision)}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self.slope, self.intercept = float(state["slope"]), float(state["intercept"])
        a, b, c = map(float, state["precision"])
        self._precision = (a, b, c)


class Shift:
    """By how much forecasts miss on average, in units: the mean of the last `memory` residuals and of a prior at zero.

    `sure` is how many residuals the prior is worth.
    """

    def __init__(self, config: Adapt, *, sure: float) -> None:
        self._config = config
        self._sure = sure
        self._sum, self._count = 0.0, 0.0
        self.value = 0.0

    def step(self, residual: float) -> None:
        """Learn from one residual, label less forecast, in units."""
        keep, most = 1.0 - 1.0 / self._config.memory, self._config.max_step
        self._sum = keep * self._sum + limited(residual, -_EXTREME, _EXTREME)
        self._count = keep * self._count + 1.0
        wanted = self._sum / (self._sure + self._count)
        self.value = limited(self.value + limited(wanted - self.value, -most, most), -SHIFT, SHIFT)

    def forget(self) -> None:
        """Go back to no shift."""
        self.value, self._sum, self._count = 0.0, 0.0, 0.0

    def state(self) -> State:
        """Return what `restore` takes."""
        return {"value": self.value, "sum": self._sum, "count": self._count}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self.value, self._sum, self._count = float(state["value"]), float(state["sum"]), float(state["count"])


class Width:
    """What one side of an interval is multiplied by, so that it is missed as often as it should be.

    Adaptive conformal inference (Gibbs & Candès 2021), in its form for a quantile (Angelopoulos et al. 2023): after a
    miss the side is wider, otherwise a little narrower, in the ratio that balances at the nominal rate of misses.
    """

    def __init__(self, config: Adapt, *, tail: float) -> None:
        self._step = config.width_step
        self._most = math.log(config.max_width)
        self._tail = tail
        self._log = 0.0

    @property
    def value(self) -> float:
        """The factor."""
        return math.exp(self._log)

    def step(self, *, missed: bool) -> None:
        """Learn whether the label lay beyond this side."""
        self._log = limited(self._log + self._step * (missed - self._tail), -self._most, self._most)

    def forget(self) -> None:
        """Go back to the width as it was packaged."""
        self._log = 0.0

    def state(self) -> State:
        """Return what `restore` takes."""
        return {"log": self._log}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self._log = float(state["log"])
