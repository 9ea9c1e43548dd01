from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.conftest import Project
from tests.loop import fake_dvc
from tests.loop.conftest import NIGHT, Bench, Repository, until
from tests.loop.fake_dvc import MODEL
from tradeloop.errors import ConfigError
from tradeloop.layout import Layout
from tradeloop.loop.dvc_trainer import DvcTrainer
from tradeloop.loop.limits import Limits
from tradeloop.loop.progress import Progress, explain, stages_before
from tradeloop.loop.retrain import Retraining
from tradeloop.loop.workspace import DVC, Workspace, overridden, prune
from tradeloop.state.database import Database
from tradeloop.state.jobs import JobQueue

STAGE = f"""
import json, os, sys, time
from pathlib import Path
name, control = sys.argv[1], Path(os.environ["FAKE_DVC"])
with (control / "ran").open("a") as ran:
    ran.write(name + "\\n")
if name == "train" and (control / "hang").exists():
    (control / "started").touch()
    time.sleep(600)
if name == "package":
    Path("data/reports").mkdir(parents=True, exist_ok=True)
    Path("data/reports/metrics.json").write_text(json.dumps({{"r2": 0.3}}))
    packaged = {{"bundle": {MODEL!r}, "version": "v", "verdict": "pass", "reason": "passed the gate"}}
    Path("data/reports/package.json").write_text(json.dumps(packaged))
else:
    Path("data").mkdir(exist_ok=True)
    Path("data", name).write_text(name)
"""


def stage(name: str, *deps: str, outs: list[Any], params: list[str] | None = None) -> dict[str, Any]:
    return {
        "cmd": f"{sys.executable} stage.py {name}",
        "deps": ["stage.py", *deps],
        "outs": outs,
        "params": params or [],
    }


@pytest.fixture
def pipeline(repository: Repository) -> Repository:
    """Return a project with a real, trivial pipeline that has run once."""
    stages = {
        "prepare": stage("prepare", outs=["data/prepare"], params=["seed"]),
        "train": stage("train", "data/prepare", outs=["data/train"], params=["train.xgboost.max_depth"]),
        "package": stage("package", "data/train", outs=["data/reports/package.json"]),
        "publish": stage("publish", "data/reports/package.json", outs=["data/publish"]),
    }
    stages["package"]["metrics"] = [{"data/reports/metrics.json": {"cache": False}}]
    (repository.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (repository.root / "stage.py").write_text(STAGE)
    (repository.root / ".gitignore").write_text(
        "/data/*\n!/data/reports/\n/data/reports/*\n!/data/reports/metrics.json\n"
    )
    (repository.root / ".dvcignore").write_text("data/live\n")
    for path in (repository.root / ".dvc").iterdir():
        path.unlink()
    (repository.root / ".dvc").rmdir()
    repository.run("dvc", "init", "-q")
    repository.run("dvc", "repro", "-q")
    (repository.control / "ran").unlink()
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "A pipeline")
    return repository


@pytest.mark.slow
def test_a_killed_attempt_goes_on_after_its_last_stage(bench: Callable[..., Bench], pipeline: Repository) -> None:
    used = bench(dvc=DVC, backoff="1m")
    before = {path: path.read_bytes() for path in (pipeline.root / "data").glob("[!l]*/*") if path.is_file()}
    used.ask(overrides={"seed": 7, "train.xgboost.max_depth": 5})
    (pipeline.control / "hang").touch()
    used.until_started()
    (running,) = used.trainer._running.values()
    dvc = next(child for child in psutil.Process(running.process.pid).children() if "repro" in child.cmdline())
    dvc.kill()
    job, result = used.until_ended()
    assert (job.state, result.cause) == ("queued", "killed")
    (pipeline.control / "hang").unlink()
    job, result = used.until_ended(NIGHT + timedelta(minutes=1))
    assert job.state == "succeeded" and result.summary["resumed"] and result.summary["ran"] == ["train", "package"]
    assert (pipeline.control / "ran").read_text().split() == ["prepare", "train", "train", "package"]

    shown = json.loads(pipeline.run("dvc", "exp", "show", "--json").stdout)
    (experiment,) = [found for baseline in shown for found in baseline["experiments"] or []]
    (revision,) = experiment["revs"]
    assert experiment["name"] == result.attempt.name
    assert revision["data"]["params"]["params.yaml"]["data"]["train"]["xgboost"]["max_depth"] == 5
    assert revision["data"]["metrics"]["data/reports/metrics.json"]["data"] == {"r2": 0.3}
    # Nothing of the project itself was touched.
    assert pipeline.run("git", "status", "--porcelain").stdout == ""
    assert before and {path: path.read_bytes() for path in before} == before
    # What was trained can be had: the cache is the project's.
    pipeline.run("dvc", "exp", "apply", str(experiment["name"]))
    assert (pipeline.root / "data" / "train").read_text() == "train"
    assert "# of the wall, each attempt" in (pipeline.root / "params.yaml").read_text()  # its comments survive


