"""Champions and challengers of known worth, fitted by tradeloop's own models, folds and calibration.

All are XGBoost on the features of one synthetic market; what makes each of them good or bad is done to its training
rows, and to nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.config import TARGETS, Params, Target, XGBoostParams, load_params
from tradeloop.dataset import Matrix
from tradeloop.ensemble import calibrate, logit, sigmoid
from tradeloop.features import specs_for
from tradeloop.loop.losses import Forecasts
from tradeloop.models import open_model
from tradeloop.models.base import Model
from tradeloop.robustness import permute_timestamps
from tradeloop.simulation.world import World, build_world, take
from tradeloop.splits import walk_forward
from tradeloop.stacking import fit_calibrator

ROOT = Path(__file__).resolve().parents[1]
LEAKED = "weekday_cos"
"""The feature in whose place the label leaks."""
RANDOM = 50
BACKTEST = 200
SMALL = XGBoostParams(n_estimators=60, learning_rate=0.07)


def parameters(bars: int, *, accuracy: float, drift_bar: int | None = None) -> Params:
    """Return params.yaml's parameters on a synthetic market, with small models and few folds."""
    raw = load_params(ROOT / "params.yaml").model_dump(mode="json")
    planted = {"bars": bars, "bayes_accuracy": accuracy, "drift_bar": drift_bar, "drift": "sign_flip"}
    raw["markets"]["synthetic"]["synthetic"] |= planted
    raw["market"] = "synthetic"
    raw["train"]["xgboost"] |= SMALL.model_dump()
    raw["split"]["folds"] = 2
    raw["evaluate"]["bootstrap"] = 200
    # What is planted is an edge of 60%: an AUC about 0.65 is no leak here.
    raw["gate"]["max_direction_auc"] = 0.72
    return Params.model_validate(raw)


@dataclass(frozen=True)
class Market:
    """A synthetic market: row i of `matrix` was made at its time, and its label is known."""

    params: Params
    world: World

    @property
    def matrix(self) -> Matrix:
        """All rows."""
        return self.world.matrix

    def bars(self, row: int) -> dict[str, Bars]:
        """Return the bars that had closed when the labels before a row had ended."""
        now = self.matrix.label_end[row - 1]
        return {name: bars[: int((bars.timestamp <= now).sum())] for name, bars in self.world.bars.items()}


def make_market(params: Params, seed: int) -> Market:
    """Return one market; the same seed with a drift is the same market until the drift."""
    params = params.model_copy(update={"seed": seed})
    return Market(params, build_world(params, root=ROOT))


@dataclass(frozen=True)
class Fitted:
    """A model of each target over the columns `use` of the features, and the direction's calibrator."""

    models: dict[Target, Model[XGBoostParams]]
    calibrator: dict[str, object]
    use: NDArray[np.intp]

    def forecast(self, x: NDArray[np.float32]) -> dict[Target, Floats]:
        """Return p_up, log return and log range (n,) of feature rows."""
        rows = np.ascontiguousarray(x[:, self.use])
        raw = {target: self.models[target].predict(rows) for target in TARGETS}
        return raw | {"direction": calibrate(self.calibrator, logit(raw["direction"]))}


def fit(matrix: Matrix, params: Params, *, use: NDArray[np.intp] | None = None, seed: int = 0) -> Fitted:
    """Fit on all rows of `matrix`; the calibrator on walk-forward folds within them."""
    use = np.arange(matrix.x.shape[1]) if use is None else use
    x = np.ascontiguousarray(matrix.x[:, use])

    def model(target: Target, rows: NDArray[np.intp]) -> Model[XGBoostParams]:
        return open_model("xgboost")(target, SMALL, seed=seed).fit(x[rows], matrix.y[target][rows])

    margins, labels = [], []
    for fold in walk_forward(matrix.timestamp, matrix.label_end, params.split):
        margins.append(logit(model("direction", fold.train).predict(x[fold.test])))
        labels.append(matrix.y["direction"][fold.test])
    z, label = np.concatenate(margins), np.concatenate(labels)
    calibrator = fit_calibrator("platt", z, label, bars=len(z))
    return Fitted({target: model(target, np.arange(len(x))) for target in TARGETS}, calibrator, use)


