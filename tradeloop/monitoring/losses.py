"""Losses of resolved predictions against those of the holdout: intervals to look at, ADWIN and a plain threshold.

None of these raises the alarm (`degradation` does); they are shown beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import NormalDist
from typing import Any

from tradeloop.config import Degradation
from tradeloop.reference import Reference

LOSSES = ("direction", "ret", "range")
"""Log loss of the probability; squared error of the return over forecast volatility; squared error of the log range."""
WATCHED = (0, 2)  # by ADWIN and the threshold: squared returns have tails that both take for drift


class LossWatch:
    """Running losses of the three targets."""

    def __init__(self, reference: Reference, config: Degradation) -> None:
        self._expected = [part.loss for part in (reference.direction, reference.ret, reference.range)]
        self._effect = (reference.direction.design_effect, reference.ret.design_effect, reference.range.location_effect)
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._count = 0
        self._sums = [0.0] * len(LOSSES)
        self._squares = [0.0] * len(LOSSES)
        self._recent: deque[list[float]] = deque(maxlen=2 * self._config.window)
        self._adwin: list[_Adwin] | None = None

    def update(self, losses: Sequence[float]) -> None:
        """Add the losses of one outcome, in the order of `LOSSES`."""
        for number, loss in enumerate(losses):
            self._sums[number] += loss
            self._squares[number] += loss * loss
        # Six digits are enough here, and keep the state short.
        row = [float(f"{losses[number]:.6g}") for number in WATCHED]
        self._recent.append(row)
        self._count += 1
        self._feed(row)

    def evidence(self) -> dict[str, Any]:
        """Return, by target, the live loss, the holdout's, and what each test says; JSON, finite."""
        return {name: self._target(number) for number, name in enumerate(LOSSES)}

    def _target(self, number: int) -> dict[str, Any]:
        expected = self._expected[number].value
        shown: dict[str, Any] = {"expected": expected, "mean": None, "difference": None}
        if self._count == 0:
            return shown
        mean = self._sums[number] / self._count
        variance = max(self._squares[number] / self._count - mean * mean, 0.0)
        radius = self._radius(variance * self._effect[number]) + self._normal * self._expected[number].se
        low, high = mean - expected - radius, mean - expected + radius
        shown |= {"mean": mean, "difference": {"value": mean - expected, "low": low, "high": high}}
        if number not in WATCHED:
            return shown
        window, at = self._config.window, WATCHED.index(number)
        recent = [row[at] for row in islice(self._recent, max(len(self._recent) - window, 0), None)]
        average = math.fsum(recent) / len(recent)
        crossed = len(recent) == window and average > expected * (1 + self._config.drop)
        shown["threshold"] = {"mean": average, "outcomes": len(recent), "crossed": crossed}
        shown["adwin"] = self._adwins()[at].evidence()
        return shown

    @property
    def _normal(self) -> float:
        return NormalDist().inv_cdf((1 + self._config.confidence) / 2)

    def _radius(self, variance: float) -> float:
        """Return half the width of an asymptotic confidence sequence (Waudby-Smith et al. 2021, theorem 2.2).

        It holds at all times together, for large counts; tightest at a window's length.
        """
        miss, n = 1 - self._config.confidence, self._count
        rho = (-2 * math.log(miss) + math.log(-2 * math.log(miss)) + 1) / self._config.window
        return math.sqrt(variance * 2 * (n * rho + 1) / (n * n * rho) * math.log(math.sqrt(n * rho + 1) / miss))

    def _feed(self, row: list[float]) -> None:
        """Give one outcome to ADWIN; every `window` outcomes it begins again from the last window.

        So what it holds follows from the recent losses alone, and a restart cannot change it.
        """
        if self._adwin is None:
            return
        if self._count % self._config.window == 0:
            self._adwin = None
            return
        for loss, adwin in zip(row, self._adwin, strict=True):
            adwin.update(loss)

    def _adwins(self) -> list[_Adwin]:
        if self._adwin is None:
            self._adwin = [_Adwin(self._config.adwin) for _ in WATCHED]
            window = self._config.window
            kept = min(self._count % window + window, len(self._recent))
            for row in islice(self._recent, len(self._recent) - kept, None):
                for loss, adwin in zip(row, self._adwin, strict=True):
                    adwin.update(loss)
        return self._adwin

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "count": self._count,
            "sums": list(self._sums),
            "squares": list(self._squares),
            "recent": [list(row) for row in self._recent],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.clear()
        self._count = int(state["count"])
        self._sums, self._squares = list(state["sums"]), list(state["squares"])
        self._recent.extend(list(row) for row in state["recent"])


class _Adwin:
    """River's ADWIN, and how often it has cut its window: it forgets that itself with the window."""

    def __init__(self, delta: float) -> None:
        from river.drift import ADWIN

        self._adwin = ADWIN(delta=delta)
        self._cuts = 0

    def update(self, loss: float) -> None:
        self._adwin.update(loss)
        self._cuts += bool(self._adwin.drift_detected)

    def evidence(self) -> dict[str, Any]:
        return {"mean": float(self._adwin.estimation), "outcomes": int(self._adwin.width), "cuts": self._cuts}
