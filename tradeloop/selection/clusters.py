"""Columns that say the same: hierarchical clusters by rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats

Features = NDArray[np.float32]


def most_common(x: Features) -> Floats:
    """Return for each column of (n, d) the share of rows that have its most common value."""
    n, width = x.shape
    ordered = np.sort(x, axis=0)
    fresh = np.ones((n + 1, width), dtype=np.bool_)
    fresh[1:n] = ordered[1:] != ordered[:-1]
    return np.array([np.diff(np.flatnonzero(fresh[:, column])).max() / n for column in range(width)])


def rank_correlation(x: Features) -> Floats:
    """Return Spearman's correlation (d, d) of the columns of (n, d), none of which may be constant."""
    from scipy.stats import rankdata

    found: Floats = np.corrcoef(rankdata(x, axis=0), rowvar=False).reshape(x.shape[1], x.shape[1])
    return found


def clusters(x: Features, least: float) -> NDArray[np.int64]:
    """Return the number of each column's cluster (d,): within one, every two have ``|ρ| ≥ least`` by ranks.

    Complete linkage on ``1 − |ρ|``, so that no chain of neighbours joins columns that differ.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if x.shape[1] < 2:
        return np.ones(x.shape[1], dtype=np.int64)
    distance = np.clip(1.0 - np.abs(rank_correlation(x)), 0.0, 1.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "complete")
    return np.asarray(fcluster(tree, 1.0 - least, "distance"), dtype=np.int64)


def representatives(cluster: NDArray[np.int64], worth: Floats) -> NDArray[np.intp]:
    """Return for each column (d,) the one of its cluster that is worth most, the first of equals."""
    best: dict[int, int] = {}
    for column, number in enumerate(cluster.tolist()):
        if number not in best or worth[column] > worth[best[number]]:
            best[number] = column
    return np.array([best[number] for number in cluster.tolist()], dtype=np.intp)
