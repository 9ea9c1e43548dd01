"""Losses of resolved predictions against those of the holdout: intervals to look at, ADWIN and a plain threshold.

None of these raises the alarm (`degradation` does); they are shown beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import islice
from statistics import NormalDist
from typing import Any

import numpy as np

from tradeloop.bars import Floats
from tradeloop.config import Degradation
from tradeloop.reference import Reference

LOSSES = ("direction", "ret", "range")
"""Log loss of the probability; squared error of the return over forecast volatility; squared error of the log range."""
WATCHED = (0, 2)  # by ADWIN and the threshold: squared returns have tails that both take for drift


class LossWatch:
    """Running losses of the three targets."""

    def __init__(self, reference: Reference, config: Degradation) -> None:
        parts = (reference.direction, reference.ret, reference.range)
        self._expected = np.array([part.loss.value for part in parts])
        self._se = np.array([part.loss.se for part in parts])
        effects = (reference.direction.design_effect, reference.ret.design_effect, reference.range.location_effect)
        self._effect = np.array(effects)
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._count = 0
        self._sums: Floats = np.zeros(3)
        self._squares: Floats = np.zeros(3)
        self._recent: deque[tuple[float, ...]] = deque(maxlen=2 * self._config.window)
        self._adwin: list[Any] | None = None

    def update(self, losses: Floats) -> None:
        """Add losses (n, 3)."""
        self._sums += losses.sum(axis=0)
        self._squares += (losses * losses).sum(axis=0)
        for row in losses.tolist():
            self._recent.append(tuple(row))
            self._count += 1
            self._feed(row)

    def evidence(self) -> dict[str, Any]:
        """Return, by target, the live loss, the holdout's, and what each test says; JSON, finite."""
        return {name: self._target(number) for number, name in enumerate(LOSSES)}

    def _target(self, number: int) -> dict[str, Any]:
        expected = float(self._expected[number])
        shown: dict[str, Any] = {"expected": expected, "mean": None, "difference": None}
        if self._count == 0:
            return shown
        mean = float(self._sums[number]) / self._count
        variance = max(float(self._squares[number]) / self._count - mean * mean, 0.0)
        radius = self._radius(variance * float(self._effect[number])) + self._normal * float(self._se[number])
        low, high = mean - expected - radius, mean - expected + radius
        shown |= {"mean": mean, "difference": {"value": mean - expected, "low": low, "high": high}}
        if number not in WATCHED:
            return shown
        window = self._config.window
        recent = [row[number] for row in islice(self._recent, max(len(self._recent) - window, 0), None)]
        average = math.fsum(recent) / len(recent)
        crossed = len(recent) == window and average > expected * (1 + self._config.drop)
        shown["threshold"] = {"mean": average, "outcomes": len(recent), "crossed": crossed}
        adwin = self._adwins()[WATCHED.index(number)]
        shown["adwin"] = {
            "mean": float(adwin.estimation),
            "outcomes": int(adwin.width),
            "cuts": int(adwin.n_detections),
        }
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
        for number, adwin in zip(WATCHED, self._adwin, strict=True):
            adwin.update(row[number])

    def _adwins(self) -> list[Any]:
        if self._adwin is None:
            from river.drift import ADWIN

            self._adwin = [ADWIN(delta=self._config.adwin) for _ in WATCHED]
            window = self._config.window
            kept = min(self._count % window + window, len(self._recent))
            for row in islice(self._recent, len(self._recent) - kept, None):
                for number, adwin in zip(WATCHED, self._adwin, strict=True):
                    adwin.update(row[number])
        return self._adwin

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "count": self._count,
            "sums": self._sums.tolist(),
            "squares": self._squares.tolist(),
            "recent": [list(row) for row in self._recent],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.clear()
        self._count = int(state["count"])
        self._sums = np.array(state["sums"], dtype=np.float64)
        self._squares = np.array(state["squares"], dtype=np.float64)
        self._recent.extend(tuple(row) for row in state["recent"])
