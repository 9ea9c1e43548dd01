"""What a simulation shows: skill with intervals before and after a drift, and how long it took to come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tradeloop.bars import Floats
from tradeloop.config import Evaluate
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.simulation.record import Answers, Record

_SCORES = {"direction": ("accuracy", "auc", "log_loss"), "return": ("ic", "rmse"), "range": ("r2", "rmse")}


def summary(record: Record, config: Evaluate, *, seed: int, drift: int | None = None) -> dict[str, Any]:
    """Return scores of what was answered, trainings, changes and cost.

    Parameters
    ----------
    drift
        The step at which the concept drifted; scores are given for both sides of it.
    """
    answers = record.answers()
    last = int(answers.step[-1]) + 1 if len(answers) else 0
    first = int(answers.step[0]) if len(answers) else 0
    periods = {"all": (first, last)}
    if drift is not None:
        periods |= {"before": (first, drift), "after": (drift, last)}
    return {
        "answers": len(answers),
        "periods": {
            name: scores(answers.between(*ends), config, seed=seed)
            for name, ends in periods.items()
            if ends[0] < ends[1]
        },
        "trainings": [vars(training) for training in record.trainings],
        "changes": [vars(change) for change in record.changes],
        "counts": record.counts,
        "training_cpu_seconds": record.cpu_seconds,
        "wall_seconds": record.wall_seconds,
    }


def scores(answers: Answers, config: Evaluate, *, seed: int) -> dict[str, Any]:
    """Return each target's scores with intervals (block bootstrap over bars), and simple baselines beside them."""
    if not len(answers):
        return {"rows": 0}
    bootstrap = Bootstrap(
        answers.time, block=config.block, count=config.bootstrap, confidence=config.confidence, seed=seed
    )
    found: dict[str, Any] = {"rows": len(answers)}
    for target, names in _SCORES.items():
        actual, forecast = answers.actual[target], answers.forecast[target]  # type: ignore[index]  # a Target by construction
        found[target] = {name: bootstrap.interval(METRICS[name], actual, forecast).as_dict() for name in names}
    up = float(answers.actual["direction"].mean())
    found["direction"]["majority"] = max(up, 1 - up)
    inside = (answers.actual["range"] >= answers.low) & (answers.actual["range"] <= answers.high)
    found["range"]["coverage"] = float(inside.mean())
    return found


@dataclass(frozen=True)
class Recovery:
    """How a policy came back from a drift.

    Attributes
    ----------
    before, trough, after
        Accuracy in expectation before the drift, at its worst, and over the last stretch.
    lost, regained
        Points between `before` and `trough`, and between `trough` and `after`.
    half_time
        Bars from the drift until half of what was lost is regained for good; None if it never is.
    """

    before: float
    trough: float
    after: float
    lost: float
    regained: float
    half_time: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return dict(vars(self))


def recovery(steps: Any, score: Floats, *, drift: int, stretch: int) -> Recovery:
    """Return how a score per answer, in time order, came back after the drift.

    Parameters
    ----------
    steps
        Step of each answer (n,).
    score
        One value an answer, the higher the better: 1 for a right call, or its probability of being right.
    stretch
        Bars over which the score is averaged.
    """
    before = float(score[(steps >= drift - stretch) & (steps < drift)].mean())
    since = steps >= drift
    bars = steps[since] - drift
    values = score[since]
    total = np.bincount(bars, values)
    count = np.bincount(bars)
    kernel = np.ones(min(stretch, len(total)))
    rolling = np.convolve(total, kernel, "valid") / np.maximum(np.convolve(count, kernel, "valid"), 1)
    trough = float(rolling.min())
    after = float(values[bars >= bars.max() - stretch].mean())
    half = trough + (before - trough) / 2
    below = np.flatnonzero(rolling < half)
    # A mean over bars [i, i + stretch) that is above says that the models in it are: the stretch begins at i.
    half_time = int(below[-1]) + 1 if len(below) and below[-1] + 1 < len(rolling) else 0 if not len(below) else None
    return Recovery(before, trough, after, before - trough, after - trough, half_time)
