"""Scores of a point forecast. Return: gross log return; range: log of volatility per bar.

Equal to scikit-learn's ``r2_score``, ``root_mean_squared_error`` and ``mean_absolute_error`` with ``sample_weight``,
and to scipy's ``spearmanr`` (tested).
"""

from __future__ import annotations

import numpy as np

from tradeloop.metrics.base import Floats, Ranking, mean, metric


@metric("regression", "higher", reference=0.0)
def r2(actual: Floats, forecast: Floats, *, weights: Floats) -> Floats:
    """Coefficient of determination, ``1 − SSE / SST`` about the scored sample's own mean; NaN if that is constant.

    Zero is what the sample's own mean would score, which no forecaster knows beforehand: the training mean scores
    less than zero.
    """
    centred = actual - actual.mean()
    variance = mean(centred**2, weights) - mean(centred, weights) ** 2
    variance = np.where(variance > 0, variance, np.nan)
    return np.asarray(1.0 - mean((actual - forecast) ** 2, weights) / variance)


@metric("regression", "lower")
def rmse(actual: Floats, forecast: Floats, *, weights: Floats) -> Floats:
    """Root mean squared error, in the target's unit."""
    return np.sqrt(mean((actual - forecast) ** 2, weights))


@metric("regression", "lower")
def mae(actual: Floats, forecast: Floats, *, weights: Floats) -> Floats:
    """Mean absolute error, in the target's unit."""
    return mean(np.abs(actual - forecast), weights)


@metric("regression", "higher", reference=0.0)
def ic(actual: Floats, forecast: Floats, *, weights: Floats) -> Floats:
    """Information coefficient: Spearman's rank correlation over all rows pooled; NaN if either side is constant."""
    a = Ranking.of(actual).midranks(weights)
    f = Ranking.of(forecast).midranks(weights)
    a -= mean(a, weights)[:, None]
    f -= mean(f, weights)[:, None]
    scale = np.sqrt(mean(a * a, weights) * mean(f * f, weights))
    return np.asarray(mean(a * f, weights) / np.where(scale > 0, scale, np.nan))
