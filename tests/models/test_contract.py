"""Contract 6, over every registered model: same seed, same output; the graph agrees; no parameter is unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.matrices import planted
from tests.models.conftest import QUICK, early, fitted, quick
from tradeloop.config import MODELS, Target
from tradeloop.dataset import Matrix
from tradeloop.errors import ModelError
from tradeloop.metrics import METRICS
from tradeloop.models import available, open_model
from tradeloop.models.base import Choice, Real, Whole
from tradeloop.splits import tail_validation

# For each hyperparameter another value than QUICK's; a model's new hyperparameter without one here fails below.
OTHER: dict[str, dict[str, Any]] = {
    "random_forest": {
        "n_estimators": 31,
        "max_depth": 2,
        "min_samples_leaf": 60,
        "max_features": 0.2,
        "max_samples": 0.8,
    },
    "xgboost": {
        "n_estimators": 41,
        "max_depth": 2,
        "learning_rate": 0.2,
        "min_child_weight": 200.0,
        "subsample": 1.0,
        "colsample_bytree": 1.0,
        "reg_lambda": 100.0,
    },
    "mlp": {
        "hidden": [8, 8],
        "dropout": 0.5,
        "learning_rate": 0.001,
        "weight_decay": 5.0,
        "batch_size": 64,
        "max_epochs": 2,
        "patience": 1,
        "validation": 0.4,
    },
}


def run(path: Path, x: NDArray[np.float32]) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"features": x})
    assert output.shape == (len(x), 1)
    assert output.dtype == np.float32
    return np.asarray(output[:, 0], dtype=np.float64)


def at_thresholds(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of `x`, each moved in one feature onto a split's threshold, or to the float32 beside it."""
    rows = []
    rng = np.random.default_rng(0)
    for node in onnx.load(path).graph.node:
        if node.op_type != "TreeEnsembleRegressor":
            continue
        tree = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        splits = [
            (f, v)
            for f, v, m in zip(tree["nodes_featureids"], tree["nodes_values"], tree["nodes_modes"], strict=True)
            if m != b"LEAF"
        ]
        for feature, value in splits:
            for moved in (
                value,
                np.nextafter(np.float32(value), np.float32(9)),
                np.nextafter(np.float32(value), np.float32(-9)),
            ):
                row = x[rng.integers(len(x))].copy()
                row[feature] = moved
                rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(-1, x.shape[1])


def test_discovery_finds_what_the_parameters_name() -> None:
    assert available() == sorted(MODELS)
    assert sorted(QUICK) == sorted(OTHER) == available()
    with pytest.raises(ModelError, match=r"must be one of \['mlp'.*got 'lstm'"):
        open_model("lstm")


