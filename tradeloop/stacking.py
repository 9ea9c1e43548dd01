"""Fitting the ensemble on out-of-fold forecasts: member weights, calibration, conformal intervals.

Everything is *prequential*: what is said of a fold is fitted on earlier folds only, and of those only on rows that the
fold may train on. The calibrator and the intervals are fitted on such forecasts, so they have seen the errors of a stack
that did not know the answers. The holdout has no part in any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Stack, Target
from tradeloop.ensemble import FORMAT, calibrate, combine, logit, sigmoid
from tradeloop.errors import ModelError
from tradeloop.splits import Fold, Mask, Rows

if TYPE_CHECKING:
    from tradeloop.dataset import Matrix

Members = Mapping[str, Floats]
NO_CALIBRATION: Mapping[str, Any] = {"kind": "none"}
MIN_ROWS = 100  # with fewer, weights stay equal and probabilities as they are


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold forecasts of all models: row positions and fold numbers (n,), forecasts by target and model (n,)."""

    row: Rows
    fold: NDArray[np.int64]
    forecasts: Mapping[Target, Members]


@dataclass(frozen=True)
class Stacked:
    """The specification of the ensemble, and its prequential forecasts (n,) on the out-of-fold rows."""

    spec: dict[str, Any]
    forecasts: dict[Target, Floats]


def fit_weights(space: str, members: Members, actual: Floats, *, l2: float) -> dict[str, Any]:
    """Return the target's part of the specification: members with weights, and intercept.

    ``logit``: logistic regression on the members' log odds, weights not negative. ``identity``: least squares, weights
    not negative with sum one. Both are penalised by ``l2/2 · M² · Σ (w − 1/M)²`` against the log likelihood's sum: at
    ``l2 = 1`` weights are believed a priori to lie within 1/M of equal ones.

    Parameters
    ----------
    members
        M forecasts (n,) by model: probabilities of up, or values.
    actual
        Labels (n,). Fewer than `MIN_ROWS` give equal weights.
    """
    names = sorted(members)
    equal = np.full(len(names), 1.0 / len(names))
    weights, intercept = equal, 0.0
    if len(actual) >= MIN_ROWS:
        columns = np.column_stack([members[name] for name in names])
        precision = l2 * len(names) ** 2
        if space == "logit":
            weights, intercept = _logistic(logit(columns), actual, equal, precision)
        else:
            weights, intercept = _convex(columns, actual, equal, precision)
    return {
        "space": space,
        "members": {name: {"weight": float(w)} for name, w in zip(names, weights, strict=True)},
        "intercept": float(intercept),
    }


def _logistic(z: Floats, actual: Floats, equal: Floats, precision: float) -> tuple[Floats, float]:
    from scipy.optimize import minimize

    n, m = z.shape

    def objective(theta: Floats) -> tuple[float, Floats]:
        margin = z @ theta[:m] + theta[m]
        error = sigmoid(margin) - actual
        apart = theta[:m] - equal
        loss = np.logaddexp(0.0, margin) - actual * margin
        value = loss.mean() + precision / (2 * n) * (apart @ apart)
        return float(value), np.append(error @ z + precision * apart, error.sum()) / n

    bounds = [(0.0, None)] * m + [(None, None)]
    found = minimize(
        objective, np.append(equal, 0.0), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}
    )
    return found.x[:m], float(found.x[m])


