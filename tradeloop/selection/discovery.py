"""A bounded search for columns made of two others, which says how many it tried.

Everything happens inside the training rows of one fold. With the first fold's, no forecast out of fold, and no holdout,
has a part in what is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats, Times
from tradeloop.config import Discovery, Target
from tradeloop.errors import DataError
from tradeloop.features.discovered import OPERATIONS, SYMMETRIC, compose, discovered
from tradeloop.features.registry import FeatureSpec
from tradeloop.splits import Rows, tail_validation

if TYPE_CHECKING:
    from tradeloop.dataset import Matrix

BLOCKS = 20
"""Runs of bars that a statistic's error is taken from: neighbouring bars, and the symbols of one, go together."""
ALIKE = 0.9
"""Candidates whose ranks are correlated by more are one."""
BARS_EACH = 10
"""Bars that each direction which is taken out of the label must have; symbols that rise together count once."""
_CHUNK = 256


@dataclass(frozen=True)
class Finding:
    """A candidate of the shortlist: rank correlations with what the known columns leave of the label.

    Attributes
    ----------
    name
        As `tradeloop.features.discovered` reads it.
    older, newer
        Correlation in the rows that chose it, and in those that test it.
    p_value
        One-sided, of the newer rows, the sign of the older ones; corrected for the shortlist (Holm 1979).
    confirmed
        Whether that is at most ``discovery.alpha``.
    """

    name: str
    older: float
    newer: float
    p_value: float
    confirmed: bool


@dataclass(frozen=True)
class Search:
    """How many candidates were tried, and the shortlist, the smallest p-values first."""

    trials: int
    shortlist: list[Finding]


def draw(names: Sequence[str], config: Discovery, *, seed: int) -> list[str]:
    """Return ``trials`` different candidates, or all there are, in an order of the seed's."""
    usable = [name for name in names if "__" not in name]
    every = len(usable) * len(usable) * len(OPERATIONS) * (config.lags + 1)
    rng, found = np.random.default_rng(seed), dict[str, None]()
    for number in rng.permutation(every):
        if len(found) == config.trials:
            break
        rest, op = divmod(int(number), len(OPERATIONS))
        rest, ago = divmod(rest, config.lags + 1)
        left, right = divmod(rest, len(usable))
        if left < right or (left != right and (ago or OPERATIONS[op] not in SYMMETRIC)) or (left == right and ago):
            found[compose(usable[left], OPERATIONS[op], usable[right], ago)] = None
    return list(found)


def search(
    matrix: Matrix,
    bars: Mapping[str, Bars],
    known: Sequence[FeatureSpec],
    target: Target,
    rows: Rows,
    *,
    config: Discovery,
    embargo: int,
    seed: int,
) -> Search:
    """Search for columns that tell of the target what the matrix's own columns do not.

    1. Draw ``trials`` candidates: operations on two columns, the right one up to ``lags`` bars ago.
    2. Split the training rows, purged: the newest share ``validation`` tests, the older rows choose.
    3. Take out of the label's ranks what is linear in the ranks of the matrix's columns, in each part by itself.
    4. Choose the ``shortlist`` candidates whose ranks go furthest with the rest, in t over `BLOCKS` runs of bars, none
       two of which are alike.
    5. Test those on the newer rows, which had no say until here, each in the direction it was chosen for; Holm's
       correction holds the chance of one confirmation in error to ``alpha``, however many were tried.

    Parameters
    ----------
    bars
        By symbol, with at least the rows' times.
    known
        What candidates may be made of.
    rows
        Training rows of one fold.
    """
    names = draw([spec.name for spec in known], config, seed=seed)
    if not names:
        return Search(0, [])
    specs = discovered(names, known)
    rows = rows[_warm(matrix, bars, rows, max(spec.lookback for spec in specs))]
    split = tail_validation(matrix.timestamp[rows], matrix.label_end[rows], share=config.validation, embargo=embargo)
    values = [_values(matrix, bars, specs, rows[part]) for part in (split.train, split.test)]
    parts = [_Part.of(matrix, target, rows[part]) for part in (split.train, split.test)]
    older = parts[0].scores(values[0])
    chosen = _shortlist(values[0], older.t, config.shortlist)
    newer = parts[1].scores(values[1][:, chosen])
    p_values = _holm(_tail(newer.t * np.sign(older.t[chosen])))
    found = [
        Finding(names[at], float(older.correlation[at]), float(newer.correlation[k]), float(p), bool(p <= config.alpha))
        for k, (at, p) in enumerate(zip(chosen, p_values, strict=True))
    ]
    return Search(len(names), sorted(found, key=lambda one: one.p_value))


def _warm(matrix: Matrix, bars: Mapping[str, Bars], rows: Rows, lookback: int) -> NDArray[np.bool_]:
    """Return which rows have so many bars, their own included."""
    enough = np.zeros(len(rows), dtype=np.bool_)
    for symbol in set(matrix.symbol[rows]):
        own = np.flatnonzero(matrix.symbol[rows] == symbol)
        enough[own] = _places(bars[symbol], matrix.timestamp[rows[own]]) >= lookback - 1
    return enough


