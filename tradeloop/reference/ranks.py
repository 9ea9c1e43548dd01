"""Two scores of a value's rank in a sketch, and how many dependent rows count as one when such scores are averaged.

A rank in a distribution that is known is bounded, so its mean over a window is close to normal even where the values
have heavy tails, and even where few rows are independent. The *level* score, 2u - 1, tells of a shift; the *spread*
score, |2u - 1|, of a distribution that grew wider or narrower. They depend on the past in different ways: a return's
level hardly does, its spread does for months.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats

WINDOW = 5.0
"""Autocorrelations are added up to so many times their own sum: Sokal's rule, a bias of a per cent or so."""


def rank_map(quantiles: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the distinct quantiles (k,) and the rank of each in [0, 1], of equal ones the middle.

    Quantiles are taken in float32, as features are: a value that is frequent is found exactly.
    """
    levels = np.linspace(0.0, 1.0, len(quantiles))
    values, first, count = np.unique(quantiles.astype(np.float32), return_index=True, return_counts=True)
    return values.astype(np.float64), (levels[first] + levels[first + count - 1]) / 2


def rank_scores(values: NDArray[Any], ranked: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the level and the spread score of values (n,); below and above all quantiles the level is -1 and 1."""
    level = 2.0 * np.interp(values, *ranked, left=0.0, right=1.0) - 1.0
    return level, np.abs(level)


def design_effect(scores: Floats, time: NDArray[np.intp]) -> float:
    """Return the variance of the mean of `scores` (n,) over that of as many independent ones.

    1. Scores of one time are added up, less their mean: symbols that move together count once.
    2. The autocovariances of these sums are added up to the first lag that is `WINDOW` times the integrated
       autocorrelation time so far (Sokal 1997, "Monte Carlo methods in statistical mechanics", section 3), and one
       standard error of that sum is added: where the sample is short it is too low more often than not.
    3. The total is divided by what independent scores would have.

    Scores whose autocorrelation does not fade within the sample count as one altogether; constant ones as
    independent. At least 1, at most n.

    Parameters
    ----------
    time
        Number of each score's time (n,), from 0, without gaps; in any order.
    """
    apart = scores - scores.mean()
    own = float(apart @ apart)
    sums = np.bincount(time, weights=apart)
    size = len(sums)
    spectrum = np.abs(np.fft.rfft(sums, 2 * size)) ** 2
    covariance = np.fft.irfft(spectrum, 2 * size)[:size]
    if own <= 0 or covariance[0] <= 1e-12 * own:
        return 1.0
    integrated = 2.0 * np.cumsum(covariance / covariance[0]) - 1.0
    lags = np.arange(size)
    enough = (lags >= WINDOW * integrated) & (lags >= 1)
    if not enough.any():
        return float(len(scores))
    last = int(enough.argmax())
    error = np.sqrt((4 * last + 2) / size)  # relative
    effect = covariance[0] * integrated[last] * (1.0 + error) / own
    return float(np.clip(effect, 1.0, len(scores)))