def _convex(forecasts: Floats, actual: Floats, equal: Floats, precision: float) -> tuple[Floats, float]:
    from scipy.optimize import minimize

    n, m = forecasts.shape
    centre_x, centre_y = forecasts.mean(axis=0), actual.mean()
    scale = float((actual - forecasts @ equal).std()) or 1.0
    x, y = (forecasts - centre_x) / scale, (actual - centre_y) / scale
    gram, cross = x.T @ x / n + precision / n * np.eye(m), x.T @ y / n + precision / n * equal
    found = minimize(
        lambda w: 0.5 * w @ gram @ w - cross @ w,
        equal,
        jac=lambda w: gram @ w - cross,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(m)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    weights = np.clip(found.x, 0.0, 1.0) / np.clip(found.x, 0.0, 1.0).sum()
    return weights, float(centre_y - centre_x @ weights)


def fit_calibrator(kind: str, z: Floats, label: Floats) -> dict[str, Any]:
    """Return a calibrator of log odds `z` (n,) on labels 0/1 (n,).

    ``platt``: the logistic line of largest likelihood, its slope not negative. A stack that ranks worse than chance out
    of fold gets slope 0, which says the base rate: an edge is never made of a forecast that is wrong by turning it round.
    ``isotonic``: the monotone steps of largest likelihood, kept off 0 and 1 by ``1/(n + 2)``.
    """
    if kind == "none" or len(z) < MIN_ROWS:
        return dict(NO_CALIBRATION)
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        edge = 1.0 / (len(z) + 2)
        steps = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip").fit(z, label)
        return {"kind": "isotonic", "x": steps.X_thresholds_.tolist(), "y": steps.y_thresholds_.tolist()}
    slope, intercept = _logistic(z[:, None], label, np.zeros(1), 0.0)
    return {"kind": "platt", "slope": float(slope[0]), "intercept": intercept}


def fit_conformal(scale: str, residual: Floats, log_range: Floats, *, coverage: float) -> dict[str, Any]:
    """Return the quantiles of the scaled residuals between which a new one lies with probability `coverage`.

    Split-conformal, each tail apart, with the finite-sample correction: of n exchangeable scores the next lies at or
    below the k-th smallest with probability at least ``k / (n + 1)`` (Lei et al. 2018; scaled residuals, section 5.2).

    Parameters
    ----------
    scale
        ``range`` divides residuals by ``exp(log_range)``, the forecast volatility per bar; ``none`` does not.
    residual, log_range
        Label less forecast, and forecast log range, both (n,).

    Raises
    ------
    ModelError
        If n is too small for the coverage.
    """
    scores = np.sort(residual / np.exp(log_range) if scale == "range" else residual)
    n, tail = len(scores), (1.0 - coverage) / 2
    low, high = int(np.floor((n + 1) * tail)), int(np.ceil((n + 1) * (1.0 - tail)))
    if low < 1 or high > n:
        needed = int(np.ceil(1.0 / tail)) - 1
        raise ModelError(f"intervals of coverage {coverage} need at least {needed} out-of-fold rows, got {n}")
    return {"scale": scale, "low": float(scores[low - 1]), "high": float(scores[high - 1])}


def fit_stack(matrix: Matrix, oof: OutOfFold, folds: Sequence[Fold], holdout: Fold, *, config: Stack) -> Stacked:
    """Fit the ensemble.

    1. Weights for each fold from earlier folds (equal ones for the first), and the fold's forecasts by them.
    2. Calibrator and conformal quantiles from those forecasts.
    3. Final weights from all folds, on the rows that may train before the holdout.
    """
    known = [_known(oof, fold, len(matrix.x)) for fold in folds]
    final = _known(oof, holdout, len(matrix.x))
    actual = {target: matrix.y[target][oof.row] for target in TARGETS}
    stacked: dict[Target, Floats] = {}
    parts: dict[str, dict[str, Any]] = {}
    for target in TARGETS:
        space = "logit" if target == "direction" else "identity"
        members = oof.forecasts[target]
        stacked[target] = np.empty(len(oof.row))
        for fold, before in zip(folds, known, strict=True):
            here = oof.fold == fold.number
            part = fit_weights(space, _at(members, before), actual[target][before], l2=config.l2)
            stacked[target][here] = combine(part, _at(members, here))
        parts[target] = fit_weights(space, _at(members, final), actual[target][final], l2=config.l2)
    margin, label = stacked["direction"], actual["direction"]
    parts["direction"]["calibrator"] = fit_calibrator(config.calibration, margin[final], label[final])
    stacked["direction"] = np.empty(len(oof.row))
    for fold, before in zip(folds, known, strict=True):
        here = oof.fold == fold.number
        stacked["direction"][here] = calibrate(
            fit_calibrator(config.calibration, margin[before], label[before]), margin[here]
        )
    for target, scale in (("return", "range"), ("range", "none")):
        residual = (actual[target] - stacked[target])[final]
        parts[target]["conformal"] = fit_conformal(
            scale, residual, stacked["range"][final], coverage=config.coverage
        )
    return Stacked(_spec(matrix, parts, config), stacked)


def _known(oof: OutOfFold, fold: Fold, rows: int) -> Mask:
    """Return which out-of-fold rows lie in earlier folds and may train before `fold`."""
    trains = np.zeros(rows, dtype=bool)
    trains[fold.train] = True
    known: Mask = trains[oof.row] & ((oof.fold < fold.number) | (fold.number < 0))
    return known


def _at(members: Members, rows: Mask) -> dict[str, Floats]:
    return {name: forecast[rows] for name, forecast in members.items()}


def _spec(matrix: Matrix, parts: Mapping[str, dict[str, Any]], config: Stack) -> dict[str, Any]:
    for target, part in parts.items():
        for name, member in part["members"].items():
            member["file"] = f"{name}/{target}.onnx"
    schema = {"hash": matrix.schema.hash, "names": list(matrix.schema.names)}
    return {
        "format": FORMAT,
        "market": matrix.schema.market,
        "schema": schema,
        "coverage": config.coverage,
        "targets": dict(parts),
    }
