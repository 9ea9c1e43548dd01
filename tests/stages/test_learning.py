"""Stages split, tune, train and stack, one after another on a planted market."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stages.selection import selection
from stages.split import split
from stages.stack import stack
from stages.train import train
from stages.tune import tune
from tests.matrices import planted
from tests.test_tuning import parameters
from tradeloop.atomic import write_parquet
from tradeloop.config import MODELS, TARGETS, Params
from tradeloop.dataset import Matrix, load_matrix
from tradeloop.ensemble import Ensemble
from tradeloop.errors import ModelError
from tradeloop.layout import Layout
from tradeloop.splits import read_splits


def save(matrix: Matrix, layout: Layout) -> None:
    """Write what the dataset stage would have written."""
    frame = pd.DataFrame({"symbol": matrix.symbol, "timestamp": matrix.timestamp, "label_end": matrix.label_end})
    for column in ("timestamp", "label_end"):
        frame[column] = frame[column].dt.tz_localize("UTC")
    features = pd.DataFrame(matrix.x, columns=list(matrix.schema.names))
    frame = pd.concat([frame, features, pd.DataFrame(matrix.y)], axis=1)
    write_parquet(layout.training / "matrix.parquet", frame)
    matrix.schema.save(layout.training / "schema.json")


def settings() -> Params:
    return parameters(trials=2, folds=1)


def run_all(root: Path) -> Layout:
    layout, params = Layout(root), settings()
    save(planted(bars=400, symbols=2), layout)
    split(layout, params)
    selection(layout, params)
    for name in MODELS:
        tune(name, layout, params)
        train(name, layout, params)
    stack(layout, params)
    return layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return run_all(tmp_path_factory.mktemp("learning"))


def test_a_rerun_writes_the_same_bytes(layout: Layout, tmp_path: Path) -> None:
    again = run_all(tmp_path)
    files = sorted(path.relative_to(layout.root) for path in layout.data.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (layout.root / file).read_bytes() == (again.root / file).read_bytes(), file


def test_tuned_files_hold_every_hyperparameter(layout: Layout) -> None:
    for name in MODELS:
        tuned = json.loads((layout.models / "tuned" / f"{name}.json").read_text())
        for target in TARGETS:
            assert set(tuned[target]["params"]) == set(type(getattr(settings().train, name)).model_fields)
            assert len(tuned[target]["trials"]) == (2 if name == "xgboost" else 1)


def test_trained_folders_hold_graphs_native_files_and_scores(layout: Layout) -> None:
    native = {"xgboost": {f"{t}.json" for t in TARGETS}, "mlp": {f"{t}.safetensors" for t in TARGETS}}
    folds, holdout = read_splits(layout)
    for name in MODELS:
        folder = layout.models / "trained" / name
        expected = {f"{target}.onnx" for target in TARGETS} | native.get(name, set()) | {"oof.parquet", "meta.json"}
        assert {path.name for path in folder.iterdir()} == expected
        meta = json.loads((folder / "meta.json").read_text())
        for target in TARGETS:
            assert [fold["fold"] for fold in meta["targets"][target]["folds"]] == [0, 1, 2]
            assert meta["targets"][target]["train_rows"] == len(holdout.train)
        frame = pd.read_parquet(folder / "oof.parquet")
        np.testing.assert_array_equal(frame["row"], np.concatenate([fold.test for fold in folds]))


def test_the_specification_opens_the_trained_graphs_and_forecasts_what_was_planted(layout: Layout) -> None:
    spec = json.loads((layout.models / "stack" / "stack.json").read_text())
    ensemble = Ensemble.load(layout.models / "trained", spec)
    matrix, (_, holdout) = load_matrix(layout), read_splits(layout)
    forecast = ensemble.forecast(matrix.x[holdout.test])
    assert np.corrcoef(forecast.range, matrix.y["range"][holdout.test])[0, 1] > 0.7
    assert np.corrcoef(forecast.p_up, matrix.y["direction"][holdout.test])[0, 1] > 0.3
    inside = (forecast.range_low <= matrix.y["range"][holdout.test]) & (
        matrix.y["range"][holdout.test] <= forecast.range_high
    )
    assert 0.8 < inside.mean() < 0.98


def test_fold_scores_are_listed_for_every_model_and_the_stack(layout: Layout) -> None:
    table = pd.read_csv(layout.reports / "folds.csv")
    assert list(table.columns) == ["model", "target", "fold", "metric", "value"]
    assert set(table["model"]) == {*MODELS, "stack"}
    assert len(table) == (len(MODELS) + 1) * len(TARGETS) * settings().split.folds * 2
    stacked = table[(table["model"] == "stack") & (table["metric"] == "auc")]["value"]
    assert stacked.min() > 0.6


def test_a_model_that_was_not_trained_is_one_line(layout: Layout, tmp_path: Path) -> None:
    shutil.copytree(layout.root, tmp_path / "part")
    shutil.rmtree(tmp_path / "part/data/models/trained/mlp")
    with pytest.raises(ModelError, match=r"mlp/oof.parquet is missing: is the model in dvc.yaml"):
        stack(Layout(tmp_path / "part"), settings())


def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be one of .*, got ''"):
        tune("", Layout(tmp_path), settings())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings().model_dump(mode="json")))
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", "prophet"],
        env={"TRADELOOP_HOME": str(tmp_path), "PATH": "/usr/bin"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"train: model must be one of {sorted(MODELS)}, got 'prophet'")
    assert len(done.stderr.strip().splitlines()) == 1
