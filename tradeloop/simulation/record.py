"""What a simulation leaves: every answer beside what came of it, every training, every change of champion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tradeloop.bars import Floats, Times
from tradeloop.config import TARGETS, Target
from tradeloop.predictor import Prediction
from tradeloop.simulation.world import World


@dataclass(frozen=True)
class Training:
    """One retraining: when it was asked for, on what, at which cost, and what the gate said."""

    step: int
    time: str
    trigger: str
    rows: int
    version: str | None
    passed: bool
    cpu_seconds: float
    reason: str


@dataclass(frozen=True)
class Change:
    """One event of the lifecycle, an alarm or a decision, at a step of the simulation."""

    step: int
    time: str
    kind: str
    version: str
    reason: str


@dataclass
class Record:
    """The answers of a run, aligned with ``world.x``; NaN where nothing was answered.

    Attributes
    ----------
    p_up, ret, range
        Forecasts that the bot got: `range` as a natural log, like its label.
    covered
        Whether the range's interval held the label, 0 or 1.
    """

    world: World
    p_up: Floats
    ret: Floats
    range: Floats
    low: Floats
    high: Floats
    trainings: list[Training] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    wall_seconds: float = 0.0

    @classmethod
    def empty(cls, world: World) -> Record:
        """Return a record without answers."""
        p_up, ret, spread, low, high = np.full((5, len(world.x)), np.nan)
        return cls(world, p_up, ret, spread, low, high)

    def take(self, step: int, predictions: list[Prediction]) -> None:
        """Note what was answered at a step."""
        answered = {prediction.symbol: prediction for prediction in predictions if prediction.answered}
        rows = self.world.at(step)
        for row in range(rows.start, rows.stop):
            prediction = answered.get(str(self.world.symbol[row]))
            if prediction is None or prediction.p_up is None:
                continue
            assert prediction.range and prediction.range_low and prediction.range_high
            self.p_up[row], self.ret[row] = prediction.p_up, prediction.ret
            self.range[row] = np.log(prediction.range)
            self.low[row], self.high[row] = np.log(prediction.range_low), np.log(prediction.range_high)

    @property
    def cpu_seconds(self) -> float:
        """What all trainings cost together."""
        return sum(training.cpu_seconds for training in self.trainings)

    def answers(self) -> Answers:
        """Return the answered rows whose labels are known, in time order."""
        matrix = self.world.matrix
        keys = _keys(matrix.timestamp, matrix.symbol)
        at = {key: row for row, key in enumerate(keys)}
        times = np.repeat(self.world.times, np.diff(self.world.start))
        rows, labels = [], []
        for row, key in enumerate(_keys(times, self.world.symbol)):
            label = at.get(key)
            if label is not None and np.isfinite(self.p_up[row]):
                rows.append(row)
                labels.append(label)
        chosen, known = np.array(rows, dtype=np.intp), np.array(labels, dtype=np.intp)
        forecast: dict[Target, Floats] = {
            "direction": self.p_up[chosen],
            "return": self.ret[chosen],
            "range": self.range[chosen],
        }
        actual = {target: matrix.y[target][known] for target in TARGETS}
        step = np.searchsorted(self.world.times, times[chosen])
        return Answers(step, times[chosen], chosen, forecast, actual, self.low[chosen], self.high[chosen])


@dataclass(frozen=True)
class Answers:
    """Answered rows with their labels, in time order; all arrays (n,).

    Attributes
    ----------
    step
        Which of the world's times it was asked at.
    row
        Position in ``world.x``.
    low, high
        The range's interval, in logs.
    """

    step: Any
    time: Times
    row: Any
    forecast: dict[Target, Floats]
    actual: dict[Target, Floats]
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.step)

    def between(self, first: int, last: int) -> Answers:
        """Return the answers at steps ``first ≤ step < last``."""
        keep = (self.step >= first) & (self.step < last)
        return Answers(
            self.step[keep],
            self.time[keep],
            self.row[keep],
            {target: values[keep] for target, values in self.forecast.items()},
            {target: values[keep] for target, values in self.actual.items()},
            self.low[keep],
            self.high[keep],
        )


def _keys(times: Times, symbols: Any) -> list[tuple[int, str]]:
    return list(zip(times.astype(np.int64).tolist(), map(str, symbols), strict=True))
