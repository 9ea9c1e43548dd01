"""The edge: whether a target's skill is proven, or it is served as information only.

A score is evidence only if chance, and the simplest forecast, lie outside its interval:

direction
    AUC above 0.5, and log loss below that of the training prevalence: ranking without honest probabilities is no edge.
return
    IC above 0, and RMSE not above that of the training mean: the size of the forecast is used, not its order only.
range
    R² above 0, and RMSE below that of every baseline that `evaluate.range_baselines` names. By default these are the
    previous value and EWMA, which cost nothing to run. HAR is fitted to the same bars and hard to beat; how the
    ensemble compares with it is always reported, and naming it makes it a condition.

Differences are paired: both forecasts are scored on the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tradeloop.config import Target
from tradeloop.metrics.primary import LOSS, SKILL

_CHANCE: Mapping[Target, float] = {"direction": 0.5, "return": 0.0, "range": 0.0}
_NAMES = {"auc": "AUC", "ic": "IC", "r2": "R²", "log_loss": "log loss", "rmse": "RMSE"}
_DECIMALS = {"log_loss": 4, "rmse": 5}
_BASELINES = {
    "majority": "the majority class",
    "mean": "the training mean",
    "previous": "the previous value",
    "ewma": "EWMA",
    "har": "HAR",
}

Json = dict[str, Any]


def prove(target: Target, scores: Json, *, range_baselines: Sequence[str]) -> Json:
    """Return whether the target's edge is proven, and why.

    Parameters
    ----------
    scores
        What `scores.score_target` returned.
    range_baselines
        Which baselines range must beat.

    Returns
    -------
    dict
        ``proven``; ``metric``, ``value``, ``interval`` and ``reference`` of the skill; ``baseline``: the names compared
        with; ``checks``: a list of ``ok`` and ``text``.
    """
    metric = SKILL[target]
    skill = scores["metrics"][metric]
    names = {"direction": ["majority"], "return": ["mean"], "range": list(range_baselines)}[target]
    checks = [_above_chance(metric, skill, _CHANCE[target])]
    checks += [_against(target, name, scores["differences"][name][LOSS[target]]) for name in names]
    return {
        "proven": all(check["ok"] for check in checks),
        "metric": metric,
        "value": skill["value"],
        "interval": [skill["low"], skill["high"]],
        "reference": _CHANCE[target],
        "baseline": names,
        "checks": checks,
    }


def _above_chance(metric: str, skill: Json, chance: float) -> Json:
    name = _NAMES[metric]
    if skill["low"] is None:
        return {"ok": False, "text": f"{name} is not defined"}
    proven = skill["low"] > chance
    verdict = "is above" if proven else "is not proven to be above"
    return {"ok": proven, "text": f"{name} {verdict} {chance:g}: {show(metric, skill)}"}


def _against(target: Target, name: str, difference: Json) -> Json:
    metric = LOSS[target]
    what, other = _NAMES[metric], _BASELINES[name]
    if difference["low"] is None:
        return {"ok": False, "text": f"{what} against {other} is not defined"}
    if target == "return":
        proven = difference["low"] <= 0
        verdict = f"{what} is {'not above' if proven else 'above'} that of {other}"
    else:
        proven = difference["high"] < 0
        verdict = f"{what} is {'below' if proven else 'not proven to be below'} that of {other}"
    return {"ok": proven, "text": f"{verdict}: difference {show(metric, difference)}"}


def show(metric: str, score: Json) -> str:
    """Return a score with its interval as a person reads it."""
    digits = _DECIMALS.get(metric, 3)
    if score["low"] is None:
        return "undefined"
    return f"{score['value']:.{digits}f} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"
