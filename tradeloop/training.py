"""Fitting on the splits: one fold, all folds out of fold, and the scores that tuning and reports read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Params, Target
from tradeloop.metrics import METRICS
from tradeloop.models import open_model
from tradeloop.models.base import Forecaster
from tradeloop.selection.chosen import EVERY, Chosen
from tradeloop.splits import Fold, Rows, tail_validation

if TYPE_CHECKING:
    import pandas as pd

    from tradeloop.dataset import Matrix

# The first of each is what tuning minimises.
FOLD_METRICS: Mapping[Target, tuple[str, ...]] = {
    "direction": ("log_loss", "auc"),
    "return": ("rmse", "ic"),
    "range": ("rmse", "r2"),
}


def fit(
    name: str,
    matrix: Matrix,
    target: Target,
    rows: Rows,
    *,
    hyper: Any,
    params: Params,
    columns: Rows | None = None,
) -> Forecaster:
    """Fit the model `name` on the training rows `rows`.

    Parameters
    ----------
    hyper
        Hyperparameters, of the model's `params_type`.
    params
        For the seed, and the embargo of the validation split of models that stop early.
    columns
        Positions of the features that it may read; None: all.
    """
    model = open_model(name)(target, hyper, seed=params.seed)
    early = None
    if model.early_stopping:
        times, ends = matrix.timestamp[rows], matrix.label_end[rows]
        early = tail_validation(times, ends, share=hyper.validation, embargo=params.split.embargo)
    if columns is None:
        return model.fit(matrix.x[rows], matrix.y[target][rows], early=early)
    from tradeloop.models._columns import OnColumns

    model.fit(matrix.x[np.ix_(rows, columns)], matrix.y[target][rows], early=early)
    return OnColumns(model, columns, matrix.x.shape[1])


def out_of_fold(
    name: str,
    matrix: Matrix,
    target: Target,
    folds: Sequence[Fold],
    *,
    hyper: Any,
    params: Params,
    chosen: Chosen = EVERY,
) -> Iterator[Floats]:
    """Yield, fold by fold, the forecasts of its test rows by a model of its training rows and its chosen columns."""
    for fold in folds:
        columns = chosen.of(target, fold.number)
        model = fit(name, matrix, target, fold.train, hyper=hyper, params=params, columns=columns)
        yield model.predict(matrix.x[fold.test])


def score(target: Target, actual: Floats, forecast: Floats) -> dict[str, float | None]:
    """Return the fold metrics of one fold; None where a metric is not defined (IC of a constant forecast)."""
    values = {name: METRICS[name](actual, forecast) for name in FOLD_METRICS[target]}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def forecast_frame(folds: Sequence[Fold], forecasts: Mapping[Target, Sequence[Floats]]) -> pd.DataFrame:
    """Return out-of-fold forecasts as a frame of (row, fold, direction, return, range), in fold order."""
    import pandas as pd

    columns: dict[str, Any] = {
        "row": np.concatenate([fold.test for fold in folds]).astype(np.int64),
        "fold": np.concatenate([np.full(len(fold.test), fold.number, dtype=np.int64) for fold in folds]),
    }
    return pd.DataFrame(columns | {target: np.concatenate(forecasts[target]) for target in TARGETS})
