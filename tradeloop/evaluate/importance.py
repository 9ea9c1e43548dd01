"""Permutation importance: how much skill the ensemble loses on the holdout when one feature is dealt anew to the rows.

Breiman (2001). It says what this ensemble leans on, not what drives the market; of two features that say the same,
both look small.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tradeloop.config import TARGETS, Target
from tradeloop.ensemble import Forecast
from tradeloop.evaluate.holdout import Holdout
from tradeloop.metrics import METRICS
from tradeloop.metrics.primary import SKILL

MAX_ROWS = 1_000
REPEATS = 2
_BATCH = 20_000


def permutation_importance(holdout: Holdout, seed: int) -> pd.DataFrame:
    """Return ``feature``, ``importance`` (skill lost: AUC, IC or R²) and ``target``, greatest first within a target.

    At most `MAX_ROWS` rows, evenly spread over the holdout, and the mean of `REPEATS` deals.
    """
    rng = np.random.default_rng(seed)
    rows = np.unique(np.linspace(0, len(holdout.row) - 1, MAX_ROWS).astype(np.intp))
    x = holdout.x[holdout.row[rows]]
    labels = {target: holdout.label(target)[rows] for target in TARGETS}
    base = _skill(labels, holdout.ensemble.forecast(x), slice(None))
    names = holdout.schema.names
    lost = {target: np.zeros(len(names)) for target in TARGETS}
    per_batch = max(1, _BATCH // len(x))
    tasks = [feature for feature in range(len(names)) for _ in range(REPEATS)]
    for start in range(0, len(tasks), per_batch):
        batch = tasks[start : start + per_batch]
        dealt = np.tile(x, (len(batch), 1))
        for number, feature in enumerate(batch):
            dealt[number * len(x) : (number + 1) * len(x), feature] = rng.permutation(x[:, feature])
        forecast = holdout.ensemble.forecast(dealt)
        for number, feature in enumerate(batch):
            skill = _skill(labels, forecast, slice(number * len(x), (number + 1) * len(x)))
            for target in TARGETS:
                lost[target][feature] += (base[target] - skill[target]) / REPEATS
    frames = [pd.DataFrame({"feature": names, "importance": lost[target], "target": target}) for target in TARGETS]
    ordered = [frame.sort_values("importance", ascending=False, kind="stable") for frame in frames]
    return pd.concat(ordered, ignore_index=True)


def _skill(labels: dict[Target, np.ndarray], forecast: Forecast, rows: slice) -> dict[Target, float]:
    forecasts = {"direction": forecast.p_up, "return": forecast.ret, "range": forecast.range}
    return {target: METRICS[SKILL[target]](labels[target], forecasts[target][rows]) for target in TARGETS}
