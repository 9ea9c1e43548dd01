"""One choice of columns: for one target, from the training rows of one fold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import Selection, Target
from tradeloop.errors import ModelError
from tradeloop.metrics.bootstrap import Interval
from tradeloop.selection.clusters import clusters, most_common, representatives
from tradeloop.selection.importance import importance
from tradeloop.selection.information import information
from tradeloop.selection.stability import stability
from tradeloop.splits import Rows, inner_folds

if TYPE_CHECKING:
    from tradeloop.dataset import Matrix

KEPT, CONSTANT, REDUNDANT, WEAK = "kept", "constant", "redundant", "weak"
MEASURES = ("information", "shap", "permutation")


@dataclass(frozen=True)
class Choice:
    """What became of each of d columns.

    Attributes
    ----------
    status
        (d,) of ``kept``, ``constant``, ``redundant`` and ``weak``.
    instead
        (d,) position of the column that stands for this one's cluster; its own where it stands for itself.
    measures
        (3, d) mean over the inner folds of `MEASURES`; NaN for a column that was not ranked.
    rank
        (d,) mean rank over measures and inner folds, 1 the best; NaN likewise.
    stability
        Of the choices that each inner fold alone would make; NaN where nothing was ranked.
    """

    status: NDArray[np.object_]
    instead: Rows
    measures: Floats
    rank: Floats
    stability: Interval

    @property
    def kept(self) -> Rows:
        """Positions of the columns to use, increasing."""
        return np.flatnonzero(self.status == KEPT)


def choose(matrix: Matrix, target: Target, rows: Rows, *, config: Selection, embargo: int, seed: int) -> Choice:
    """Choose columns for `target` by the training rows `rows`; nothing else is looked at.

    1. A column goes that has one value in more than ``constant`` of the rows.
    2. Of columns that are correlated by ``correlation`` or more in rank, every two of them, the one that tells most of
       the label stays (``method: clusters`` ends here).
    3. The rows are cut into ``folds`` walk-forward folds. In each, columns are ranked by mutual information with the
       label, and by what a small boosted model leans on in the fold's test rows: SHAP values and permutation.
    4. The share ``drop`` with the lowest mean rank goes; of equal ranks the later column.

    The same rows and seed give the same choice.

    Raises
    ------
    ModelError
        Every column is constant.
    """
    x, y = matrix.x[rows], matrix.y[target][rows]
    width = x.shape[1]
    status = np.full(width, KEPT, dtype=object)
    status[most_common(x) > config.constant] = CONSTANT
    varying = np.flatnonzero(status == KEPT)
    if not len(varying):
        raise ModelError(f"selection for {target}: each of {width} columns has one value in nearly all rows")
    instead = np.arange(width, dtype=np.intp)
    cluster = clusters(x[:, varying], config.correlation)
    instead[varying] = varying[representatives(cluster, information(x[:, varying], y))]
    status[instead != np.arange(width)] = REDUNDANT
    measures, rank = np.full((len(MEASURES), width), np.nan), np.full(width, np.nan)
    agreement = Interval(float("nan"), float("nan"), float("nan"))
    if config.method == "ranked":
        left = np.flatnonzero(status == KEPT)
        folds = inner_folds(matrix.timestamp[rows], matrix.label_end[rows], folds=config.folds, embargo=embargo)
        each = np.array(
            [
                (information(x[fold.train][:, left], y[fold.train]), *importance(x[:, left], y, fold, seed=seed))
                for fold in folds
            ]
        )
        ranks = _ranks(each).mean(axis=1)
        measures[:, left], rank[left] = each.mean(axis=0), ranks.mean(axis=0)
        status[left[~_best(rank[left], config.drop)]] = WEAK
        agreement = stability(np.array([_best(one, config.drop) for one in ranks]))
    return Choice(status, instead, measures, rank, agreement)


def _ranks(values: Floats) -> Floats:
    """Return the ranks along the last axis, the greatest value's the first; equal values share theirs."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-values, axis=-1))


def _best(rank: Floats, drop: float) -> NDArray[np.bool_]:
    """Return which ranks are among the lowest, the share `drop` left out; one at least stays."""
    stays = np.zeros(len(rank), dtype=np.bool_)
    stays[np.argsort(rank, kind="stable")[: max(1, math.ceil((1 - drop) * len(rank)))]] = True
    return stays
