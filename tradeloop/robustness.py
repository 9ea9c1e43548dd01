"""Reasons to doubt a good score: shuffled labels, planted leaks, many trials, and other orders of the same days."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats, Times
from tradeloop.config import XGBoostParams
from tradeloop.metrics.bootstrap import Bootstrap, Interval, stationary_index
from tradeloop.metrics.classification import auc
from tradeloop.metrics.financial import drawdown_curve, equity_curve

# Small on purpose: the controls ask whether anything is learned, not how well.
CHEAP = XGBoostParams(n_estimators=60, max_depth=3, learning_rate=0.1)
LEAVES = 100
CONTROL_CONFIDENCE = 0.99  # a control that cries wolf one time in twenty would be switched off

Features = NDArray[np.float32]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Features float32 (n, d), direction labels (n,), feature times (n,), and the rows that train and test."""

    x: Features
    label: Floats
    timestamp: Times
    train: Rows
    test: Rows


def cheap_forecast(split: Split, *, seed: int) -> Floats:
    """Return the test rows' probability of up by a small boosted model, fitted on the training rows."""
    from tradeloop.models import open_model

    # With the usual least leaf no tree grows on a few hundred rows, and a model that learns nothing notices nothing.
    leaf = min(CHEAP.min_child_weight, max(1.0, len(split.train) / LEAVES))
    hyper = CHEAP.model_copy(update={"min_child_weight": leaf})
    model = open_model("xgboost")("direction", hyper, seed=seed)
    model.fit(split.x[split.train], split.label[split.train])
    return model.predict(split.x[split.test])


def permute_timestamps(timestamp: Times, label: Floats, *, seed: int) -> Floats:
    """Return the labels (n,) dealt anew to whole timestamps, rows of one timestamp keeping their labels together.

    Timestamps are exchanged with others of as many rows, so that the cross-section stays as it was.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(timestamp, kind="stable")
    _, starts, counts = np.unique(timestamp[order], return_index=True, return_counts=True)
    result = label.copy()
    for size in np.unique(counts):
        rows = order[starts[counts == size][:, None] + np.arange(size)]
        result[rows] = label[rng.permutation(rows)]
    return result


def shuffled_auc(split: Split, bootstrap: Bootstrap, *, seeds: int, seed: int) -> Interval:
    """Return the mean AUC of models fitted on shuffled training labels, with a 99% interval that should hold 0.5.

    A Student t interval around the mean over the seeds (at least 2), whose error adds up what the seeds' models differ
    by and what another test sample would change.
    """
    from scipy.stats import t

    label = split.label[split.test]
    scores, replicates = [], []
    for number in range(seed, seed + seeds):
        dealt = split.label.copy()
        dealt[split.train] = permute_timestamps(split.timestamp[split.train], dealt[split.train], seed=number)
        p_up = cheap_forecast(replace(split, label=dealt), seed=number)
        scores.append(auc(label, p_up))
        replicates.append(bootstrap.replicates(auc, label, p_up))
    error = np.hypot(np.std(scores, ddof=1) / np.sqrt(seeds), np.mean(replicates, axis=0).std())
    half = float(t.ppf((1 + CONTROL_CONFIDENCE) / 2, seeds - 1) * error)
    value = float(np.mean(scores))
    return Interval(value, value - half, value + half)


@dataclass(frozen=True)
class Leak:
    """The feature that no one may use: the return over the horizon that begins at the bar's close."""

    horizon: int

    def __call__(self, bars: Bars) -> Floats:
        """Return simple returns from each close to the close `horizon` bars later (n,), 0 where that is not known."""
        ahead = np.zeros(len(bars))
        ahead[: len(bars) - self.horizon] = bars.close[self.horizon :] / bars.close[: -self.horizon] - 1.0
        return ahead


def leak_findings(bars: Bars, *, horizon: int) -> list[str]:
    """Return what the feature contract finds in the planted leak on these bars; nothing found: a blind contract."""
    from tradeloop.features.contract import violations

    return violations(Leak(horizon), bars, lookback=1)


