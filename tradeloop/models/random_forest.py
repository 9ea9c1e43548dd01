"""Random forest: averaged trees on bootstrap samples (Breiman 2001), scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import RandomForestParams
from tradeloop.models.base import Features, Model, Real, Space, Whole
from tradeloop.splits import Fold

_FIT_JOBS = 2


class RandomForest(Model[RandomForestParams]):
    """A forest of regression trees for every target.

    For 0/1 labels the variance that a regression tree reduces is half the Gini impurity, and a leaf's mean is the share
    of ups: the same forest as a classifier's, whose output is the probability.
    """

    params_type = RandomForestParams
    space: ClassVar[Mapping[str, Space]] = {
        "n_estimators": Whole(50, 400),
        "max_depth": Whole(3, 14),
        "min_samples_leaf": Whole(10, 200, log=True),
        "max_features": Real(0.05, 0.4),
        "max_samples": Real(0.1, 0.9),
    }

    def _fit(self, x: Features, y: Floats, early: Fold | None) -> None:
        from sklearn.ensemble import RandomForestRegressor

        del early
        # A graph adds up trees in float32: forecasts about zero keep more digits than log ranges about -4.5.
        self._centre = float(y.mean())
        self._forest: Any = RandomForestRegressor(
            n_estimators=self.params.n_estimators,
            max_depth=self.params.max_depth,
            min_samples_leaf=self.params.min_samples_leaf,
            max_features=self.params.max_features,
            max_samples=self.params.max_samples,
            random_state=self.seed,
            n_jobs=_FIT_JOBS,
        ).fit(x, y - self._centre)
        self._forest.n_jobs = 1  # the order in which threads add up trees would show in the last digits

    def _predict(self, x: Features) -> NDArray[Any]:
        return self._centre + np.asarray(self._forest.predict(x))

    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx``; scikit-learn has no other format that is safe to load."""
        from tradeloop.models.onnx import from_forest, save

        save(from_forest(self._forest, self.width, base=self._centre), folder / f"{self.target}.onnx", self.width)
