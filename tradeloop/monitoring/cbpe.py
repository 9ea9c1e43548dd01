"""What skill to expect of predictions whose outcomes are not known yet (confidence-based, after NannyML's CBPE).

A calibrated probability says by itself how often it will be right: a call of 0.6 is right six times in ten. Averaged
over recent predictions that gives the accuracy, log loss and AUC to expect. It sees what *covariate shift* does: the
market moves to where the model is less sure. It rests on the assumption that **calibration still holds**: up comes as
often as the holdout's recalibrated probability says. Under *concept drift* it does not, and then this estimate is
blind: it goes on to promise the old skill until `degradation` finds out from outcomes. The answer says so in
`assumption`.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from tradeloop.bars import Floats
from tradeloop.ensemble import logit, sigmoid
from tradeloop.monitoring.queries import open_probabilities
from tradeloop.reference import Reference
from tradeloop.state.database import Database

ASSUMPTION = "calibration as on the holdout: shifts of the features are seen, changes of what follows from them are not"


def expected_of_open(database: Database, market: str, model: str, reference: Reference) -> dict[str, Any]:
    """Return what to expect of a model's newest open predictions: its hash as ``model``, and `expected_skill`."""
    p_up = np.array(open_probabilities(database, market, model), dtype=np.float64)
    return {"model": model, **expected_skill(p_up, reference)}


def expected_skill(p_up: Floats, reference: Reference, *, confidence: float = 0.95) -> dict[str, Any]:
    """Return what is to be expected of the outcomes of predictions.

    Parameters
    ----------
    p_up
        Probabilities (n,) of predictions without outcome; values that are not finite are left out.
    reference
        The champion's, for the recalibration and for what the holdout had.
    confidence
        Of the intervals: they hold the chance in n outcomes, and the error of the recalibration.

    Returns
    -------
    dict
        ``predictions``, ``assumption``, and ``accuracy``, ``log_loss`` and ``auc``, each ``{value, low, high,
        expected}`` with the holdout's value as `expected`, or null: of no predictions, and the AUC of equal ones. JSON,
        finite.
    """
    p = p_up[np.isfinite(p_up)]
    shown: dict[str, Any] = {"predictions": len(p), "assumption": ASSUMPTION}
    if not len(p):
        return shown | {"accuracy": None, "log_loss": None, "auc": None}
    direction = reference.direction
    x = logit(p)
    line, slope = direction.intercept, direction.slope
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def truth(intercept: float, steepness: float) -> Floats:
        return sigmoid(intercept + steepness * x)

    here = truth(line.value, slope.value)
    others = [truth(line.value + line.se, slope.value), truth(line.value, slope.value + slope.se)]
    chance = direction.design_effect * here * (1 - here)
    # Right or wrong differ by 1 in accuracy, by the log odds in log loss.
    spreads = {"accuracy": chance.sum(), "log_loss": (chance * x * x).sum()}
    for name, (measure, expected) in {
        "accuracy": (_accuracy, direction.accuracy.value),
        "log_loss": (_log_loss, direction.loss.value),
        "auc": (_auc, None),
    }.items():
        value = measure(x, here)
        if value is None:
            shown[name] = None
            continue
        by_line = sum((other - value) ** 2 for other in (measure(x, truth_) for truth_ in others) if other is not None)
        by_chance = spreads[name] / len(p) ** 2 if name in spreads else _auc_variance(value, here)
        radius, most = z * float(np.sqrt(by_line + by_chance)), np.inf if name == "log_loss" else 1.0
        low, high = max(value - radius, 0.0), min(value + radius, most)
        shown[name] = {"value": value, "low": low, "high": high, "expected": expected}
    return shown


def _accuracy(x: Floats, truth: Floats) -> float:
    return float(np.where(x >= 0, truth, 1 - truth).mean())


def _log_loss(x: Floats, truth: Floats) -> float:
    return float((np.logaddexp(0.0, x) - truth * x).mean())


def _auc(x: Floats, truth: Floats) -> float | None:
    """Return the expected AUC: over pairs, the chance that the one with the higher forecast is the one that is up."""
    _, place = np.unique(x, return_inverse=True)
    up, down = np.bincount(place, weights=truth), np.bincount(place, weights=1 - truth)
    pairs = up.sum() * down.sum() - float(truth @ (1 - truth))  # a prediction is no pair with itself
    below = np.cumsum(down) - down
    ties = up * down - np.bincount(place, weights=truth * (1 - truth))
    return float((up @ below + 0.5 * ties.sum()) / pairs) if len(up) > 1 and pairs > 0 else None


def _auc_variance(auc: float, truth: Floats) -> float:
    """Return the variance of an AUC by chance (Hanley and McNeil 1982)."""
    up = max(float(truth.sum()), 1.0)
    down = max(len(truth) - up, 1.0)
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (up - 1) * (first - auc**2) + (down - 1) * (second - auc**2)
    return max(spread, 0.0) / (up * down)
