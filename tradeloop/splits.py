"""The only splitter: walk-forward folds and a holdout over a pooled panel, purged by label end, with an embargo.

Time is counted in *bars*: ranks of the panel's distinct timestamps, which several symbols share. A row may train
before a test that begins at time *s* only if

1. its label ended before *s*, and
2. at least ``embargo`` whole bars of the panel lie strictly between the label's end and *s*.

Source of the rule: López de Prado, *Advances in Financial Machine Learning* (2018), chapter 7, for tests that lie after
their training rows, so that no embargo behind the test is needed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Times
from tradeloop.config import Split
from tradeloop.errors import DataError
from tradeloop.layout import Layout

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

HOLDOUT = -1
SPLITS_FILE = "splits.parquet"


@dataclass(frozen=True)
class Fold:
    """Row positions of one train/test pair, both increasing; `number` is -1 for the holdout."""

    number: int
    train: Rows
    test: Rows


class Panel:
    """The bar clock of a panel: which distinct timestamps there are, and which rows may train before one of them.

    Parameters
    ----------
    timestamp
        Feature time of each row, ``datetime64``, UTC; repeated across symbols, in any order.
    label_end
        When each row's label was known, same length; NaT is refused.
    """

    def __init__(self, timestamp: Times, label_end: Times) -> None:
        if timestamp.shape != label_end.shape or timestamp.ndim != 1:
            raise DataError(f"one label_end a row is needed, got {timestamp.shape} and {label_end.shape}")
        if np.isnat(timestamp).any() or np.isnat(label_end).any():
            raise DataError("a row without timestamp or label_end cannot be split")
        if (label_end < timestamp).any():
            raise DataError(f"a label cannot end before its features: row {int((label_end < timestamp).argmax())} does")
        self.bars = np.unique(timestamp)
        self.rank = np.searchsorted(self.bars, timestamp)
        # Position of the first bar after the label's end; bars from here up to a test's start are whole bars between.
        self._next_bar = np.searchsorted(self.bars, label_end, side="right")

    def __len__(self) -> int:
        return len(self.bars)

    def admissible(self, start: int, embargo: int) -> Mask:
        """Return which rows may train before a test whose first bar has rank `start`."""
        enough: Mask = start - self._next_bar >= embargo  # negative where the label ends at the start or later
        return enough

    def between(self, start: int, stop: int) -> Mask:
        """Return which rows have a feature time of rank ``start ≤ rank < stop``."""
        inside: Mask = (self.rank >= start) & (self.rank < stop)
        return inside


def _fold(number: int, train: Mask, test: Mask, start: np.datetime64) -> Fold:
    if not train.any() or not test.any():
        raise DataError(
            f"too few bars: the fold that begins at {start} has {int(train.sum())} training and {int(test.sum())} test "
            "rows after purge and embargo; lower split.folds, split.embargo or split.holdout, or give more bars"
        )
    return Fold(number, np.flatnonzero(train), np.flatnonzero(test))


def _holdout_start(panel: Panel, config: Split) -> int:
    start = len(panel) - max(1, round(config.holdout * len(panel)))
    if start < 1:
        raise DataError(f"too few bars: {len(panel)} distinct timestamps cannot hold a holdout and a training set")
    return start


def _first_test(development: int, config: Split) -> int:
    """Return the rank at which the first fold's test begins; rolling windows have this length."""
    first = max(1, round(config.min_train * development))
    if development - first < config.folds:
        raise DataError(
            f"too few bars: {development} before the holdout, of which {first} train the first fold, "
            f"leave {development - first} for {config.folds} folds"
        )
    return first


def _train(panel: Panel, start: int, first: int, config: Split) -> Mask:
    train = panel.admissible(start, config.embargo)
    return train & (panel.rank >= start - first) if config.mode == "rolling" else train


def _development(panel: Panel, start: int, config: Split) -> tuple[Mask, int]:
    """Return the rows that may be used before the holdout, and the rank after the last of them."""
    allowed = panel.admissible(start, config.embargo)
    if not allowed.any():
        raise DataError(
            f"too few bars: none of the {start} before the holdout is left by an embargo of {config.embargo} bars"
        )
    return allowed, int(panel.rank[allowed].max()) + 1


