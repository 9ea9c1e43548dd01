"""One target on its way: what is learned of it, whether that is better, and when it is to be forgotten."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final, Literal

from tradeloop.config import Adapt, Target
from tradeloop.loop.guard import Guard
from tradeloop.loop.learner import DirectionLearner, Learner, ValueLearner
from tradeloop.loop.mixing import State, limited

Turn = Literal["proven", "worse", "drift"]

LARGEST_LOSS: Final = 8.0  # to ADWIN, which wants losses in [0, 1]
Forecasts = tuple[float, float, float]
"""Centre, low and high end."""

_EDGE = 1e-3
_FAR = 3.0
_MEMORY = 250  # losses that a detector keeps when it is built again


class Adwin:
    """River's ADWIN on a bounded memory.

    River can store a detector only as a pickle. So the values themselves are kept, at most twice `_MEMORY`: when there
    are so many, the detector is built again from the newer half, and a restored one from the same values is the same.
    """

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self._recent: list[float] = []
        self._detector: Any = None
        self._rebuild([])

    def rose(self, loss: float) -> bool:
        """Take in a loss in [0, 1]; return whether the losses have changed, and for the worse."""
        if len(self._recent) >= 2 * _MEMORY:
            self._rebuild(self._recent[-_MEMORY:])
        value = round(loss, 4)
        self._recent.append(value)
        before = self._detector.estimation
        self._detector.update(value)
        if not self._detector.drift_detected:
            return False
        after = self._detector.estimation
        self._rebuild([])
        return bool(after > before)

    def state(self) -> list[float]:
        """Return what `restore` takes."""
        return list(self._recent)

    def restore(self, state: list[float]) -> None:
        """Take up where `state` was taken."""
        self._rebuild(state)

    def _rebuild(self, values: list[float]) -> None:
        from river import drift

        self._recent = [float(value) for value in values]
        self._detector = drift.ADWIN(delta=self._delta)
        for value in self._recent:
            self._detector.update(value)


class Track:
    """Learner, guard and drift detector of one target."""

    def __init__(self, target: Target, members: list[str], config: Adapt, *, coverage: float, horizon: int) -> None:
        self.target = target
        self.learner: Learner = (
            DirectionLearner(members, config)
            if target == "direction"
            else ValueLearner(target, members, config, coverage=coverage)
        )
        self.guard = Guard(config, horizon=horizon)
        self._adwin = Adwin(config.drift)

    @property
    def applied(self) -> bool:
        """Whether the service is to use what was learned."""
        return self.guard.phase == "applied"

    def judge(self, bar: datetime, packaged: float, adapted: float, *, bound: float) -> Turn | None:
        """Compare the losses of an outcome's two forecasts; where it says ``worse`` or ``drift``, all is forgotten.

        Parameters
        ----------
        bound
            The most by which the losses could have differed.
        """
        verdict = self.guard.step(bar, packaged - adapted, bound)
        if verdict == "worse":
            self.learner.forget()
            return "worse"
        if self._adwin.rose(limited(adapted / LARGEST_LOSS, 0.0, 1.0)):
            self.learner.forget()
            return verdict or "drift"
        return verdict

    def state(self) -> State:
        """Return what `restore` takes."""
        return {"learner": self.learner.state(), "guard": self.guard.state(), "losses": self._adwin.state()}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self.learner.restore(state["learner"])
        self.guard.restore(state["guard"])
        self._adwin.restore(state["losses"])


def log_loss(p_up: float, up: float) -> float:
    """Return the log loss of a probability, in nats; beyond .999 no more is paid."""
    p = limited(p_up if up > 0.5 else 1.0 - p_up, _EDGE, 1.0 - _EDGE)
    return -math.log(p)


def log_bound(one: float, other: float) -> float:
    """Return the most by which the log losses of two probabilities can differ."""
    return max(abs(log_loss(one, up) - log_loss(other, up)) for up in (0.0, 1.0))


def interval_loss(label: float, forecast: Forecasts, *, unit: float, coverage: float) -> float:
    """Return squared error plus a quarter of the interval score, in units; errors beyond three units count as three.

    The interval score (Gneiting & Raftery 2007) is the interval's width plus ``2 / (1 − coverage)`` times the distance
    of a label that it misses. At its usual values the two terms weigh about the same.
    """
    centre, low, high = forecast
    near = limited(label, centre - _FAR * unit, centre + _FAR * unit)
    missed = max(low - near, near - high, 0.0)
    score = (high - low + 2.0 / (1.0 - coverage) * missed) / unit
    return ((near - centre) / unit) ** 2 + 0.25 * score


def interval_bound(one: Forecasts, other: Forecasts, *, unit: float, coverage: float) -> float:
    """Return a bound on the difference of two forecasts' losses, whatever the label."""
    apart = [abs(a - b) / unit for a, b in zip(one, other, strict=True)]
    width = abs((one[2] - one[1]) - (other[2] - other[1])) / unit
    # Where a label is cut off moves with the centre, and with it the distance from the interval.
    missed = max(apart[1], apart[2]) + apart[0]
    return 2.0 * _FAR * apart[0] + 0.25 * (width + 2.0 / (1.0 - coverage) * missed)
