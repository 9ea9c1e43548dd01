"""Fitting the ensemble on out-of-fold forecasts: member weights, calibration, conformal intervals.

Everything is *prequential*: what is said of a fold is fitted on earlier folds only, and of those only on rows that the
fold may train on. The calibrator and the intervals are fitted on such forecasts, so they have seen the errors of a
stack that did not know the answers. The holdout has no part in any of it.
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
_SCALES: Mapping[Target, str] = {"return": "range", "range": "none"}
_SLACK = 1e-9  # (1 - .9) / 2 is a little less than .05
MIN_ROWS = 100  # with fewer, weights stay equal and probabilities as they are
PLATT_PRECISION = np.array([1 / 0.5**2, 1 / 0.05**2])  # of slope and intercept, see `fit_calibrator`


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
    """Return the target's part of the specification: members with weights, and an intercept of zero.

    ``logit``: logistic regression on the members' log odds, weights not negative. ``identity``: least squares, weights
    not negative with sum one. Both are penalised by ``l2/2 · M² · Σ (w − 1/M)²`` against the log likelihood's sum: at
    ``l2 = 1`` weights are believed a priori to lie within 1/M of equal ones.

    No intercept is fitted: the members know their training rows' mean, and the mean of a year of returns or volatility
    says next to nothing of the next (fitted out of fold, it made every target's forecasts worse).

    Parameters
    ----------
    members
        M forecasts (n,) by model: probabilities of up, or values.
    actual
        Labels (n,). Fewer than `MIN_ROWS` give equal weights.
    """
    names = sorted(members)
    weights = np.full(len(names), 1.0 / len(names))
    if len(actual) >= MIN_ROWS:
        columns = np.column_stack([members[name] for name in names])
        precision = l2 * len(names) ** 2
        if space == "logit":
            weights = _logistic(logit(columns), actual, centre=weights, precision=np.full(len(names), precision))
        else:
            weights = _convex(columns, actual, weights, precision=precision)
    return {
        "space": space,
        "members": {name: {"weight": round(float(w), 9)} for name, w in zip(names, weights, strict=True)},
        "intercept": 0.0,
    }


def _logistic(
    z: Floats, actual: Floats, *, centre: Floats, precision: Floats, each: float = 1.0, free: int | None = None
) -> Floats:
    """Return the coefficients of columns `z` (n, m) of largest penalised likelihood, none negative but number `free`.

    The penalty is ``½ · precision · (w − centre)²``; a row's log likelihood counts `each`.
    """
    from scipy.optimize import minimize

    n = len(z)

    def objective(w: Floats) -> tuple[float, Floats]:
        margin, apart = z @ w, w - centre
        loss = np.logaddexp(0.0, margin) - actual * margin
        value = each * loss.sum() + 0.5 * float(precision @ apart**2)
        gradient = each * (sigmoid(margin) - actual) @ z + precision * apart
        return value / n, gradient / n

    bounds = [(None if column == free else 0.0, None) for column in range(z.shape[1])]
    found = minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14})
    return np.asarray(found.x)


def _convex(forecasts: Floats, actual: Floats, equal: Floats, *, precision: float) -> Floats:
    """Return the weights, not negative and of sum one, of least penalised squares about a Gaussian error."""
    from scipy.optimize import minimize

    n, m = forecasts.shape
    scale = float((actual - forecasts @ equal).std()) or 1.0
    # With weights of sum one, Σ w·f − y is Σ w·(f − y): small numbers, whatever the level of the target.
    error = (forecasts - actual[:, None]) / scale
    gram = error.T @ error / n
    found = minimize(
        lambda w: 0.5 * w @ gram @ w + 0.5 * precision / n * ((w - equal) ** 2).sum(),
        equal,
        jac=lambda w: gram @ w + precision / n * (w - equal),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda _: np.ones(m)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    weights = np.clip(found.x, 0.0, 1.0)
    return np.asarray(weights / weights.sum())


def fit_calibrator(kind: str, z: Floats, label: Floats, *, bars: int) -> dict[str, Any]:
    """Return a calibrator of log odds `z` (n,) on labels 0/1 (n,).

    ``platt``: the logistic line of largest posterior. A priori the slope is 1 ± ½ (not negative) and the intercept
    0 ± .05: log odds are right as they are until the rows say otherwise, and a period's base rate is mostly chance. A
    stack that ranks worse than chance out of fold gets slope 0, which says the base rate: no edge is made by turning
    round a forecast that was wrong. ``isotonic``: the monotone steps of largest likelihood, kept off 0 and 1 by
    ``1/(n + 2)``.

    Parameters
    ----------
    bars
        How many distinct timestamps the rows have. The symbols of one bar rise and fall together, so they count as one
        observation.
    """
    if kind == "none" or len(z) < MIN_ROWS:
        return {"kind": "none"}
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        edge = 1.0 / (len(z) + 2)
        steps = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip").fit(z, label)
        return {"kind": "isotonic", "x": steps.X_thresholds_.tolist(), "y": steps.y_thresholds_.tolist()}
    columns = np.column_stack([z, np.ones(len(z))])
    slope, intercept = _logistic(
        columns, label, centre=np.array([1.0, 0.0]), precision=PLATT_PRECISION, each=bars / len(z), free=1
    )
    return {"kind": "platt", "slope": round(float(slope), 9), "intercept": round(float(intercept), 9)}


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
    low = int(np.floor((n + 1) * tail + _SLACK))
    high = n + 1 - low
    if low < 1:
        needed = int(np.ceil(1.0 / tail - _SLACK)) - 1
        raise ModelError(f"intervals of coverage {coverage} need at least {needed} out-of-fold rows, got {n}")
    return {"scale": scale, "low": float(scores[low - 1]), "high": float(scores[high - 1])}


def fit_stack(matrix: Matrix, oof: OutOfFold, folds: Sequence[Fold], holdout: Fold, *, config: Stack) -> Stacked:
    """Fit the ensemble.

    1. Weights for each fold from earlier folds (equal ones for the first), and the fold's forecasts by them.
    2. Calibrator and conformal quantiles from those forecasts, of all folds: quantiles of the newest folds alone
       covered the next fold no better.
    3. Final weights from all folds, on the rows that may train before the holdout.
    """
    known = [(oof.fold == fold.number, _known(oof, fold, len(matrix.x))) for fold in folds]
    final = _known(oof, holdout, len(matrix.x))
    actual = {target: matrix.y[target][oof.row] for target in TARGETS}
    stacked: dict[Target, Floats] = {}
    parts: dict[Target, dict[str, Any]] = {}
    for target in TARGETS:
        space = "logit" if target == "direction" else "identity"
        members = oof.forecasts[target]
        stacked[target] = np.empty(len(oof.row))
        for here, before in known:
            part = fit_weights(space, _at(members, before), actual[target][before], l2=config.l2)
            stacked[target][here] = combine(part, _at(members, here))
        parts[target] = fit_weights(space, _at(members, final), actual[target][final], l2=config.l2)

    def calibrator(rows: Mask) -> dict[str, Any]:
        bars = len(np.unique(matrix.timestamp[oof.row[rows]]))
        return fit_calibrator(config.calibration, margin[rows], actual["direction"][rows], bars=bars)

    margin = stacked["direction"]
    parts["direction"]["calibrator"] = calibrator(final)
    stacked["direction"] = np.empty(len(oof.row))
    for here, before in known:
        stacked["direction"][here] = calibrate(calibrator(before), margin[here])
    for target, scale in _SCALES.items():
        residual = (actual[target] - stacked[target])[final]
        parts[target]["conformal"] = fit_conformal(scale, residual, stacked["range"][final], coverage=config.coverage)
    return Stacked(_spec(matrix, parts, config), stacked)


def _known(oof: OutOfFold, fold: Fold, rows: int) -> Mask:
    """Return which out-of-fold rows `fold` may train on: those of earlier folds that purge and embargo leave."""
    trains = np.zeros(rows, dtype=bool)
    trains[fold.train] = True
    return trains[oof.row]


def _at(members: Members, rows: Mask) -> dict[str, Floats]:
    return {name: forecast[rows] for name, forecast in members.items()}


def _spec(matrix: Matrix, parts: Mapping[Target, dict[str, Any]], config: Stack) -> dict[str, Any]:
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
