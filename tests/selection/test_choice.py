"""One fold's choice: what goes and why, and that nothing but the training rows has a say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.matrices import planted
from tests.test_tuning import parameters
from tradeloop.config import TARGETS, Params, Selection
from tradeloop.dataset import Matrix
from tradeloop.errors import DataError, ModelError
from tradeloop.metrics import METRICS
from tradeloop.schema import Schema
from tradeloop.selection import Choice, Chosen, choose
from tradeloop.splits import Rows, inner_folds, walk_forward
from tradeloop.training import out_of_fold

RANKED = Selection(method="ranked", drop=0.4)


def with_columns(matrix: Matrix, **columns: Any) -> Matrix:
    """Return the matrix with more columns behind its own."""
    x = np.column_stack([matrix.x, *columns.values()]).astype(np.float32)
    return replace(matrix, x=x, schema=Schema("test", (*matrix.schema.names, *columns), "0" * 64))


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    made = planted(bars=300, symbols=2)
    rare = np.zeros(len(made))
    rare[::150] = 1
    return with_columns(made, copy=2 * made.x[:, 0] + 1, flat=np.full(len(made), 3.0), rare=rare)


def chosen(matrix: Matrix, target: Any = "range", config: Selection = RANKED, **changes: Any) -> Choice:
    given = {"rows": np.arange(400), "embargo": 2, "seed": 5} | changes
    rows = given.pop("rows")
    return choose(matrix, target, rows, config=config, **given)


def test_what_becomes_of_each_column(matrix: Matrix) -> None:
    choice = chosen(matrix)
    assert choice.status[[7, 8]].tolist() == ["constant", "constant"]
    assert choice.status[6] == "redundant" and choice.instead[6] == 0
    # Range follows the first column alone.
    assert choice.rank[:6].argmin() == 0 and 0 in choice.kept
    assert np.isnan(choice.rank[[6, 7, 8]]).all() and np.isnan(choice.measures[:, [6, 7, 8]]).all()
    assert len(choice.kept) == 4 and (choice.status == "weak").sum() == 2  # of six, the share 0.4 goes
    assert choice.rank[choice.status == "weak"].min() >= choice.rank[choice.kept].max()
    assert (np.diff(choice.kept) > 0).all()


def test_each_setting_changes_the_choice(matrix: Matrix) -> None:
    assert len(chosen(matrix, config=RANKED.model_copy(update={"drop": 0.0})).kept) == 6
    assert len(chosen(matrix, config=RANKED.model_copy(update={"drop": 0.99})).kept) == 1
    assert chosen(matrix, config=RANKED.model_copy(update={"constant": 0.999})).status[8] != "constant"
    near = with_columns(matrix, near=matrix.x[:, 0] + 0.5 * matrix.x[:, 1])
    assert chosen(near).status[9] != "redundant"
    assert "redundant" in chosen(near, config=RANKED.model_copy(update={"correlation": 0.5})).status[[0, 9]].tolist()
    base = chosen(matrix, "direction")
    assert (chosen(matrix, "direction", RANKED.model_copy(update={"folds": 5})).rank != base.rank).any()
    assert (chosen(matrix, "direction", seed=6).measures[1] != base.measures[1])[:6].any()
    assert (chosen(matrix, "direction", embargo=40).measures[0] != base.measures[0])[:6].any()


def test_clusters_alone_rank_nothing(matrix: Matrix) -> None:
    choice = chosen(matrix, config=Selection(method="clusters"))
    assert choice.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(choice.rank).all() and np.isnan(choice.stability.value)


def test_the_choice_is_repeated_and_stable_where_there_is_signal(matrix: Matrix) -> None:
    one, two = chosen(matrix), chosen(matrix)
    assert (one.status == two.status).all()
    np.testing.assert_array_equal(one.measures, two.measures)
    strong = chosen(
        planted(bars=600, symbols=2), "return", RANKED.model_copy(update={"drop": 0.5}), rows=np.arange(1200)
    )
    assert strong.kept.tolist() == [0, 1, 2] and strong.stability.value == 1


@pytest.mark.parametrize("target", TARGETS)
def test_other_rows_have_no_say(matrix: Matrix, target: Any) -> None:
    rows = np.arange(100, 400)
    other = replace(matrix, x=matrix.x.copy(), y={name: y.copy() for name, y in matrix.y.items()})
    outside = np.setdiff1d(np.arange(len(matrix)), rows)
    other.x[outside] = 7
    for y in other.y.values():
        y[outside] = 1
    one, two = chosen(matrix, target, rows=rows), chosen(other, target, rows=rows)
    np.testing.assert_array_equal(one.measures, two.measures)
    assert (one.status == two.status).all()


def test_who_stands_for_a_cluster_is_decided_by_the_training_rows() -> None:
    made = planted(bars=300, symbols=2)
    near = made.x[:, 0] + 0.3 * np.random.default_rng(2).normal(size=len(made))
    matrix, rows = with_columns(made, near=near), np.arange(100, 400)
    outside = np.setdiff1d(np.arange(len(matrix)), rows)
    matrix.y["range"][outside] = 10 * near[outside]
    config = Selection(method="clusters", correlation=0.8)
    assert chosen(matrix, "range", config, rows=rows).instead[[0, 6]].tolist() == [0, 0]
    assert chosen(matrix, "range", config, rows=outside).instead[[0, 6]].tolist() == [6, 6]


def test_nothing_to_choose_from_is_one_line(matrix: Matrix) -> None:
    flat = replace(matrix, x=np.zeros_like(matrix.x))
    with pytest.raises(ModelError, match="selection for range: each of 9 columns has one value"):
        chosen(flat)


def test_inner_folds_are_purged_walk_forward_and_cover_all_but_the_first_block() -> None:
    matrix = planted(bars=97, symbols=3)
    hour, ends = np.timedelta64(1, "h"), matrix.label_end + 3 * np.timedelta64(1, "h")
    folds = inner_folds(matrix.timestamp, ends, folds=4, embargo=2)
    assert len(folds) == 4
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(tested, np.arange(tested[0], len(matrix)))
    assert matrix.timestamp[tested[0]] == matrix.timestamp[0] + (97 // 5) * hour
    for fold in folds:
        start = matrix.timestamp[fold.test].min()
        bars = np.unique(matrix.timestamp)
        allowed = [
            row for row in range(len(matrix)) if ends[row] < start and ((bars > ends[row]) & (bars < start)).sum() >= 2
        ]
        assert fold.train.tolist() == allowed
    with pytest.raises(DataError, match="too few bars"):
        inner_folds(matrix.timestamp, ends, folds=96, embargo=2)


def _ic(matrix: Matrix, params: Params, kept: Mapping[int, Rows]) -> tuple[float, int]:
    """Return the IC out of fold of models of the kept columns, and of how many rows."""
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    given = {"hyper": params.train.xgboost, "params": params, "chosen": Chosen({"return": kept})}
    parts = list(out_of_fold("xgboost", matrix, "return", folds, **given))
    rows = np.concatenate([fold.test for fold in folds])
    return METRICS["ic"](matrix.y["return"][rows], np.concatenate(parts)), len(rows)


def test_noise_shows_skill_if_columns_are_chosen_on_all_rows_and_none_if_inside_the_folds() -> None:
    """The trap of Ambroise and McLachlan (2002): the cross-validation is clean, but the choice knew the test rows."""
    params, config = parameters(), Selection(method="ranked", drop=0.97, folds=2)
    ours, trapped, rows = [], [], 0
    for seed in range(3):
        noise = planted(bars=400, symbols=1, width=250, strength=0.0, seed=seed)
        folds = walk_forward(noise.timestamp, noise.label_end, params.split)
        inside = {fold.number: chosen(noise, "return", config, rows=fold.train).kept for fold in folds}
        every = chosen(noise, "return", config, rows=np.arange(len(noise))).kept
        ours.append(_ic(noise, params, inside)[0])
        skill, count = _ic(noise, params, {fold.number: every for fold in folds})
        trapped.append(skill)
        rows += count
    error = 1 / np.sqrt(rows)
    assert abs(np.mean(ours)) < 2.5 * error
    assert np.mean(trapped) > 3 * error