def test_a_clone_begins_with_the_projects_feature_parts(repository: Repository) -> None:
    """Copies: what the clone's stages write there leaves the project's as they were."""
    part = repository.layout.features / "A" / "2020.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rows")
    workspace = Workspace(repository.layout, "job")
    dvc = (sys.executable, str(Path(fake_dvc.__file__)))
    assert not workspace.prepare({}, dvc)
    copied = workspace.layout.features / "A" / "2020.parquet"
    assert copied.read_bytes() == b"rows"
    copied.write_bytes(b"other")
    assert part.read_bytes() == b"rows"
    workspace.discard()
    shutil.rmtree(repository.layout.features)
    workspace.prepare({}, dvc)
    assert not workspace.layout.features.exists()


class TestOverridden:
    def test_values_change_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "params.yaml"
        path.write_text('# first\na:\n  b: 1   # one\n  c: "x"\nlist: [1, 2]\n')
        text = overridden(path, {"a.b": 2, "list": [3], "new.deep.key": "2020-01-01"}).decode()
        assert yaml.safe_load(text) == {"a": {"b": 2, "c": "x"}, "list": [3], "new": {"deep": {"key": "2020-01-01"}}}
        assert "# first" in text and "# one" in text and '"x"' in text

    def test_without_overrides_the_bytes_are_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "params.yaml"
        path.write_bytes(b"a:   1\r\n")
        assert overridden(path, {}) == b"a:   1\r\n"

    def test_a_name_through_a_number(self, tmp_path: Path) -> None:
        path = tmp_path / "params.yaml"
        path.write_text("a: 1\n")
        with pytest.raises(ConfigError, match=r"'a\.b\.c' cannot be set"):
            overridden(path, {"a.b.c": 1})

    def test_a_broken_file(self, tmp_path: Path) -> None:
        path = tmp_path / "params.yaml"
        path.write_text("a: [1\n")
        with pytest.raises(ConfigError, match="cannot be read"):
            overridden(path, {"a": 1})


