"""The DAG: its dependencies are true, it reruns what changed and nothing else, twice the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.closure import expected, is_code
from tests.conftest import ROOT, Project

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_imports(stage: str) -> None:
    code = sorted(d for d in STAGES[stage].get("deps", []) if is_code(d))
    assert code == expected()[stage], "run `make dvc-deps`"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_module_block_and_name_agree(stage: str) -> None:
    module = STAGES[stage]["cmd"].split()[2]
    assert module == f"stages.{stage}"
    lines = (ROOT / f"stages/{stage}.py").read_text().splitlines()
    assert len(lines) < 60


def _stages_that_would_run(project: Project) -> set[str]:
    status = json.loads(project.run("dvc", "status", "--json").stdout)
    return set(status)


@pytest.mark.slow
@pytest.mark.xdist_group("pipeline")
class TestRerun:
    def test_unchanged_reruns_nothing(self, project: Project) -> None:
        lock = (project.root / "dvc.lock").read_bytes()
        output = project.run("dvc", "repro").stdout
        assert "Running stage" not in output
        assert (project.root / "dvc.lock").read_bytes() == lock
        assert project.run("git", "status", "--porcelain").stdout == ""

    def test_changed_evaluate_reruns_evaluate_and_what_follows(self, project: Project) -> None:
        project.set({"evaluate.cost_bps": 7.5})
        output = project.run("dvc", "repro").stdout
        ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
        assert "evaluate" in ran
        assert ran <= {"config", "evaluate", "gate", "package", "publish"}
        assert "metrics.json" in project.run("dvc", "metrics", "diff").stdout

    def test_unknown_key_stops_the_run_with_one_line(self, project: Project) -> None:
        content = yaml.safe_load((project.root / "params.yaml").read_text())
        content["trian"] = {}
        (project.root / "params.yaml").write_text(yaml.safe_dump(content))
        before = (project.root / "data/reports/metrics.json").read_bytes()
        done = project.run("dvc", "repro", check=False)
        assert done.returncode != 0
        assert "config: params.yaml: unknown key 'trian'; did you mean 'train'?" in done.stderr
        assert "Traceback" not in done.stderr
        assert (project.root / "data/reports/metrics.json").read_bytes() == before

    def test_experiment_changes_a_parameter_and_shows_it(self, project: Project) -> None:
        before = self._champions(project)
        project.run("dvc", "exp", "run", "--name", "deeper", "-S", "train.xgboost.max_depth=4")
        shown = project.run("dvc", "exp", "show", "--csv", "--no-pager").stdout
        row = next(line for line in shown.splitlines() if "deeper" in line)
        assert row
        header = shown.splitlines()[0].split(",")
        assert any("range.r2" in name for name in header)
        difference = json.loads(project.run("dvc", "params", "diff", "--json").stdout)
        changed = difference["params.yaml"]["train.xgboost.max_depth"]
        assert (changed["old"], changed["new"]) == (3, 4)
        assert self._champions(project) == before

    def _champions(self, project: Project) -> list[str]:
        models = json.loads(project.run("tradeloop", "models", "--json").stdout)
        return [model["version"] for model in models if model["state"] == "production"]

    def test_metrics_and_plots_are_declared(self, project: Project) -> None:
        metrics = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
        shown = metrics[""]["data"]["data/reports/metrics.json"]["data"]
        assert {"direction", "return", "range"} <= set(shown)
        project.run("dvc", "plots", "show", "--out", "plots_out")
        page = (project.root / "plots_out/index.html").read_text()
        assert "equity" in page and "reliability" in page


@pytest.mark.slow
@pytest.mark.xdist_group("determinism")
def test_two_fresh_clones_write_the_same_lock(finished_project: Project, tmp_path: Path) -> None:
    first = finished_project.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    other = Project(tmp_path / "again")
    finished_project.run("git", "clone", "-q", str(finished_project.root), str(other.root))
    other.run("git", "reset", "-q", "--hard", first)
    other.run("dvc", "repro")
    assert (other.root / "dvc.lock").read_text() == (finished_project.root / "dvc.lock").read_text()
