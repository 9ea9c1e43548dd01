"""Gradient-boosted trees (Chen and Guestrin 2016), XGBoost's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tradeloop.atomic import write_bytes
from tradeloop.bars import Floats
from tradeloop.config import XGBoostParams
from tradeloop.models.base import Features, Model, Real, Space, Whole
from tradeloop.splits import Fold

_THREADS = 1  # fixed: histogram sums depend on it, and small trees gain little from more


class XGBoost(Model[XGBoostParams]):
    """Boosted trees on histograms: logistic loss for direction, squared error for return and range."""

    params_type = XGBoostParams
    space: ClassVar[Mapping[str, Space]] = {
        "n_estimators": Whole(50, 600, log=True),
        "max_depth": Whole(2, 6),
        "learning_rate": Real(0.01, 0.1, log=True),
        "min_child_weight": Real(5.0, 200.0, log=True),
        "subsample": Real(0.4, 1.0),
        "colsample_bytree": Real(0.2, 1.0),
        "reg_lambda": Real(0.5, 100.0, log=True),
    }

    def _fit(self, x: Features, y: Floats, early: Fold | None) -> None:
        import xgboost

        del early
        logistic = self.target == "direction"
        # Sums about zero keep more digits than log ranges about -4.5, in the booster and in the graph.
        self._centre = 0.0 if logistic else float(y.mean())
        settings = self.params.model_dump(exclude={"n_estimators"}) | {
            # "reg:" for direction too: the same loss as binary:logistic, under the name that the exporter can read.
            "objective": "reg:logistic" if logistic else "reg:squarederror",
            "base_score": float(y.mean()) if logistic else 0.0,
            "tree_method": "hist",
            "nthread": _THREADS,
            "seed": self.seed,
        }
        self._booster: Any = xgboost.train(settings, xgboost.DMatrix(x, y - self._centre), self.params.n_estimators)
        self._booster.set_attr(centre=repr(self._centre))

    def _predict(self, x: Features) -> NDArray[Any]:
        return self._centre + np.asarray(self._booster.inplace_predict(x), dtype=np.float64)

    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx``, and ``<target>.json`` in XGBoost's own format.

        The JSON's attribute ``centre`` is to be added to what it predicts.
        """
        from tradeloop.models.onnx import from_booster, save

        logistic = self.target == "direction"
        model = from_booster(self._booster, self.width, centre=self._centre, logistic=logistic)
        save(model, folder / f"{self.target}.onnx", self.width)
        write_bytes(folder / f"{self.target}.json", bytes(self._booster.save_raw("json")))