def _places(bars: Bars, times: Times) -> Rows:
    at = np.searchsorted(bars.timestamp, times)
    if len(at) and (at.max() >= len(bars) or (bars.timestamp[at] != times).any()):
        raise DataError(f"{bars.symbol}: the training matrix has rows at times at which there is no bar")
    return at


def _values(matrix: Matrix, bars: Mapping[str, Bars], specs: Sequence[FeatureSpec], rows: Rows) -> NDArray[np.float32]:
    """Return the candidates' values (n, N) at some rows; 0 where one is not known."""
    found = np.zeros((len(rows), len(specs)), dtype=np.float32)
    for symbol in sorted(set(matrix.symbol[rows])):
        own = np.flatnonzero(matrix.symbol[rows] == symbol)
        until = bars[symbol][: int(_places(bars[symbol], matrix.timestamp[rows[own]]).max()) + 1]
        at = _places(until, matrix.timestamp[rows[own]])
        for column, spec in enumerate(specs):
            found[own, column] = spec.function(until)[at]
    return np.nan_to_num(found)


@dataclass(frozen=True)
class _Scores:
    """t statistics and rank correlations (N,)."""

    t: Floats
    correlation: Floats


@dataclass(frozen=True)
class _Part:
    """What is left of the label in some rows (n,), of mean 0 and length 1; blocks' first rows; the known columns.

    `free` is the share of the bars that the basis leaves: by so much less do the blocks vary than the label did.
    """

    label: Floats
    starts: Rows
    basis: Floats
    free: float

    @classmethod
    def of(cls, matrix: Matrix, target: Target, rows: Rows) -> _Part:
        times, rank = np.unique(matrix.timestamp[rows], return_inverse=True)
        basis = _basis(_ranked(matrix.x[rows]), max(len(times) // BARS_EACH, 1))
        label = _without(_ranked(matrix.y[target][rows][:, None]), basis)[:, 0]
        return cls(
            label,
            np.searchsorted(rank * BLOCKS // len(times), np.arange(BLOCKS)),
            basis,
            1.0 - basis.shape[1] / len(times),
        )

    def scores(self, values: NDArray[np.float32]) -> _Scores:
        """Return how each column of (n, N) goes with what is left of the label."""
        t, correlation = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        for start in range(0, values.shape[1], _CHUNK):
            here = slice(start, start + _CHUNK)
            product = _without(_ranked(values[:, here]), self.basis) * self.label[:, None]
            sums = np.add.reduceat(product, self.starts, axis=0)
            spread = sums.std(axis=0, ddof=1) / np.sqrt(BLOCKS * self.free)
            t[here] = np.divide(sums.mean(axis=0), spread, out=np.zeros(len(spread)), where=spread > 0)
            correlation[here] = product.sum(axis=0)
        return _Scores(t, correlation)


def _ranked(values: NDArray[np.floating]) -> Floats:
    """Return the ranks of each column less their mean."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(values, axis=0))
    return np.asarray(ranks - ranks.mean(axis=0))


def _basis(columns: Floats, most: int) -> Floats:
    """Return orthonormal directions (n, k) of the columns, the strongest, `most` at most."""
    left, size, _ = np.linalg.svd(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12), full_matrices=False)
    return np.asarray(left[:, : min(int((size > 1e-6 * size[0]).sum()), most)])


def _without(columns: Floats, basis: Floats) -> Floats:
    """Return the columns less what lies in the basis, each of length 1; 0 where nothing is left."""
    rest = columns - basis @ (basis.T @ columns)
    length = np.linalg.norm(rest, axis=0)
    return np.asarray(np.where(length > 1e-9 * len(rest), rest / np.maximum(length, 1e-300), 0.0))


def _shortlist(values: NDArray[np.float32], t: Floats, count: int) -> Rows:
    """Return the columns of greatest |t|, each of which is not like one before it."""
    chosen: list[int] = []
    unit: list[Floats] = []
    for at in np.argsort(-np.abs(t), kind="stable").tolist():
        ranks = _ranked(values[:, at])
        ranks = ranks / max(float(np.linalg.norm(ranks)), 1e-12)
        if all(abs(float(ranks @ other)) <= ALIKE for other in unit):
            chosen.append(at)
            unit.append(ranks)
        if len(chosen) == count:
            break
    return np.array(chosen, dtype=np.intp)


def _tail(t: Floats) -> Floats:
    """Return the one-sided p-values of t over the blocks."""
    from scipy.stats import t as student

    return np.asarray(student.sf(t, BLOCKS - 1))


def _holm(p_values: Floats) -> Floats:
    """Return p-values corrected for being several (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    result = np.empty(len(p_values))
    result[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1.0)
    return result
