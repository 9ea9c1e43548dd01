"""Models of chosen columns: what they are fitted on, what their graphs read, and what the stages write of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from stages.selection import selection
from stages.split import split
from stages.train import train
from stages.tune import tune
from tests.matrices import planted
from tests.models.conftest import QUICK
from tests.stages.test_learning import save
from tests.test_tuning import parameters
from tradeloop.config import MODELS, TARGETS, Params, Selection, Target
from tradeloop.errors import DataError, SchemaMismatch
from tradeloop.layout import Layout
from tradeloop.metrics import METRICS
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.models import open_model
from tradeloop.report import selection_table
from tradeloop.schema import Schema
from tradeloop.selection import EVERY, Chosen, read_chosen
from tradeloop.selection.report import compare
from tradeloop.splits import HOLDOUT, read_splits, walk_forward
from tradeloop.training import fit, out_of_fold

COLUMNS = np.array([4, 0, 2])


def settings(**changes: Any) -> Params:
    return parameters(trials=2, folds=1).model_copy(update={"selection": Selection(**changes)})


def rows_of(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    assert (source.name, source.shape[1]) == ("features", x.shape[1])
    return np.asarray(session.run(None, {"features": x})[0][:, 0], dtype=np.float64)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_graph_takes_whole_rows_and_agrees_with_the_model(name: str, target: Target, tmp_path: Path) -> None:
    matrix, params, rows = planted(bars=200), parameters(), np.arange(450)
    hyper = open_model(name).params_type.model_validate(QUICK[name])
    model = fit(name, matrix, target, rows, hyper=hyper, params=params, columns=COLUMNS)
    model.export(tmp_path)
    path = tmp_path / f"{target}.onnx"
    np.testing.assert_allclose(rows_of(path, matrix.x), model.predict(matrix.x), rtol=0, atol=1e-5)
    # It is the model of those columns, in that order, and blind for the others.
    narrow = planted(bars=200)
    object.__setattr__(narrow, "x", np.ascontiguousarray(matrix.x[:, COLUMNS]))
    same = fit(name, narrow, target, rows, hyper=hyper, params=params)
    np.testing.assert_array_equal(model.predict(matrix.x), same.predict(narrow.x))
    blind = matrix.x.copy()
    blind[:, [1, 3, 5]] = 1e6
    np.testing.assert_array_equal(rows_of(path, blind), rows_of(path, matrix.x))
    seen = matrix.x.copy()
    seen[:, 0] += 1
    assert (rows_of(path, seen) != rows_of(path, matrix.x)).any()


def test_a_model_of_all_columns_has_the_graph_that_it_always_had(tmp_path: Path) -> None:
    matrix, params = planted(bars=200), parameters()
    given = {"hyper": params.train.xgboost, "params": params}
    fit("xgboost", matrix, "range", np.arange(450), **given).export(tmp_path / "all")
    fit("xgboost", matrix, "range", np.arange(450), **given, columns=COLUMNS).export(tmp_path / "some")
    kinds = [[n.op_type for n in onnx.load(tmp_path / which / "range.onnx").graph.node] for which in ("all", "some")]
    assert "Gather" not in kinds[0] and kinds[1] == ["Gather", *kinds[0]]


def test_each_fold_has_its_own_columns() -> None:
    matrix, params = planted(bars=250, symbols=2), parameters()
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    chosen = Chosen({"range": {fold.number: np.array([fold.number, 5]) for fold in folds}})
    given = {"hyper": params.train.xgboost, "params": params}
    parts = list(out_of_fold("xgboost", matrix, "range", folds, **given, chosen=chosen))
    r2 = [METRICS["r2"](matrix.y["range"][fold.test], part) for fold, part in zip(folds, parts, strict=True)]
    assert r2[0] > 0.3 > 0.1 > max(r2[1:])  # range follows the first column alone
    every = [list(out_of_fold("xgboost", matrix, "range", folds, **given, chosen=c)) for c in (EVERY, Chosen())]
    for one, other in zip(*every, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Split, select, tune and train xgboost on a planted market."""
    layout, params = Layout(tmp_path_factory.mktemp("chosen")), settings(method="ranked", drop=0.5)
    save(planted(bars=300, symbols=2), layout)
    for stage in (split, selection):
        stage(layout, params)
    tune("xgboost", layout, params)
    train("xgboost", layout, params)
    return layout