def test_prune_keeps_the_newest_and_the_active(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        folder = tmp_path / "data/live/workspaces" / name
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    assert prune(Layout(tmp_path), active={"a"}, keep=1) == ["c", "b"]
    assert sorted(path.name for path in (tmp_path / "data/live/workspaces").iterdir()) == ["a", "d"]


RUNNING = "Running stage 'a':\n> python -m a\n"
FAILED = "ERROR: failed to reproduce 'a': failed to run: python -m a, exited with "


class TestProgress:
    def test_stages_are_counted_once_and_half_lines_wait(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("Running stage 'old':\n")
        progress = Progress(log)
        with log.open("a") as file:
            file.write("Running stage 'a':\nStage 'b' didn't change, skipping\nRunning sta")
        assert progress.read() and progress.as_dict() == {"stage": "b", "number": 2, "of": None}
        with log.open("a") as file:
            file.write("ge 'c':\nRunning stage 'a':\n")
        assert progress.read() and not progress.read()
        assert progress.ran == ["a", "c"] and progress.as_dict()["number"] == 3

    def test_of_how_many(self, tmp_path: Path) -> None:
        lock = tmp_path / "dvc.lock"
        stages = {
            "a": {"outs": [{"path": "data/raw"}]},
            "b": {"deps": [{"path": "data/raw/bars"}], "outs": [{"path": "m/b.json"}]},
            "package": {"deps": [{"path": "m"}], "outs": [{"path": "p"}]},
            "publish": {"deps": [{"path": "p"}]},
            "other": {"deps": [], "outs": [{"path": "data/rawer"}]},
        }
        lock.write_text(yaml.safe_dump({"stages": stages}))
        assert stages_before(lock, "package") == 3
        assert stages_before(lock, "unknown") is None and stages_before(tmp_path / "none", "package") is None

    @pytest.mark.parametrize(
        ("tail", "status", "expected"),
        [
            (f"== x\n{RUNNING}a: no bars\n{FAILED}1\n", 255, ("failed", "stage a: a: no bars")),
            (f"{RUNNING}{FAILED}-9\n", 255, ("killed", "stage a was killed by signal 9")),
            ("ERROR: unable to acquire lock\n", 255, ("failed", "unable to acquire lock")),
            ("ERROR: of another attempt\n\n== now\nfine so far\n", -9, ("killed", "signal 9; fine so far")),
            ("", 1, ("failed", "it printed nothing")),
        ],
    )
    def test_why_it_failed(self, tail: str, status: int, expected: tuple[str, str]) -> None:
        assert explain(tail, status) == expected


@pytest.mark.slow
@pytest.mark.pipeline
@pytest.mark.xdist_group("pipeline")
def test_the_real_pipeline_from_a_job_to_a_challenger(project: Project) -> None:
    before = json.loads(project.run("tradeloop", "models", "--json").stdout)
    lock, status = (project.root / "dvc.lock").read_bytes(), project.run("git", "status", "--porcelain").stdout
    store = (project.root / "data/live/feast/online.db").read_bytes()
    params = Repository(project.root, project.root).params
    database = Database.open(f"sqlite:///{project.root}/data/live/tradeloop.db")
    queue = JobQueue(database, params.market)
    limits = Limits(timeout=500.0, memory_mib=4096, min_free_mib=1, cores=1, nice=0)
    trainer = DvcTrainer(Layout(project.root), params, limits=limits)
    retraining = Retraining(queue, trainer, params.retrain, calendar="XNYS")
    overrides = {"train.xgboost.reg_lambda": 19.0}
    queue.enqueue(
        "accuracy_drop", 90, "a test", {"overrides": overrides}, dedupe="a", market_time=NIGHT, max_attempts=1
    )
    try:
        job, result = until(lambda: next(iter(retraining.step(NIGHT)), None), 500)
        assert job.state == "succeeded", job.error
        assert {"tune@xgboost", "train@xgboost", "stack", "package"} <= set(result.summary["ran"])
        assert not {"ingest", "features", "train@mlp", "publish"} & set(result.summary["ran"])
        (row,) = queue.experiments()
        assert row["model"] == job.result["model"] and row["verdict"] == "pass" and row["cpu_seconds"] > 1
    finally:
        trainer.close()
        database.close()
    after = {model["hash"]: model["state"] for model in json.loads(project.run("tradeloop", "models", "--json").stdout)}
    (champion,) = [model["hash"] for model in before if model["state"] == "production"]
    assert after[champion] == "production" and after[row["model"]] == "validation"
    shown = project.run("dvc", "exp", "show", "--csv", "--no-pager").stdout
    assert row["name"] in shown
    assert (project.root / "dvc.lock").read_bytes() == lock
    assert project.run("git", "status", "--porcelain").stdout == status
    assert (project.root / "data/live/feast/online.db").read_bytes() == store
    assert project.run("tradeloop", "promote", row["model"][:12]).returncode == 0  # it lies in the model store, whole
