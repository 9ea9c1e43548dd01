"""A linear member that goes on learning: River's models, exported as plain coefficients.

It learns how far the truth lies from the packaged forecast: of direction, log odds by logistic regression on the
features and the packaged log odds, starting at those; of return and range, the residual in units by linear regression
on the features, starting at nothing. So it begins as the packaged forecast itself, and the service that applies it
never needs River.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tradeloop.adaptation import STANDARD
from tradeloop.config import TARGETS, Adapt, Target
from tradeloop.loop.mixing import State, limited

if TYPE_CHECKING:
    from tradeloop.bars import Floats

_PACKAGED = "packaged forecast"  # no feature is called so: names have no spaces
_BURN_IN = 50  # outcomes from which the scaler learns before the models do
_MOST = 9.5  # within the bounds of a snapshot's coefficients
_PENALTY = 1e-3


class OnlineMember:
    """One scaler and three linear models over the features of a bundle."""

    def __init__(self, names: Sequence[str], config: Adapt) -> None:
        self._names = list(names)
        self._config = config
        self._scaler: Any = None
        self._models: dict[Target, Any] = {}
        self._seen = 0
        for target in TARGETS:
            self.forget(target)

    def forget(self, target: Target) -> None:
        """Go back to the packaged forecast; what is known of the features' scale is kept."""
        from river import linear_model, optim, preprocessing

        # The step of all weights together is what must be small: the more features, the less for each.
        rate = self._config.learning_rate / len(self._names)
        self._scaler = self._scaler or preprocessing.StandardScaler()
        kind = linear_model.LogisticRegression if target == "direction" else linear_model.LinearRegression
        model = kind(optimizer=optim.SGD(rate), intercept_lr=rate, l2=_PENALTY, clip_gradient=_MOST)
        packaged = {_PACKAGED: 1.0} if target == "direction" else {}
        _set_weights(model, dict.fromkeys(self._names, 0.0) | packaged)
        self._models[target] = model

    def features(self, x: Floats) -> dict[str, float]:
        """Return a feature row (d,) as the models see it, scaled by what was known before."""
        scaled = self._scaler.transform_one(dict(zip(self._names, x.tolist(), strict=True)))
        return {name: limited(value, -STANDARD, STANDARD) for name, value in scaled.items()}

    def apart(self, target: Target, features: dict[str, float], base: float) -> float:
        """Return how far from the packaged forecast the member lies, in units; `base` is that forecast in units."""
        if self._seen < _BURN_IN:
            return 0.0
        model = self._models[target]
        if target != "direction":
            return float(model.predict_one(features))
        p = limited(model.predict_proba_one(features | {_PACKAGED: base})[True], 1e-9, 1.0 - 1e-9)
        return math.log(p / (1.0 - p)) - base

    def learn(self, x: Floats, features: dict[str, float], truths: dict[Target, tuple[float, float]]) -> None:
        """Learn from one outcome.

        Parameters
        ----------
        x, features
            The row, as it is and as `features` returned it.
        truths
            By target, the packaged forecast in units, and the label: 0 or 1, or the residual in units.
        """
        if self._seen >= _BURN_IN:
            for target, (base, label) in truths.items():
                if target == "direction":
                    self._models[target].learn_one(features | {_PACKAGED: base}, label > 0.5)
                else:
                    self._models[target].learn_one(features, limited(label, -3.0, 3.0))
        self._scaler.learn_one(dict(zip(self._names, x.tolist(), strict=True)))
        self._seen += 1

    def scaler(self) -> dict[str, list[float]] | None:
        """Return the scaler as a snapshot has it; None before there is one."""
        if self._seen < _BURN_IN:
            return None
        means, variances = self._scaler.means, self._scaler.vars
        scales = [math.sqrt(variances[name]) or 1.0 for name in self._names]
        return {"means": [means[name] for name in self._names], "scales": scales}

    def linear(self, target: Target) -> dict[str, Any] | None:
        """Return a model as a snapshot has it; None before there is one."""
        if self._seen < _BURN_IN:
            return None
        model = self._models[target]
        weights = model.weights
        tilt = weights.get(_PACKAGED, 1.0) - 1.0
        coefficients = [limited(weights[name], -_MOST, _MOST) for name in self._names]
        return {"coefficients": coefficients, "tilt": limited(tilt, -_MOST, _MOST), "bias": float(model.intercept)}

    def state(self) -> State:
        """Return what `restore` takes."""
        scaler = self._scaler
        models = {target: {"weights": model.weights, "bias": model.intercept} for target, model in self._models.items()}
        known = self._seen > 0
        return {
            "seen": self._seen,
            "means": [scaler.means[name] for name in self._names] if known else [],
            "variances": [scaler.vars[name] for name in self._names] if known else [],
            "models": models,
        }

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        from river import preprocessing

        self._seen = int(state["seen"])
        self._scaler = preprocessing.StandardScaler()
        known = self._names if self._seen else []
        for name, mean, variance in zip(known, state["means"], state["variances"], strict=True):
            self._scaler.counts[name] = self._seen
            self._scaler.means[name], self._scaler.vars[name] = mean, variance
        for target, model in self._models.items():
            stored = state["models"][target]
            _set_weights(model, stored["weights"])
            model.intercept = stored["bias"]


def _set_weights(model: Any, weights: dict[str, float]) -> None:
    """Give a River model its weights; River itself has no way to do so, nor to store a model but as a pickle."""
    from river.utils import VectorDict

    model._weights = VectorDict(dict(weights))
