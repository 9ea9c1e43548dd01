from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import tiny_bundle, tiny_rows, tiny_schema
from tests.conftest import Project
from tradeloop.config import Keep, load_params
from tradeloop.dataset import Matrix
from tradeloop.errors import BundleError, ConfigError, ModelError
from tradeloop.keeping import Kept, open_kept
from tradeloop.layout import Layout
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.schema import Schema
from tradeloop.state.database import Database, database_url


def matrix(schema: Schema, start: datetime, rows: int = 50) -> Matrix:
    times = np.datetime64(start.replace(tzinfo=None), "us") + np.arange(rows) * np.timedelta64(1, "D")
    labels = {"direction": np.arange(rows) % 2.0, "return": np.zeros(rows), "range": np.full(rows, -4.0)}
    symbols = np.full(rows, "AAPL", dtype=object)
    return Matrix(schema, tiny_rows(rows), labels, symbols, times, times + np.timedelta64(1, "D"))


def test_what_is_kept_forecasts_as_its_bundle_does(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    files = verify(tmp_path / "bundle")
    rows = matrix(bundle.schema, bundle.manifest.train_end + timedelta(days=1))
    kept = Kept.from_files(files, Keep(bundle=bundle.hash, targets=["range"]), rows)
    assert kept.has("xgboost", "range")
    assert not kept.has("xgboost", "direction")
    assert not kept.has("unheard_of", "range")
    np.testing.assert_array_equal(
        kept.forecast("xgboost", "range", rows.x), bundle.forecast(rows.x).members["range"]["xgboost"]
    )
    assert kept.graph("xgboost", "range") == files.files["xgboost/range.onnx"]


def test_rows_that_the_bundle_was_trained_on_are_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    rows = matrix(bundle.schema, bundle.manifest.train_end)
    with pytest.raises(ModelError, match="was trained on rows until 2010-01-04"):
        Kept.from_files(verify(tmp_path / "bundle"), Keep(bundle=bundle.hash, targets=["range"]), rows)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    other = tiny_schema(("a", "b", "c", "d", "e", "f"))
    rows = matrix(other, datetime(2012, 1, 1, tzinfo=UTC))
    with pytest.raises(ModelError, match=r"has feature schema .* these rows have"):
        Kept.from_files(verify(tmp_path / "bundle"), Keep(bundle=bundle.hash, targets=["range"]), rows)


def test_targets_need_a_bundle() -> None:
    with pytest.raises(ValueError, match=r"keep\.targets need keep\.bundle"):
        Keep(targets=["range"])


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
def test_the_pipeline_keeps_the_champions_members(project: Project) -> None:
    layout = Layout(project.root)
    database = Database.open(database_url(layout, load_params(layout.params)))
    champion = Registry(database, "us_daily").champion()
    database.close()
    assert champion is not None
    train_end = json.loads((layout.models / "bundle" / "manifest.json").read_text())["train_end"]
    after = (datetime.fromisoformat(train_end) + timedelta(days=1)).isoformat()
    kept = {"train.keep.bundle": champion.hash, "train.keep.targets": ["range"]}
    project.set({**kept, "dataset.start": after, "split.holdout": 0.4, "gate.min_range_r2": -0.5})
    project.run("dvc", "repro", "stack")
    for model in ("xgboost", "random_forest", "mlp"):
        graph = layout.models / "trained" / model
        packaged = layout.bentoml / "models" / "tradeloop_us_daily" / champion.version / "bundle" / model
        assert (graph / "range.onnx").read_bytes() == (packaged / "range.onnx").read_bytes()
        assert (graph / "direction.onnx").read_bytes() != (packaged / "direction.onnx").read_bytes()
        assert json.loads((graph / "meta.json").read_text())["targets"]["range"]["kept"] == champion.hash


def test_a_bundle_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[1] / "params.yaml").read_bytes())
    layout = Layout(tmp_path)
    params = load_params(layout.params)
    rows = matrix(bundle.schema, datetime(2012, 1, 1, tzinfo=UTC))
    assert open_kept(layout, params, rows) is None
    train = params.train.model_copy(update={"keep": Keep(bundle="0" * 64, targets=["range"])})
    with pytest.raises((BundleError, ConfigError)):
        open_kept(layout, params.model_copy(update={"train": train}), rows)
