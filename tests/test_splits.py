from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.bars import Times
from tradeloop.config import Split
from tradeloop.errors import DataError
from tradeloop.layout import Layout
from tradeloop.splits import Fold, holdout_split, read_splits, tail_validation, walk_forward, write_splits

START = np.datetime64("2020-01-01", "us")


def oracle(timestamp: Times, label_end: Times, start: Any, embargo: int) -> set[int]:
    """Return who may train before `start`, in O(n²), straight from the rule."""
    bars = set(timestamp.tolist())
    allowed = set()
    for row, end in enumerate(label_end.tolist()):
        between = sum(end < bar < start for bar in bars)
        if end < start and between >= embargo:
            allowed.add(row)
    return allowed


@st.composite
def panels(draw: st.DrawFn) -> tuple[Times, Times]:
    """Draw a panel: irregular bars shared by several symbols, each with holes; labels 1 to 5 of its own bars ahead.

    Labels may also end a little after a bar, at a time that is no bar of the panel.
    """
    gaps = draw(st.lists(st.integers(1, 50), min_size=25, max_size=70))
    bars = START + np.cumsum(gaps) * np.timedelta64(1, "m")
    horizon = draw(st.integers(1, 5))
    rows = []
    for symbol in range(draw(st.integers(1, 3))):
        present = (
            draw(st.lists(st.booleans(), min_size=len(bars), max_size=len(bars))) if symbol else [True] * len(bars)
        )
        own = bars[np.array(present)]
        rows += [(own[i], own[i + horizon]) for i in range(len(own) - horizon)]
    rows.sort()
    late = draw(st.integers(0, 3)) * np.timedelta64(1, "m")
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]) + late


configs = st.builds(
    Split,
    holdout=st.sampled_from([0.1, 0.2, 0.3]),
    folds=st.integers(2, 5),
    mode=st.sampled_from(["expanding", "rolling"]),
    min_train=st.sampled_from([0.3, 0.5]),
    embargo=st.integers(0, 10),
)


def check(timestamp: Times, label_end: Times, fold: Fold, config: Split, window: int) -> None:
    """Hold a fold to the oracle, and its window to the mode."""
    start = timestamp[fold.test].min()
    allowed = oracle(timestamp, label_end, start.item(), config.embargo)
    if config.mode == "rolling":
        bars = np.unique(timestamp)
        oldest = bars[max(0, int(np.searchsorted(bars, start)) - window)]
        allowed = {row for row in allowed if timestamp[row] >= oldest}
    assert set(fold.train.tolist()) == allowed
    assert not set(fold.train.tolist()) & set(fold.test.tolist())
    assert (np.diff(fold.train) > 0).all() and (np.diff(fold.test) > 0).all()


def first_length(timestamp: Times, label_end: Times, config: Split) -> int:
    bars = np.unique(timestamp)
    start = bars[len(bars) - max(1, round(config.holdout * len(bars)))]
    allowed = oracle(timestamp, label_end, start.item(), config.embargo)
    development = int(np.searchsorted(bars, timestamp[max(allowed)])) + 1
    return max(1, round(config.min_train * development))


@settings(deadline=None, max_examples=150)
@given(panel=panels(), config=configs)
def test_every_fold_agrees_with_the_oracle(panel: tuple[Times, Times], config: Split) -> None:
    timestamp, label_end = panel
    try:
        folds = walk_forward(timestamp, label_end, config)
        holdout = holdout_split(timestamp, label_end, config)
    except DataError as error:
        assert "too few bars" in str(error)
        return
    window = first_length(timestamp, label_end, config)
    for fold in (*folds, holdout):
        check(timestamp, label_end, fold, config, window)
    assert [fold.number for fold in folds] == list(range(config.folds))
    assert holdout.number == -1
    # Tests follow one another, do not share a bar, and end, labels and embargo included, before the holdout.
    for before, after in itertools.pairwise(folds):
        assert timestamp[before.test].max() < timestamp[after.test].min()
    before_holdout = oracle(timestamp, label_end, timestamp[holdout.test].min().item(), config.embargo)
    for fold in folds:
        assert set(fold.test.tolist()) <= before_holdout
    tested = np.concatenate([fold.test for fold in folds])
    first = timestamp[folds[0].test].min()
    assert set(tested.tolist()) == {row for row in before_holdout if timestamp[row] >= first}
    # The holdout is the newest share of the bars, whole.
    bars = np.unique(timestamp)
    newest = bars[len(bars) - max(1, round(config.holdout * len(bars))) :]
    assert set(holdout.test.tolist()) == set(np.flatnonzero(np.isin(timestamp, newest)).tolist())