def leaked_auc(split: Split, leak: Floats, *, seed: int) -> float:
    """Return the AUC of a small model that is given the planted leak (n,) as one more feature."""
    x = np.column_stack([split.x, leak.astype(np.float32)])
    p_up = cheap_forecast(replace(split, x=x), seed=seed)
    return auc(split.label[split.test], p_up)


def best_of_luck(spread: float, trials: int) -> float:
    """Return the Sharpe ratio expected of the best of N trials without skill, whose ratios have this deviation.

    ``spread · ((1 − γ) z(1 − 1/N) + γ z(1 − 1/(N e)))``, γ Euler's constant (Bailey and López de Prado 2014, eq. 1).
    """
    from scipy.stats import norm

    if trials < 2:
        return 0.0
    below = [1 - 1 / trials, 1 - 1 / (trials * np.e)]
    return float(spread * np.dot([1 - np.euler_gamma, np.euler_gamma], norm.ppf(below)))


def probabilistic_sharpe(ratio: float, hurdle: float, length: int, *, skewness: float, kurtosis: float) -> float:
    """Return the probability that the true Sharpe ratio exceeds `hurdle`, given one measured over `length` bars.

    Ratios are per bar; kurtosis is 3 for a normal distribution (Bailey and López de Prado 2014, eq. 2).
    """
    from scipy.stats import norm

    variance = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    return float(norm.cdf((ratio - hurdle) * np.sqrt(length - 1) / np.sqrt(max(variance, 1e-12))))


def deflated_sharpe(net: Floats, trial_sharpes: Floats, *, more: int = 0) -> float:
    """Return the probability that the strategy's Sharpe ratio is above what luck gives the best of the trials.

    Parameters
    ----------
    net
        Simple net returns per bar (T,) of the strategy chosen.
    trial_sharpes
        Sharpe ratio per bar, not annualised, of every strategy tried, the chosen one included; NaN are left out.
    more
        Trials behind these whose ratios nobody measured: candidates of a search. They count, at the same spread.

    Returns
    -------
    float
        NaN if the returns are not finite or don't vary.
    """
    from scipy.stats import kurtosis, skew

    spread = float(net.std(ddof=1)) if len(net) > 1 else 0.0
    if not spread > 1e-15 or not np.isfinite(net).all():
        return float("nan")
    trials = trial_sharpes[np.isfinite(trial_sharpes)]
    hurdle = best_of_luck(float(trials.std(ddof=1)), len(trials) + more) if len(trials) > 1 else 0.0
    shape = {"skewness": float(skew(net)), "kurtosis": float(kurtosis(net, fisher=False))}
    return probabilistic_sharpe(float(net.mean()) / spread, hurdle, len(net), **shape)


@dataclass(frozen=True)
class MonteCarlo:
    """Other histories of the same days: blocks of net returns drawn anew and compounded.

    Attributes
    ----------
    levels
        Quantiles (5,) of the arrays below.
    equity
        Final value of 1 invested, at each level.
    drawdown
        Deepest drawdown (0 or below), at each level.
    loss_probability
        Share of histories that end below 1.
    band
        Equity (2, T) between whose rows the middle 90% of histories run.
    """

    levels: Floats
    equity: Floats
    drawdown: Floats
    loss_probability: float
    band: Floats


def monte_carlo(net: Floats, *, block: float, count: int, seed: int) -> MonteCarlo:
    """Return the spread of `count` block-resampled histories of simple net returns per bar (T,)."""
    histories = net[stationary_index(len(net), block=block, count=count, seed=seed)]
    equity = equity_curve(histories)
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    return MonteCarlo(
        levels,
        np.quantile(equity[:, -1], levels),
        np.quantile(drawdown_curve(histories).min(axis=1), levels),
        float((equity[:, -1] < 1).mean()),
        np.quantile(equity, [0.05, 0.95], axis=0),
    )
