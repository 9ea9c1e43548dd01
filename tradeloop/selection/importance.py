"""What a small boosted model leans on, on rows that it was not fitted on: SHAP values and permutation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.splits import Fold

Features = NDArray[np.float32]

ROUNDS = 80
SETTINGS = {"max_depth": 3, "learning_rate": 0.1, "subsample": 0.6, "colsample_bytree": 0.4, "reg_lambda": 10.0}
LEAVES = 100  # at most; a leaf holds at least this share of the rows
REPEATS = 2
SHOWN = 1000  # of the test rows, evenly spread, at most


def importance(x: Features, y: Floats, fold: Fold, *, seed: int) -> tuple[Floats, Floats]:
    """Return two importances (d,) of each column, by a model fitted on the fold's training rows, on `SHOWN` test rows.

    - Mean absolute SHAP value, in the label's unit: Lundberg et al. (2020), From local explanations to global
      understanding with explainable AI for trees. The booster's own ``pred_contribs`` is that algorithm (TreeExplainer
      gives the same numbers, and takes longer).
    - Permutation: by how much the mean squared error grows when the column is dealt anew to the rows (Breiman 2001), as
      a share of it; the mean of `REPEATS` deals. Exactly 0 for a column that the model does not read.

    Squared error for every target: of a label 0 or 1 it is the Brier score.
    """
    import xgboost

    train, centre = fold.train, float(y[fold.train].mean())
    test = fold.test[np.unique(np.linspace(0, len(fold.test) - 1, SHOWN).astype(np.intp))]
    settings = SETTINGS | {"min_child_weight": len(train) / LEAVES, "base_score": 0.0, "nthread": 1, "seed": seed}
    booster = xgboost.train(settings, xgboost.DMatrix(x[train], y[train] - centre), ROUNDS)
    shown, label = x[test], y[test] - centre
    contributions = booster.predict(xgboost.DMatrix(shown), pred_contribs=True)[:, :-1]
    shap = np.abs(contributions).mean(axis=0, dtype=np.float64)

    def error(rows: Features) -> float:
        return float(np.mean((label - booster.inplace_predict(rows)) ** 2))

    rng = np.random.default_rng(seed)
    base, lost, dealt = error(shown), np.zeros(x.shape[1]), shown.copy()
    for column in np.flatnonzero(shap):
        for _ in range(REPEATS):
            dealt[:, column] = rng.permutation(shown[:, column])
            lost[column] += (error(dealt) - base) / (REPEATS * base)
        dealt[:, column] = shown[:, column]
    return shap, lost