@settings(deadline=None, max_examples=100)
@given(panel=panels(), share=st.sampled_from([0.1, 0.25, 0.5]), embargo=st.integers(0, 10))
def test_tail_validation_agrees_with_the_oracle(panel: tuple[Times, Times], share: float, embargo: int) -> None:
    timestamp, label_end = panel
    try:
        fold = tail_validation(timestamp, label_end, share=share, embargo=embargo)
    except DataError as error:
        assert "too few bars" in str(error)
        return
    start = timestamp[fold.test].min()
    assert set(fold.train.tolist()) == oracle(timestamp, label_end, start.item(), embargo)
    assert set(fold.test.tolist()) == set(np.flatnonzero(timestamp >= start).tolist())
    bars = np.unique(timestamp)
    assert len(np.unique(timestamp[fold.test])) == max(1, round(share * len(bars)))


def hourly(bars: int, horizon: int = 1) -> tuple[Times, Times]:
    timestamp = START + np.arange(bars) * np.timedelta64(1, "h")
    return timestamp, timestamp + horizon * np.timedelta64(1, "h")


def test_purge_and_embargo_by_hand() -> None:
    timestamp, label_end = hourly(20, horizon=3)
    # The holdout is bars 16..19. With an embargo of 2, bars 14 and 15 lie between; labels end by 13; rows end at 10.
    config = Split(holdout=0.2, folds=2, min_train=0.5, embargo=2)
    assert holdout_split(timestamp, label_end, config).train.tolist() == list(range(11))
    # 11 bars remain: half of them (5.5, rounded to even: 6) train first, tests are 6, 7 and 8, 9, 10.
    folds = walk_forward(timestamp, label_end, config)
    assert [fold.test.tolist() for fold in folds] == [[6, 7], [8, 9, 10]]
    assert [fold.train.tolist() for fold in folds] == [[0], [0, 1, 2]]


def test_rolling_forgets() -> None:
    timestamp, label_end = hourly(100)
    config = Split(holdout=0.2, folds=3, min_train=0.25, embargo=0)
    expanding = walk_forward(timestamp, label_end, config)[-1]
    rolling = walk_forward(timestamp, label_end, config.model_copy(update={"mode": "rolling"}))[-1]
    assert expanding.train[0] == 0
    assert rolling.train[0] == rolling.test[0] - 20
    assert rolling.train[-1] == expanding.train[-1]


@pytest.mark.parametrize(("bars", "config"), [(3, Split(folds=5)), (12, Split(embargo=30)), (1, Split())])
def test_too_short_a_panel_is_refused_with_its_length(bars: int, config: Split) -> None:
    timestamp, label_end = hourly(bars)
    with pytest.raises(DataError, match=r"too few bars: .*\d"):
        walk_forward(timestamp, label_end, config)


def test_broken_panels_are_refused() -> None:
    timestamp, label_end = hourly(50)
    with pytest.raises(DataError, match=r"cannot end before its features: row 7"):
        holdout_split(timestamp, np.where(np.arange(50) == 7, START, label_end), Split())
    with pytest.raises(DataError, match="without timestamp or label_end"):
        holdout_split(timestamp, np.where(np.arange(50) == 7, np.datetime64("NaT"), label_end), Split())
    with pytest.raises(DataError, match="one label_end a row"):
        holdout_split(timestamp, label_end[1:], Split())
    with pytest.raises(DataError, match=r"between 0 and 1, got 1\.0"):
        tail_validation(timestamp, label_end, share=1.0, embargo=0)


def test_splits_survive_the_file(tmp_path: Path) -> None:
    timestamp, label_end = hourly(100)
    config = Split(folds=3)
    folds, holdout = walk_forward(timestamp, label_end, config), holdout_split(timestamp, label_end, config)
    write_splits(Layout(tmp_path), folds, holdout)
    again, last = read_splits(Layout(tmp_path))
    for made, read in zip((*folds, holdout), (*again, last), strict=True):
        assert made.number == read.number
        np.testing.assert_array_equal(made.train, read.train)
        np.testing.assert_array_equal(made.test, read.test)
