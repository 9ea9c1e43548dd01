"""Scores of all forecasts of a target: the ensemble, its members, the baselines, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop import baselines
from tradeloop.bars import Floats
from tradeloop.config import Evaluate, Target
from tradeloop.evaluate.holdout import Holdout
from tradeloop.metrics import METRICS
from tradeloop.metrics.base import Metric
from tradeloop.metrics.bootstrap import Bootstrap, Score
from tradeloop.metrics.primary import LOSS, SKILL

POINT: Mapping[Target, tuple[str, ...]] = {
    "direction": ("auc", "accuracy", "log_loss", "brier", "ece"),
    "return": ("ic", "r2", "rmse", "mae"),
    "range": ("r2", "ic", "rmse", "mae"),
}
INTERVAL = ("coverage", "width", "interval_score")

Json = dict[str, Any]


def resampler(timestamp: NDArray[np.datetime64], config: Evaluate, seed: int) -> Bootstrap:
    """Return the bootstrap that the evaluate block asks for, over these timestamps."""
    return Bootstrap(timestamp, block=config.block, count=config.bootstrap, confidence=config.confidence, seed=seed)


def ensemble_forecast(holdout: Holdout, target: Target) -> Floats:
    """Return the ensemble's point forecast (m,) of the holdout."""
    forecast = holdout.forecast
    return {"direction": forecast.p_up, "return": forecast.ret, "range": forecast.range}[target]


def ensemble_interval(holdout: Holdout, target: Target) -> tuple[Floats, Floats]:
    """Return the ends (m,) of the ensemble's interval; direction has none."""
    forecast = holdout.forecast
    if target == "range":
        return forecast.range_low, forecast.range_high
    return forecast.ret_low, forecast.ret_high


def baseline_forecasts(holdout: Holdout, target: Target) -> dict[str, Floats]:
    """Return the baselines' forecasts (m,) of the holdout, by name."""
    sample = holdout.sample
    if target == "direction":
        return {"majority": baselines.majority(sample), "previous": baselines.previous_direction(sample)}
    found = {
        "mean": baselines.training_mean(sample, target),
        "previous": baselines.previous_value(sample, target),
    }
    if target == "range":
        found["ewma"] = baselines.ewma(sample, holdout.bars, holdout.labels.range)
        found["har"] = baselines.har(sample, holdout.bars)
    return found


def score_target(holdout: Holdout, target: Target, bootstrap: Bootstrap) -> Json:
    """Return all scores of a target with their intervals.

    Returns
    -------
    dict
        ``metrics`` of the ensemble; ``members`` and ``baselines``: the same by name; ``differences``: by name, ensemble
        minus the other in skill and loss, and the ``gain``, the share of the other's loss (log loss, or mean squared
        error) that the ensemble saves, all paired; ``best_baseline``: the one of least loss.
    """
    actual = holdout.label(target)
    ours = _scores(target, actual, ensemble_forecast(holdout, target), bootstrap)
    members = {
        name: _scores(target, actual, forecast, bootstrap)
        for name, forecast in holdout.forecast.members[target].items()
    }
    simple = {
        name: _scores(target, actual, forecast, bootstrap)
        for name, forecast in baseline_forecasts(holdout, target).items()
    }
    metrics = _as_json(ours)
    if target != "direction":
        metrics |= _interval_scores(holdout, target, actual, bootstrap)
    return {
        "metrics": metrics,
        "members": {name: _as_json(scores) for name, scores in members.items()},
        "baselines": {name: _as_json(scores) for name, scores in simple.items()},
        "differences": {name: _difference(target, ours, scores) for name, scores in (simple | members).items()},
        "best_baseline": min(simple, key=lambda name: simple[name][LOSS[target]].value),
    }


def slices(holdout: Holdout, config: Evaluate, seed: int) -> Json:
    """Return each target's skill with its interval and rows, by symbol and by calendar year (UTC) of the feature."""
    year = holdout.timestamp.astype("datetime64[Y]").astype(str)
    return {
        kind: {str(key): _slice(holdout, values == key, config, seed) for key in np.unique(values.astype(str))}
        for kind, values in (("symbol", holdout.symbol.astype(str)), ("year", year))
    }


def _slice(holdout: Holdout, rows: NDArray[np.bool_], config: Evaluate, seed: int) -> Json:
    bootstrap = resampler(holdout.timestamp[rows], config, seed)
    skill: Json = {
        target: bootstrap.interval(
            METRICS[metric], holdout.label(target)[rows], ensemble_forecast(holdout, target)[rows]
        ).as_dict()
        for target, metric in SKILL.items()
    }
    return {"rows": int(rows.sum()), **skill}


def _scores(target: Target, actual: Floats, forecast: Floats, bootstrap: Bootstrap) -> dict[str, Score]:
    return {name: bootstrap.score(METRICS[name], actual, forecast) for name in POINT[target]}


def _difference(target: Target, ours: Mapping[str, Score], theirs: Mapping[str, Score]) -> Json:
    skill, loss = SKILL[target], LOSS[target]
    gain = ours[loss].gain(theirs[loss], power=2 if loss == "rmse" else 1)
    found = {skill: ours[skill] - theirs[skill], loss: ours[loss] - theirs[loss], "gain": gain}
    return {name: score.interval.as_dict() for name, score in found.items()}


def _interval_scores(holdout: Holdout, target: Target, actual: Floats, bootstrap: Bootstrap) -> Json:
    low, high = ensemble_interval(holdout, target)

    def interval(metric: Metric) -> Json:
        options = {"level": holdout.coverage} if metric.name == "interval_score" else {}
        return bootstrap.interval(metric, actual, low, high, **options).as_dict()

    return {name: interval(METRICS[name]) for name in INTERVAL}


def _as_json(scores: Mapping[str, Score]) -> Json:
    return {name: score.interval.as_dict() for name, score in scores.items()}
