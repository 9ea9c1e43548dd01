"""How many dependent rows count as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats

WINDOW = 5.0
"""Autocorrelations are added up to so many times their own sum: Sokal's rule, a bias of a per cent or so."""


def row_effects(values: NDArray[np.floating], time: NDArray[np.intp]) -> Floats:
    """Return the design effect of each column's mean: its variance over that of a mean of as many independent rows.

    1. Rows of one time are added up, less the column's mean: symbols that move together count once.
    2. The autocovariances of these sums are added up to the first lag that is `WINDOW` times the integrated
       autocorrelation time so far (Sokal 1997, "Monte Carlo methods in statistical mechanics", section 3), and one
       standard error of that sum is added: where the sample is short it is too low more often than not.
    3. The total is divided by what independent rows would have.

    A column whose autocorrelation does not fade within the sample counts as one row altogether; a constant one as
    independent rows. At least 1, at most the number of rows.

    Parameters
    ----------
    values
        (n, d), finite.
    time
        Number of each row's time (n,), from 0, without gaps; rows in any order.

    Returns
    -------
    (d,) float64
    """
    apart = values - values.mean(axis=0, dtype=np.float64)
    own = np.einsum("ij,ij->j", apart, apart)
    return np.array([_effect(column, time, total) for column, total in zip(apart.T, own, strict=True)])


def _effect(apart: Floats, time: NDArray[np.intp], own: float) -> float:
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
        return float(len(apart))
    last = int(enough.argmax())
    error = np.sqrt((4 * last + 2) / size)  # relative
    effect = covariance[0] * integrated[last] * (1.0 + error) / own
    return float(np.clip(effect, 1.0, len(apart)))