def holdout_split(timestamp: Times, label_end: Times, config: Split) -> Fold:
    """Return the newest share of the bars as test, and every row that may train before it (fold -1).

    In rolling mode the training rows are those of the newest window as long as the folds' windows.

    Raises
    ------
    DataError
        If the panel is too short, with the counts.
    """
    panel = Panel(timestamp, label_end)
    start = _holdout_start(panel, config)
    _, development = _development(panel, start, config)
    train = _train(panel, start, _first_test(development, config), config)
    return _fold(HOLDOUT, train, panel.between(start, len(panel)), panel.bars[start])


def walk_forward(timestamp: Times, label_end: Times, config: Split) -> list[Fold]:
    """Return the folds in time order; they lie wholly before the holdout.

    1. Keep the rows that may train before the holdout: what is fitted on the folds' forecasts (stack, calibration,
       conformal quantiles) then knows no label that overlaps it.
    2. Cut their bars behind the first ``min_train`` share into ``folds`` test blocks, as equal as whole bars allow.
    3. Train each fold on all admissible rows before its block (expanding), or on those of the newest
       ``min_train`` share (rolling).

    Raises
    ------
    DataError
        If the panel is too short, with the counts.
    """
    panel = Panel(timestamp, label_end)
    allowed, development = _development(panel, _holdout_start(panel, config), config)
    first = _first_test(development, config)
    edges = [first + (development - first) * k // config.folds for k in range(config.folds + 1)]
    folds = []
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        train = _train(panel, start, first, config)
        folds.append(_fold(number, train, panel.between(start, stop) & allowed, panel.bars[start]))
    return folds


def tail_validation(timestamp: Times, label_end: Times, *, share: float, embargo: int) -> Fold:
    """Split training rows once more for early stopping: the newest `share` of their bars validates, the rest fits.

    Parameters
    ----------
    timestamp, label_end
        Of the training rows only; positions in the result refer to these arrays.
    share
        Of the distinct timestamps, in (0, 1).
    embargo
        Whole bars between the end of a fitting row's label and the first validation row.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of validation bars must lie between 0 and 1, got {share}")
    panel = Panel(timestamp, label_end)
    start = len(panel) - max(1, round(share * len(panel)))
    if start < 1:
        raise DataError(f"too few bars: {len(panel)} cannot be split into fitting and validation rows")
    return _fold(0, panel.admissible(start, embargo), panel.between(start, len(panel)), panel.bars[start])


def inner_folds(timestamp: Times, label_end: Times, *, folds: int, embargo: int) -> list[Fold]:
    """Cut training rows once more into walk-forward folds: ``folds + 1`` equal blocks, each but the first a test.

    Parameters
    ----------
    timestamp, label_end
        Of the training rows only; positions in the result refer to these arrays.
    folds
        How many.
    embargo
        Whole bars between the end of a training row's label and the first test row.

    Raises
    ------
    DataError
        If the rows are too few.
    """
    panel = Panel(timestamp, label_end)
    edges = [len(panel) * k // (folds + 1) for k in range(1, folds + 2)]
    return [
        _fold(number, panel.admissible(start, embargo), panel.between(start, stop), panel.bars[start])
        for number, (start, stop) in enumerate(itertools.pairwise(edges))
    ]


def write_splits(layout: Layout, folds: list[Fold], holdout: Fold) -> None:
    """Write every fold as rows of (row, fold, role)."""
    import pandas as pd

    from tradeloop.atomic import write_parquet

    parts = [
        pd.DataFrame({"row": rows.astype(np.int64), "fold": fold.number, "role": role})
        for fold in (*folds, holdout)
        for role, rows in (("train", fold.train), ("test", fold.test))
    ]
    write_parquet(layout.training / SPLITS_FILE, pd.concat(parts, ignore_index=True))


def read_splits(layout: Layout) -> tuple[list[Fold], Fold]:
    """Return the walk-forward folds in order, and the holdout."""
    import pandas as pd

    frame = pd.read_parquet(layout.training / SPLITS_FILE)
    parts = {key: part["row"].to_numpy(dtype=np.intp) for key, part in frame.groupby(["fold", "role"])}
    numbers = sorted(set(frame["fold"]))
    folds = [Fold(int(n), parts[n, "train"], parts[n, "test"]) for n in numbers]
    return [fold for fold in folds if fold.number != HOLDOUT], next(f for f in folds if f.number == HOLDOUT)
