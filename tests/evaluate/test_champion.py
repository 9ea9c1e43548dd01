"""Challenger against champion: the same rows, the bundle that serves, and what makes a comparison impossible."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.holdouts import Case, read_json
from tradeloop.bundle import Bundle, write_bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.champion import open_registry
from tradeloop.config import TARGETS
from tradeloop.dataset import Matrix, load_matrix
from tradeloop.evaluate.champion import compare, compare_with_champion, known_until
from tradeloop.evaluate.documents import holdout_frame
from tradeloop.gate import Comparison, decide
from tradeloop.manifest import Facts, Thresholds
from tradeloop.reference import build_reference

SETTINGS = {"block": 10, "bootstrap": 200, "confidence": 0.95, "seed": 1}


@dataclass(frozen=True)
class Rivals:
    bundle: Bundle
    folder: Path
    matrix: Matrix
    frame: pd.DataFrame

    def compare(self, case: Case, frame: pd.DataFrame | None = None, **labels: Any) -> Comparison:
        wanted = case.params.labels.model_copy(update=labels)
        return compare(
            self.bundle, self.frame if frame is None else frame, self.matrix, labels=wanted, settings=SETTINGS
        )


def make_bundle(case: Case, folder: Path, train_end: datetime) -> Bundle:
    spec = read_json(case.layout.models / "stack" / "stack.json")
    graphs = {
        f"xgboost/{t}.onnx": (case.layout.models / "trained" / "xgboost" / f"{t}.onnx").read_bytes() for t in TARGETS
    }
    facts = Facts(
        name="tradeloop",
        market=case.params.market,
        symbols=["AAA", "BBB"],
        data_hash="0" * 64,
        train_end=train_end,
        git_revision="unknown",
        git_dirty=False,
        labels=case.params.labels,
        thresholds=Thresholds(probability=0.02, cost_bps=5, min_edge_bps=0),
        edge_proven={"direction": False, "return": False, "range": True},
        versions={},
    )
    golden = case.holdout.x[:3]
    parts = {"golden": golden, "metrics": {}, "gate": {"verdict": "pass"}}
    matrix = load_matrix(case.layout)
    parts["reference"] = build_reference(
        holdout_frame(case.holdout), matrix, train=case.holdout.sample.train, coverage=case.holdout.coverage
    )
    return write_bundle(folder, facts, spec=spec, schema=case.holdout.schema, graphs=graphs, **parts)


def moment(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").item().replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def rivals(honest: Case, tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.datetime64], Rivals]:
    matrix, frame = load_matrix(honest.layout), holdout_frame(honest.holdout)

    def make(train_end: np.datetime64) -> Rivals:
        folder = tmp_path_factory.mktemp("champion") / "bundle"
        return Rivals(make_bundle(honest, folder, moment(train_end)), folder, matrix, frame)

    return make


@pytest.fixture(scope="module")
def twin(honest: Case, rivals: Callable[[np.datetime64], Rivals]) -> Rivals:
    """The champion is the very challenger."""
    sample = honest.holdout.sample
    return rivals(sample.timestamp[sample.train].max())


def test_the_champion_itself_ties_and_passes(honest: Case, twin: Rivals) -> None:
    found = twin.compare(honest)
    assert found.obstacle is None
    assert found.rows == len(honest.holdout.row)
    for target in TARGETS:
        assert found.losses[target]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    metrics = honest.evaluation["targets"]["range"]["metrics"]
    assert found.losses["range"]["champion"] == pytest.approx(metrics["rmse"]["value"])
    assert decide(honest.evaluation, honest.params.gate, found).passed


def test_a_worse_challenger_fails(honest: Case, twin: Rivals) -> None:
    frame = twin.frame.assign(range=twin.frame["range"] + 0.4)
    found = twin.compare(honest, frame)
    assert found.losses["range"]["difference"]["low"] > 0
    verdict = decide(honest.evaluation, honest.params.gate, found)
    assert [(r.target, r.check) for r in verdict.reasons if not r.ok] == [("range", "champion")]


def test_a_better_challenger_passes(honest: Case, twin: Rivals) -> None:
    nearer = (twin.frame["range"] + twin.frame["label_range"]) / 2
    found = twin.compare(honest, twin.frame.assign(range=nearer))
    assert found.losses["range"]["difference"]["high"] < 0
    assert decide(honest.evaluation, honest.params.gate, found).passed


def test_rows_the_champion_trained_on_do_not_count(honest: Case, rivals: Callable[[np.datetime64], Rivals]) -> None:
    times = np.unique(honest.holdout.timestamp)
    later = rivals(times[99])
    found = later.compare(honest)
    # a label of one bar ends at the next: rows must lie behind times[100]
    assert found.rows == int((honest.holdout.timestamp > times[100]).sum())
    assert known_until(moment(times[99]), later.matrix) == times[100]


def test_a_champion_newer_than_the_holdout_leaves_no_rows(
    honest: Case, rivals: Callable[[np.datetime64], Rivals]
) -> None:
    found = rivals(np.unique(honest.holdout.timestamp)[-1]).compare(honest)
    assert (found.rows, found.obstacle) == (0, None)
    verdict = decide(honest.evaluation, honest.params.gate, found)
    assert verdict.passed
    assert any("0 rows in common" in reason.text for reason in verdict.reasons)


def test_other_labels_and_other_features_are_not_comparable(honest: Case, twin: Rivals) -> None:
    assert "other labels" in str(twin.compare(honest, horizon=3).obstacle)
    schema = replace(twin.matrix.schema, hash="f" * 64)
    other = replace(twin, matrix=replace(twin.matrix, schema=schema))
    assert "feature schema" in str(other.compare(honest).obstacle)


class TestThroughTheRegistry:
    @pytest.fixture(autouse=True)
    def home(self, honest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("BENTOML_HOME", raising=False)
        monkeypatch.delenv("TRADELOOP_DATABASE_URL", raising=False)
        holdout_frame(honest.holdout).to_parquet(honest.layout.reports / "holdout.parquet")

    def test_no_champion(self, honest: Case) -> None:
        assert compare_with_champion(honest.layout, honest.params, honest.evaluation) is None

    def test_a_champion_and_then_a_damaged_one(self, honest: Case, twin: Rivals) -> None:
        store = BundleStore(honest.layout, honest.params)
        shutil.copytree(twin.folder, store.folder(twin.bundle.hash))
        with open_registry(honest.layout, honest.params) as registry:
            registry.register(twin.bundle.hash, actor="test", reason="test", passed=True)
            registry.promote(twin.bundle.hash, actor="test", reason="test")
        found = compare_with_champion(honest.layout, honest.params, honest.evaluation)
        assert found is not None
        assert (found.champion, found.obstacle) == (twin.bundle.version, None)
        assert found.rows == len(honest.holdout.row)
        graph = store.folder(twin.bundle.hash) / "xgboost" / "range.onnx"
        graph.write_bytes(graph.read_bytes()[:-1])
        damaged = compare_with_champion(honest.layout, honest.params, honest.evaluation)
        assert damaged is not None
        assert "truncated" in str(damaged.obstacle)
        assert decide(honest.evaluation, honest.params.gate, damaged).passed