def rows(matrix: Matrix, start: int, stop: int) -> Matrix:
    """Return a stretch of rows."""
    return take(matrix, np.arange(start, stop))


def shuffled(matrix: Matrix, seed: int, *, before: int | None = None) -> Matrix:
    """Return the matrix with the labels of its first `before` rows dealt anew."""
    y = {target: values.copy() for target, values in matrix.y.items()}
    part = slice(0, before)
    for target, values in y.items():
        values[part] = permute_timestamps(matrix.timestamp[part], matrix.y[target][part], seed=seed)
    return replace(matrix, y=y)


def leaked(matrix: Matrix, seed: int, *, noise: float) -> Matrix:
    """Return the matrix with the return to come, and noise of so many times its size, in the place of a feature."""
    x, ret = matrix.x.copy(), matrix.y["return"]
    blur = np.random.default_rng(seed).standard_normal(len(ret)) * noise * ret.std()
    x[:, matrix.schema.names.index(LEAKED)] = ret + blur
    return replace(matrix, x=x)


def unleaked(matrix: Matrix, seed: int, *, noise: float) -> NDArray[np.float32]:
    """Return the features as they are live: the same values in the leak's place, and they know nothing."""
    x = leaked(matrix, seed, noise=noise).x
    place = matrix.schema.names.index(LEAKED)
    x[:, place] = np.random.default_rng(seed).permutation(x[:, place])
    return x


def blind(matrix: Matrix, params: Params) -> NDArray[np.intp]:
    """Return the columns of volatility: they tell the range, and nothing of the direction."""
    names = {spec.name for spec in specs_for(params) if spec.family == "volatility"}
    return np.array([place for place, name in enumerate(matrix.schema.names) if name in names])


def luckiest(base: dict[Target, Floats], matrix: Matrix, *, upto: int, seed: int) -> dict[Target, Floats]:
    """Return, of random variations of good forecasts, the one that did best over the 200 rows before `upto`.

    Each adds a random projection of the features to each forecast: noise that a backtest of 200 rows may like.
    """
    rng = np.random.default_rng(seed)
    z = (matrix.x - matrix.x.mean(axis=0)) / np.maximum(matrix.x.std(axis=0), 1e-9)
    window, best, found = slice(upto - BACKTEST, upto), -np.inf, base
    for _ in range(RANDOM):
        noise = z @ (rng.standard_normal((z.shape[1], 3)) / np.sqrt(z.shape[1]))
        tried: dict[Target, Floats] = {
            "direction": sigmoid(logit(base["direction"]) + 0.3 * noise[:, 0]),
            "return": base["return"] + 0.1 * matrix.y["return"].std() * noise[:, 1],
            "range": base["range"] + 0.1 * noise[:, 2],
        }
        gain = sum(float(((_loss(base, matrix, t) - _loss(tried, matrix, t))[window]).mean()) for t in TARGETS)
        if gain > best:
            best, found = gain, tried
    return found


def _loss(forecast: dict[Target, Floats], matrix: Matrix, target: Target) -> Floats:
    """Return the loss of each row, over the median of its size."""
    actual = matrix.y[target]
    if target == "direction":
        p = forecast[target]
        return np.asarray(-np.log(np.where(actual > 0.5, p, 1 - p)) / np.log(2))
    error = (actual - forecast[target]) ** 2
    return np.asarray(error / np.median(error))


def stream(forecast: dict[Target, Floats]) -> list[Forecasts]:
    """Return forecasts (n,) as the rollout knows them."""
    columns = (forecast[target].tolist() for target in TARGETS)
    return [Forecasts(*each) for each in zip(*columns, strict=True)]
