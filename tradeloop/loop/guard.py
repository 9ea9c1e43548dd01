"""Whether what was learned of a target forecasts better than the bundle as it was packaged, on the same outcomes.

Two gamblers (`loop.betting`) watch by how much the adapted forecast's loss was smaller, as a share of the most that
it could have been: that follows from the two forecasts, before the outcome. (A usual size will not do: narrower
intervals gain a little nearly always and lose a lot when they miss, and whoever clips the misses sees a gain where
there is none.) The first bets that it is smaller on average: unless that is so, the adaptation is ever applied with a
probability of at most `prove`. Once it is applied the second bets that it is larger: unless that is so, it is ever
taken back with a probability of at most `prove`. Both bounds hold whenever one looks.

The symbols of one bar rise and fall together, so a bet is on a bar: on the mean over its outcomes. Labels that span h
bars overlap, so h gamblers of each kind take turns, a bar each, and their mean counts. For h above 1 the bounds are
approximations.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from tradeloop.config import Adapt
from tradeloop.loop.betting import Capital
from tradeloop.loop.mixing import State, limited

Phase = Literal["proving", "applied", "paused"]
Verdict = Literal["proven", "worse"]

_KEEP = 0.995  # of the scale from bar to bar: it follows the largest bound at once, and smaller ones slowly
_ENTER = 0.01  # of the cash that waits for a change for the worse


class Guard:
    """Decides whether one target's adaptation is applied.

    Parameters
    ----------
    config
        ``apply: proven`` waits for proof that it is better; ``not_worse`` for `min_bars` bars without proof that it
        is worse.
    horizon
        Bars that a label spans.
    """

    def __init__(self, config: Adapt, *, horizon: int) -> None:
        self._config = config
        self._horizon = horizon
        self._bar: datetime | None = None
        self._sum, self._bound, self._count = 0.0, 0.0, 0
        self.restart()

    def restart(self, phase: Phase = "proving") -> None:
        """Begin anew, with nothing proven."""
        self.phase: Phase = phase
        self.bars = 0
        self._scale = 0.0
        self._better = [Capital() for _ in range(self._horizon)]
        self._worse = [Capital(_ENTER) for _ in range(self._horizon)]

    @property
    def better(self) -> float:
        """Capital of those who bet on the adapted forecasts."""
        return sum(capital.value for capital in self._better) / self._horizon

    @property
    def worse(self) -> float:
        """Capital of those who bet against them."""
        return sum(capital.value for capital in self._worse) / self._horizon

    def step(self, bar: datetime, difference: float, bound: float) -> Verdict | None:
        """Take in one outcome.

        Parameters
        ----------
        difference
            The packaged forecast's loss less the adapted one's.
        bound
            The most that the difference could have been, either way.

        Returns
        -------
        ``proven`` when the adaptation is to be applied from now on, ``worse`` when it is to be taken back, else None.
        """
        verdict = self._close() if self._bar is not None and bar != self._bar else None
        self._bar = bar
        self._sum += difference
        self._bound += bound
        self._count += 1
        return verdict

    def state(self) -> State:
        """Return what `restore` takes."""
        return {
            "phase": self.phase,
            "bars": self.bars,
            "bar": None if self._bar is None else self._bar.isoformat(),
            "sum": self._sum,
            "bound": self._bound,
            "count": self._count,
            "scale": self._scale,
            "better": [capital.state() for capital in self._better],
            "worse": [capital.state() for capital in self._worse],
        }

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        self.phase, self.bars = state["phase"], int(state["bars"])
        self._bar = None if state["bar"] is None else datetime.fromisoformat(state["bar"])
        self._sum, self._bound, self._count = float(state["sum"]), float(state["bound"]), int(state["count"])
        self._scale = float(state["scale"])
        self._better = [Capital().restore(capital) for capital in state["better"]]
        self._worse = [Capital(_ENTER).restore(capital) for capital in state["worse"]]

    def _close(self) -> Verdict | None:
        """Judge the bar that is complete."""
        difference, bound = self._sum / self._count, self._bound / self._count
        self._sum, self._bound, self._count = 0.0, 0.0, 0
        self.bars += 1
        if self.phase == "paused":
            if self.bars >= self._config.pause:
                self.restart()
            return None
        self._bet(difference, bound)
        if self.phase == "applied" or self._config.apply == "not_worse":
            if self.worse >= 1.0 / self._config.prove:
                self.restart("paused")
                return "worse"
            proven = self.phase == "proving" and self.bars >= self._config.min_bars
        else:
            proven = self.better >= 1.0 / self._config.prove
        if not proven:
            return None
        self.restart("applied")
        return "proven"

    def _bet(self, difference: float, bound: float) -> None:
        self._scale = max(bound, _KEEP * self._scale)
        if self._scale > 0.0:
            won = limited(difference / self._scale, -1.0, 1.0)
            turn = self.bars % self._horizon
            self._better[turn].update(won)
            self._worse[turn].update(-won)
