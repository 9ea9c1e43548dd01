from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from tests.matrices import planted
from tests.test_tuning import parameters
from tradeloop.config import TARGETS
from tradeloop.dataset import Matrix
from tradeloop.models.base import Features, Model
from tradeloop.splits import Fold, walk_forward
from tradeloop.training import FOLD_METRICS, fit, forecast_frame, out_of_fold, score

PARAMS = parameters()


class Spy(Model[Any]):
    """Remembers what it was fitted on, and says the mean."""

    params_type = type(PARAMS.train.mlp)
    space: ClassVar[dict[str, Any]] = {}
    early_stopping = True
    seen: ClassVar[list[tuple[Features, Any, Fold | None, int]]] = []

    def _fit(self, x: Features, y: Any, early: Fold | None) -> None:
        Spy.seen.append((x, y, early, self.seed))
        self.mean = y.mean()

    def _predict(self, x: Features) -> Any:
        return np.full(len(x), self.mean)

    def export(self, folder: Any) -> None:
        raise NotImplementedError


@pytest.fixture
def matrix() -> Matrix:
    return planted(bars=250, symbols=2)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[Spy]:
    monkeypatch.setattr("tradeloop.training.open_model", lambda _: Spy)
    Spy.seen.clear()
    return Spy


def test_each_fold_is_forecast_by_a_model_of_its_training_rows(matrix: Matrix, spy: type[Spy]) -> None:
    folds = walk_forward(matrix.timestamp, matrix.label_end, PARAMS.split)
    forecasts = list(out_of_fold("spy", matrix, "range", folds, hyper=PARAMS.train.mlp, params=PARAMS))
    for fold, values, (x, y, _, seed) in zip(folds, forecasts, spy.seen, strict=True):
        np.testing.assert_array_equal(x, matrix.x[fold.train])
        np.testing.assert_array_equal(y, matrix.y["range"][fold.train])
        assert values == pytest.approx(np.full(len(fold.test), matrix.y["range"][fold.train].mean()))
        assert seed == PARAMS.seed


def test_early_stopping_validates_on_a_purged_tail_of_the_training_rows(matrix: Matrix, spy: type[Spy]) -> None:
    rows = np.arange(20, 400)
    fit("spy", matrix, "return", rows, hyper=PARAMS.train.mlp, params=PARAMS)
    early = spy.seen[0][2]
    assert early is not None
    times, ends = matrix.timestamp[rows], matrix.label_end[rows]
    assert early.test.max() == len(rows) - 1
    gap = times[early.test].min() - ends[early.train].max()
    # Labels end one bar later; the embargo's whole bars lie between that end and the first validation row.
    assert gap == (PARAMS.split.embargo + 1) * np.timedelta64(1, "h")
    assert len(early.test) == pytest.approx(PARAMS.train.mlp.validation * len(rows), abs=2)


def test_scores_by_target_and_none_where_there_is_none() -> None:
    label, p = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.2, 0.8, 0.6, 0.4])
    assert score("direction", label, p)["auc"] == 1.0
    flat = score("return", np.array([0.1, -0.1, 0.2]), np.zeros(3))
    assert flat["ic"] is None
    assert flat["rmse"] == pytest.approx(np.sqrt(0.02))
    assert {target: tuple(score(target, label, p)) for target in TARGETS} == dict(FOLD_METRICS)


def test_forecast_frame_lists_each_test_row_once(matrix: Matrix) -> None:
    folds = walk_forward(matrix.timestamp, matrix.label_end, PARAMS.split)
    values = {target: [fold.test + shift for fold in folds] for shift, target in enumerate(TARGETS)}
    frame = forecast_frame(folds, values)
    assert list(frame.columns) == ["row", "fold", *TARGETS]
    assert frame["row"].is_unique
    np.testing.assert_array_equal(frame["return"], frame["row"] + 1)
    for fold in folds:
        np.testing.assert_array_equal(frame.loc[frame["fold"] == fold.number, "row"], fold.test)