def test_the_stages_pass_the_columns_on(finished: Layout) -> None:
    schema = Schema.load(finished.training / "schema.json")
    folds, holdout = read_splits(finished)
    chosen = read_chosen(finished, schema)
    assert HOLDOUT in chosen.columns["range"]
    meta = json.loads((finished.models / "trained" / "xgboost" / "meta.json").read_text())
    frame = pd.read_parquet(finished.models / "trained" / "xgboost" / "oof.parquet")
    tuned = json.loads((finished.models / "tuned" / "xgboost.json").read_text())
    matrix, params = planted(bars=300, symbols=2), settings(method="ranked", drop=0.5)
    for target in TARGETS:
        columns = chosen.of(target, holdout.number)
        assert columns is not None and len(columns) == 3
        assert meta["targets"][target]["columns"] == [schema.names[at] for at in columns]
        graph = onnx.load(finished.models / "trained" / "xgboost" / f"{target}.onnx").graph
        (gathered,) = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name == "columns"]
        assert gathered.tolist() == columns.tolist()
        hyper = params.train.xgboost.model_validate(tuned[target]["params"])
        given = {"hyper": hyper, "params": params, "chosen": chosen}
        parts = out_of_fold("xgboost", matrix, target, folds, **given)
        np.testing.assert_array_equal(frame[target], np.concatenate(list(parts)))
        first = next(
            out_of_fold("xgboost", matrix, target, folds[-1:], hyper=params.train.xgboost, params=params, chosen=chosen)
        )
        metric = METRICS[tuned[target]["metric"]](matrix.y[target][folds[-1].test], first)
        assert tuned[target]["trials"][0]["score"] == pytest.approx(metric, rel=1e-9)


def test_the_report_compares_all_columns_with_the_chosen_on_the_same_rows(finished: Layout) -> None:
    found = json.loads((finished.reports / "selection.json").read_text())
    assert found["columns"] == 6
    matrix, params = planted(bars=300, symbols=2), settings(method="ranked", drop=0.5)
    folds, _ = read_splits(finished)
    rows = np.concatenate([fold.test for fold in folds])
    for target, skill in (("direction", "auc"), ("return", "ic"), ("range", "r2")):
        one = found[target]
        assert one["kept"] + one["weak"] + one["redundant"] + one["constant"] == 6
        assert one["stability_across"]["value"] is not None
        scores = one["models"]["xgboost"]
        parts = out_of_fold("xgboost", matrix, target, folds, hyper=params.train.xgboost, params=params)
        before = METRICS[skill](matrix.y[target][rows], np.concatenate(list(parts)))
        assert scores["before"]["value"] == pytest.approx(before)
        gap = scores["difference"]
        assert gap["value"] == pytest.approx(scores["after"]["value"] - scores["before"]["value"])
        assert gap["low"] < gap["value"] < gap["high"]
    table = pd.read_csv(finished.reports / "selection.csv")
    assert len(table) == 18
    assert (table.groupby("target")["status"].apply(lambda s: (s == "kept").sum()) == 3).all()
    assert table.loc[table["target"] == "range", "column"].iloc[0] == "f0"
    assert table["kept_in"].between(0, 4).all() and table["kept_in"].max() == 4
    shown = selection_table(found)
    assert [row["target"] for row in shown] == list(TARGETS) and {row["kept"] for row in shown} == {"3 of 6"}


def test_off_there_is_nothing_to_choose_compare_or_show(tmp_path: Path) -> None:
    layout, params = Layout(tmp_path), settings()
    matrix = planted(bars=300, symbols=2)
    save(matrix, layout)
    split(layout, params)
    selection(layout, params)
    chosen = read_chosen(layout, matrix.schema)
    assert all(chosen.of(target, number) is None for target in TARGETS for number in (0, HOLDOUT))
    found = json.loads((layout.reports / "selection.json").read_text())
    assert found == {"columns": 6} and selection_table(found) == []
    assert (layout.reports / "selection.csv").read_text().startswith("target,column,status")


def test_what_to_compare_is_a_parameter(tmp_path: Path) -> None:
    layout, params = Layout(tmp_path), settings(method="clusters", compare=[])
    save(planted(bars=300, symbols=2), layout)
    split(layout, params)
    selection(layout, params)
    assert json.loads((layout.reports / "selection.json").read_text())["range"]["models"] == {}


def test_a_comparison_knows_which_way_is_better() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=400)
    good, bad = actual + 0.5 * rng.normal(size=400), actual + rng.normal(size=400)
    bootstrap = Bootstrap(np.arange(400), block=5, count=200, confidence=0.95, seed=1)
    for target in ("return", "range"):
        found = compare(target, actual, bad, good, bootstrap=bootstrap)
        assert found["difference"]["low"] > 0 and found["loss_saved"]["low"] > 0.5
        assert found["loss_saved"]["value"] == pytest.approx(
            1 - np.mean((good - actual) ** 2) / np.mean((bad - actual) ** 2)
        )
        assert compare(target, actual, good, bad, bootstrap=bootstrap)["difference"]["high"] < 0
    p = np.clip(0.5 + 0.2 * actual, 0.01, 0.99)
    found = compare("direction", (actual > 0).astype(float), np.full(400, 0.5) + 1e-9 * bad, p, bootstrap=bootstrap)
    assert found["loss_saved"]["low"] > 0


def test_columns_chosen_among_other_features_are_refused(finished: Layout, tmp_path: Path) -> None:
    other = Schema("test", ("a", "b"), "f" * 64)
    with pytest.raises(SchemaMismatch, match=r"selection\.json has feature schema"):
        read_chosen(finished, other)
    with pytest.raises(DataError, match=r"run `python -m stages\.selection` first"):
        read_chosen(Layout(tmp_path), other)
