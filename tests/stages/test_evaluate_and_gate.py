"""Stages evaluate and gate as DVC runs them: files in, files out, the same bytes again, and a verdict that is loud."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.holdouts import make_project, read_json
from tradeloop.layout import Layout

OUTPUTS = [
    "evaluation.json",
    "holdout.parquet",
    "metrics.json",
    "report.html",
    *(f"plots/{name}.csv" for name in ("equity", "importance", "range", "reliability")),
]


def run(stage: str, layout: Layout) -> subprocess.CompletedProcess[str]:
    environment = {"TRADELOOP_HOME": str(layout.root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def set_params(layout: Layout, block: str, **values: Any) -> None:
    raw = yaml.safe_load(layout.params.read_text())
    raw[block] |= values
    layout.params.write_text(yaml.safe_dump(raw))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = make_project(tmp_path_factory.mktemp("stages"), momentum=0.5)
    done = run("evaluate", layout)
    assert done.returncode == 0, done.stderr
    assert "evaluate: range: proven skill, R²" in done.stdout
    assert "evaluate: direction: no proven edge, AUC" in done.stdout
    return layout


def test_evaluate_writes_what_dvc_declares(project: Layout) -> None:
    written = {str(path.relative_to(project.reports)) for path in project.reports.rglob("*") if path.is_file()}
    assert set(OUTPUTS) <= written
    equity = pd.read_csv(project.reports / "plots/equity.csv")
    assert {"timestamp", "equity", "buy_and_hold", "drawdown"} <= set(equity.columns)
    importance = pd.read_csv(project.reports / "plots/importance.csv")
    assert list(importance.columns) == ["feature", "importance", "target"]
    assert set(read_json(project.reports / "metrics.json")) >= {"direction", "return", "range", "trading"}


def test_evaluate_and_gate_write_the_same_bytes_again(project: Layout) -> None:
    assert run("gate", project).returncode == 0
    files = [*OUTPUTS, "gate.json"]
    before = {name: (project.reports / name).read_bytes() for name in files}
    assert run("evaluate", project).returncode == 0
    assert run("gate", project).returncode == 0
    for name in files:
        assert (project.reports / name).read_bytes() == before[name], name


def test_an_honest_model_without_directional_edge_passes_and_says_so(project: Layout) -> None:
    done = run("gate", project)
    assert done.returncode == 0, done.stderr
    assert "gate: PASS" in done.stdout
    assert "direction is served as information only, no proven edge" in done.stdout
    gate = read_json(project.reports / "gate.json")
    assert gate["verdict"] == "pass"
    assert {target: part["edge_proven"] for target, part in gate["targets"].items()} == {
        "direction": False,
        "return": False,
        "range": True,
    }


def test_a_leaky_model_fails_loudly_without_stopping_the_pipeline(project: Layout, tmp_path: Path) -> None:
    """The label itself becomes a feature, as a leak in a feature would; real graphs are fitted on it."""
    from tests.holdouts import fit_ensemble
    from tradeloop.schema import Schema
    from tradeloop.splits import read_splits

    layout = Layout(tmp_path / "leaky")
    shutil.copytree(project.root, layout.root)
    matrix = pd.read_parquet(layout.training / "matrix.parquet")
    schema = Schema.load(layout.training / "schema.json")
    matrix[schema.names[0]] = matrix["return"].astype("float32")
    matrix.to_parquet(layout.training / "matrix.parquet")
    fit_ensemble(layout, schema, matrix.iloc[read_splits(layout)[1].train])
    evaluated = run("evaluate", layout)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "LOOK INTO THIS: direction AUC" in evaluated.stdout
    done = run("gate", layout)
    assert done.returncode == 0
    assert "gate: FAIL" in done.stdout
    assert "FAILED direction too_good" in done.stdout
    assert "presumed to be a leak" in done.stdout
    assert read_json(layout.reports / "gate.json")["verdict"] == "fail"


def test_a_gate_parameter_changes_the_verdict(project: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "strict")
    shutil.copytree(project.root, layout.root)
    set_params(layout, "gate", min_range_r2=0.95)
    done = run("gate", layout)
    assert "FAILED range r2: range R² is 0." in done.stdout
    assert "should be ≥ 0.95" in done.stdout


def test_an_ensemble_of_another_schema_is_refused_in_one_line(project: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "other")
    shutil.copytree(project.root, layout.root)
    path = layout.models / "stack" / "stack.json"
    path.write_text(path.read_text().replace(read_json(path)["schema"]["hash"], "f" * 64))
    done = run("evaluate", layout)
    assert done.returncode == 1
    assert done.stderr.startswith("evaluate: the ensemble has feature schema ffffffffffff, expected")
    assert len(done.stderr.strip().splitlines()) == 1
