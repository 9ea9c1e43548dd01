from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from tests.matrices import planted
from tests.models.conftest import QUICK
from tradeloop.config import TARGETS, Params
from tradeloop.dataset import Matrix
from tradeloop.errors import ModelError
from tradeloop.metrics import METRICS
from tradeloop.splits import Fold, walk_forward
from tradeloop.training import out_of_fold
from tradeloop.tuning import Study, search, tune


def parameters(**tune_: Any) -> Params:
    content = {
        "market": "m",
        "seed": 7,
        "markets": {"m": {"source": "synthetic", "symbols": ["A"], "calendar": "24/7", "interval": "1h"}},
        "features": {"families": ["trend"]},
        "split": {"folds": 3, "embargo": 2},
        "train": {name: values for name, values in QUICK.items()},
        "tune": {"trials": 5, "folds": 2, "xgboost": ["learning_rate", "max_depth"]} | tune_,
    }
    return Params.model_validate(content)


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return planted(bars=250, symbols=2)


def run(matrix: Matrix, params: Params, name: str = "xgboost", target: Any = "return") -> Study:
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    with tqdm(disable=True) as bar:
        return search(name, matrix, target, folds, params=params, bar=bar)


def test_first_trial_stands_where_the_parameters_do_and_only_listed_keys_move(matrix: Matrix) -> None:
    params = parameters()
    study = run(matrix, params)
    base = params.train.xgboost
    assert len(study.trials) == 5
    assert study.trials[0]["learning_rate"] == base.learning_rate
    assert study.trials[0]["max_depth"] == base.max_depth
    assert all(set(trial) == {"score", "learning_rate", "max_depth"} for trial in study.trials)
    assert len({trial["learning_rate"] for trial in study.trials}) == 5
    moved = {"learning_rate", "max_depth"}
    assert study.best.model_dump(exclude=moved) == base.model_dump(exclude=moved)


def test_the_lowest_mean_score_over_the_newest_folds_wins(matrix: Matrix) -> None:
    params = parameters()
    study = run(matrix, params)
    best = min(study.trials, key=lambda trial: trial["score"])
    assert study.best.model_dump() | best == study.best.model_dump() | {"score": best["score"]}
    newest = walk_forward(matrix.timestamp, matrix.label_end, params.split)[-2:]
    forecasts = out_of_fold("xgboost", matrix, "return", newest, hyper=study.best, params=params)
    scores = [
        METRICS["rmse"](matrix.y["return"][fold.test], values) for fold, values in zip(newest, forecasts, strict=True)
    ]
    assert best["score"] == pytest.approx(np.mean(scores), rel=1e-9)
    assert study.metric == "rmse"
    assert run(matrix, params, target="direction").metric == "log_loss"


def test_search_is_deterministic_and_the_seed_moves_it(matrix: Matrix) -> None:
    params = parameters(trials=7)
    assert run(matrix, params).trials == run(matrix, params).trials
    other = run(matrix, params.model_copy(update={"seed": 8}))
    assert other.trials[1]["learning_rate"] != run(matrix, params).trials[1]["learning_rate"]


def test_labels_of_older_folds_tests_and_of_the_holdout_do_not_matter(matrix: Matrix) -> None:
    params = parameters(folds=1)
    newest = walk_forward(matrix.timestamp, matrix.label_end, params.split)[-1]
    seen = np.union1d(newest.train, newest.test)
    changed = {target: values.copy() for target, values in matrix.y.items()}
    changed["return"][np.setdiff1d(np.arange(len(matrix)), seen)] = 9.0
    other = Matrix(matrix.schema, matrix.x, changed, matrix.symbol, matrix.timestamp, matrix.label_end)
    assert run(other, params).trials == run(matrix, params).trials


def test_without_keys_there_is_one_trial_the_parameters(matrix: Matrix) -> None:
    params = parameters(xgboost=[])
    study = run(matrix, params)
    assert len(study.trials) == 1
    assert study.best == params.train.xgboost


def test_a_model_that_stops_early_is_searched_too(matrix: Matrix) -> None:
    study = run(matrix, parameters(trials=3, folds=1, mlp=["hidden", "dropout"]), name="mlp")
    assert all(isinstance(trial["hidden"], list) for trial in study.trials)


def test_tune_searches_every_target_and_shows_its_progress(matrix: Matrix, capsys: pytest.CaptureFixture[str]) -> None:
    params = parameters(trials=2, folds=1)
    folds: list[Fold] = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    studies = tune("xgboost", matrix, folds, params=params)
    assert list(studies) == list(TARGETS)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tune xgboost: 100%" in shown.err
    assert "6/6" in shown.err


def test_an_unknown_model_is_refused(matrix: Matrix) -> None:
    with pytest.raises(ModelError, match="got 'prophet'"):
        run(matrix, parameters(), name="prophet")
