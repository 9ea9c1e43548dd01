"""Scores of a probability of up against what happened (label 1 up, 0 not).

Equal to scikit-learn's ``roc_auc_score``, ``accuracy_score``, ``log_loss`` and ``brier_score_loss`` with
``sample_weight`` (tested); written over a matrix of weights because a bootstrap needs thousands of them.
"""

from __future__ import annotations

import numpy as np

from tradeloop.metrics.base import Floats, Ranking, mean, metric

_EPSILON = float(np.finfo(np.float64).eps)


@metric("classification", "higher", reference=0.5)
def auc(label: Floats, p_up: Floats, *, weights: Floats) -> Floats:
    """Area under the ROC curve: the chance that an up row is ranked above a down row, ties counted half."""
    ranking = Ranking.of(p_up)
    up = ranking.sums(weights * label)
    down = ranking.sums(weights) - up
    below = np.cumsum(down, axis=1) - down / 2
    return np.asarray(np.einsum("bg,bg->b", up, below) / (up.sum(axis=1) * down.sum(axis=1)))


@metric("classification", "higher", reference=0.5)
def accuracy(label: Floats, p_up: Floats, *, weights: Floats) -> Floats:
    """Share of rows whose side is called right; a probability of exactly one half calls up."""
    return mean(((p_up >= 0.5) == (label > 0.5)).astype(np.float64), weights)


@metric("classification", "lower", reference=float(np.log(2.0)))
def log_loss(label: Floats, p_up: Floats, *, weights: Floats) -> Floats:
    """Mean negative log-likelihood in nats; probabilities are kept a machine epsilon away from 0 and 1."""
    p = np.clip(p_up, _EPSILON, 1.0 - _EPSILON)
    return mean(-(label * np.log(p) + (1.0 - label) * np.log1p(-p)), weights)


@metric("classification", "lower", reference=0.25)
def brier(label: Floats, p_up: Floats, *, weights: Floats) -> Floats:
    """Mean squared distance of the probability from the outcome."""
    return mean((p_up - label) ** 2, weights)