def test_same_seed_same_bytes_and_chance_only_where_it_is_said(
    name: str, target: Target, matrix: Matrix, tmp_path: Path
) -> None:
    first, again, other = (fitted(name, target, matrix, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.predict(matrix.x), again.predict(matrix.x))
    assert (first.predict(matrix.x) != other.predict(matrix.x)).any() == first.seeded
    first.export(tmp_path / "a")
    again.export(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert f"{target}.onnx" in files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_graph_agrees_with_the_model(name: str, target: Target, matrix: Matrix, tmp_path: Path) -> None:
    model = fitted(name, target, matrix)
    model.export(tmp_path)
    path = tmp_path / f"{target}.onnx"
    hard = at_thresholds(path, matrix.x)
    grown = any(node.op_type == "TreeEnsembleRegressor" for node in onnx.load(path).graph.node)
    assert len(hard) > 500 or not grown
    extreme = np.array([[1e30] * 6, [-1e30] * 6, [0] * 6, [1e-40] * 6], dtype=np.float32)
    x = np.concatenate([matrix.x, hard, extreme])
    np.testing.assert_allclose(run(path, x), model.predict(x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(path, x[:1]), model.predict(x[:1]), rtol=0, atol=1e-5)


def test_every_hyperparameter_changes_the_result(name: str, matrix: Matrix) -> None:
    rows = slice(0, 900)
    assert set(OTHER[name]) == set(open_model(name).params_type.model_fields)

    def forecasts(**changes: Any) -> NDArray[np.float64]:
        hyper = quick(name, **changes)
        share = getattr(hyper, "validation", 0.2)
        split = tail_validation(matrix.timestamp[rows], matrix.label_end[rows], share=share, embargo=2)
        model = open_model(name)("direction", hyper, seed=5)
        return model.fit(matrix.x[rows], matrix.y["direction"][rows], early=split).predict(matrix.x)

    usual = forecasts()
    for key, value in OTHER[name].items():
        assert (forecasts(**{key: value}) != usual).any(), key


def test_learns_what_was_planted(name: str, target: Target) -> None:
    matrix = planted(bars=900, seed=3)
    rows, unseen = 1800, slice(1900, None)
    forecast = fitted(name, target, matrix, rows=rows).predict(matrix.x[unseen])
    actual = matrix.y[target][unseen]
    if target == "direction":
        assert METRICS["auc"](actual, forecast) > 0.68  # the planted log odds themselves score .77
        assert METRICS["log_loss"](actual, forecast) < 0.66
        assert 0 <= forecast.min() <= forecast.max() <= 1
    else:
        # The planted shares of variance are .5 (return) and .64 (range).
        assert METRICS["r2"](actual, forecast) > {"return": 0.3, "range": 0.5}[target]


def test_shuffled_labels_teach_nothing(name: str, target: Target) -> None:
    matrix = planted(bars=900, seed=4, shuffled=True)
    unseen = slice(1900, None)
    forecast = fitted(name, target, matrix, rows=1800).predict(matrix.x[unseen])
    actual = matrix.y[target][unseen]
    if np.ptp(forecast) == 0:  # said the mean and nothing else
        return
    chance = 1 / np.sqrt(len(actual))  # standard error of a correlation; of the AUC it is .58 of that
    if target == "direction":
        assert abs(METRICS["auc"](actual, forecast) - 0.5) < 4 * 0.58 * chance
    else:
        assert abs(METRICS["ic"](actual, forecast)) < 4 * chance


def test_forecasts_do_not_depend_on_the_rows_beside(name: str, target: Target, matrix: Matrix) -> None:
    model = fitted(name, target, matrix)
    whole = model.predict(matrix.x[:50])
    single = np.concatenate([model.predict(matrix.x[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(whole, single, rtol=0, atol=1e-6)


def test_training_leaves_its_arrays_alone(name: str, target: Target, matrix: Matrix) -> None:
    x, y = matrix.x.copy(), matrix.y[target].copy()
    fitted(name, target, matrix)
    np.testing.assert_array_equal(matrix.x, x)
    np.testing.assert_array_equal(matrix.y[target], y)


def test_search_space_covers_all_and_starts_at_the_parameters(name: str) -> None:
    model = open_model(name)
    base = model.params_type()
    keys = list(model.params_type.model_fields)
    assert sorted(model.space) == sorted(keys)

    class Fixed:
        """A trial that stands where it was told to."""

        def __init__(self, values: dict[str, Any], where: str) -> None:
            self.values, self.where = values, where

        def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
            assert low <= self.values[name] <= high
            assert not log or low > 0
            return {"start": self.values[name], "low": low, "high": high}[self.where]

        def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
            return int(self.suggest_float(name, low, high, log=log))

        def suggest_categorical(self, name: str, choices: Any) -> str:
            assert self.values[name] in choices
            return str({"start": self.values[name], "low": choices[0], "high": choices[-1]}[self.where])

    start = model.start(base, keys)
    assert model.search_space(Fixed(start, "start"), base, keys) == base
    for end in ("low", "high"):  # both ends are valid hyperparameters
        moved = model.search_space(Fixed(start, end), base, keys)
        for key in keys:
            space = model.space[key]
            if isinstance(space, Real | Whole):
                assert getattr(moved, key) == (space.low if end == "low" else space.high)
            else:
                assert isinstance(space, Choice)
    assert model.search_space(Fixed(start, "high"), base, []) == base
    with pytest.raises(ModelError, match=r"can be tuned in .*got 'depth'"):
        model.start(base, ["depth"])


def test_bad_rows_are_refused(name: str, matrix: Matrix) -> None:
    model = open_model(name)("direction", quick(name), seed=1)
    x, y, split = matrix.x[:900], matrix.y["direction"][:900], early(matrix, slice(0, 900))
    with pytest.raises(ModelError, match="is not fitted"):
        model.predict(x)
    with pytest.raises(ModelError, match=r"float32 \(n, d\), got float64"):
        model.fit(x.astype(np.float64), y, early=split)
    with pytest.raises(ModelError, match="finite"):
        model.fit(np.where(x == x[7, 2], np.float32(np.nan), x), y, early=split)
    with pytest.raises(ModelError, match=r"one finite label each, got \(900, 6\) and \(899,\)"):
        model.fit(x, y[1:], early=split)
    with pytest.raises(ModelError, match=r"both present, got \[1\.0\]"):
        model.fit(x, np.ones(900), early=split)
    with pytest.raises(ModelError, match="fitted on 6 features, got 5"):
        model.fit(x, y, early=split).predict(x[:, :5])
    with pytest.raises(ModelError, match=r"target must be one of .*got 'price'"):
        open_model(name)("price", quick(name), seed=1)  # type: ignore[arg-type]  # what is tested


def test_early_stopping_needs_a_validation_split(matrix: Matrix) -> None:
    with pytest.raises(ModelError, match="needs a validation split"):
        open_model("mlp")("return", quick("mlp"), seed=1).fit(matrix.x, matrix.y["return"])
