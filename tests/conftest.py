"""What several areas share: a small pipeline run once a session, and the servers that tests may need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.databases import KINDS, fresh_url
from tradeloop.state.database import Database

ROOT = Path(__file__).resolve().parents[1]
# The same stages on the same real data, with less work in each.
SMALL: dict[str, Any] = {
    "split.folds": 2,
    "tune.trials": 2,
    "tune.folds": 1,
    "train.random_forest.n_estimators": 20,
    "train.xgboost.n_estimators": 40,
    "train.xgboost.learning_rate": 0.1,
    "train.mlp.max_epochs": 4,
    "evaluate.bootstrap": 200,
}
# What every subprocess of a test needs: the environment's programs first, no calls home, no inherited project.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "FEAST_USAGE": "False",
    # The same tree at the same date is the same commit, so that two clones record the same revision.
    "GIT_AUTHOR_DATE": "1577836800 +0000",
    "GIT_COMMITTER_DATE": "1577836800 +0000",
    "GIT_AUTHOR_NAME": "tradeloop tests",
    "GIT_AUTHOR_EMAIL": "tests@tradeloop.invalid",
    "GIT_COMMITTER_NAME": "tradeloop tests",
    "GIT_COMMITTER_EMAIL": "tests@tradeloop.invalid",
}
NOT_INHERITED = (
    "TRADELOOP_HOME",
    "TRADELOOP_SOURCES",
    "TRADELOOP_DATABASE_URL",
    "TRADELOOP_TOKEN",
    "BENTOML_HOME",
    "DVC_EXP_NAME",
)
# `make` and operators set some of these: no test may touch the project that they point to.
for _name in NOT_INHERITED:
    os.environ.pop(_name, None)


@dataclass(frozen=True)
class Project:
    """A clone of this repository in a temporary folder."""

    root: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; with `check`, a failure shows what was printed."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    def set(self, values: Mapping[str, Any]) -> None:
        """Change parameters by dotted name."""
        path = self.root / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for name, value in values.items():
            *blocks, key = name.split(".")
            block = content
            for part in blocks:
                block = block[part]
            block[key] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def json(self, path: str) -> Any:
        """Read a JSON file of the clone."""
        return json.loads((self.root / path).read_text())


def clone(target: Path, **changes: Any) -> Project:
    """Copy the working tree's own files (tracked and new) to `target` as a repository with one commit."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source = ROOT / name
        data = name.startswith("data/") and name != "data/stream/.gitkeep"
        if source.is_file() and name != "dvc.lock" and not data:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    project = Project(target)
    project.set(SMALL | changes)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "Clone")
    return project


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a folder that all workers of this run see."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def finished_project(shared_folder: Path) -> Project:
    """Return a clone in which `dvc repro` has run once; tests must leave it as they found it."""
    base = shared_folder / "finished"
    target, trace = base / "project", base / "trace"
    with FileLock(f"{base}.lock"):
        if not (base / "done").exists():
            shutil.rmtree(base, ignore_errors=True)
            trace.mkdir(parents=True)
            project = clone(target)
            project.run("dvc", "repro", PYTHONPATH=str(ROOT / "tests" / "tracing"), TRADELOOP_TRACE=str(trace))
            project.run("git", "add", "-A")
            project.run("git", "commit", "-qm", "Run the pipeline")
            (base / "done").touch()
    return Project(target)


@pytest.fixture
def project(finished_project: Project, tmp_path: Path) -> Project:
    """Return a copy of the finished clone that a test may change."""
    target = tmp_path / "project"
    shutil.copytree(finished_project.root, target, symlinks=True)
    return Project(target)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an empty database's url, once of each kind."""
    with fresh_url(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Return an empty database, once of each kind."""
    opened = Database.open(url)
    yield opened
    opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the whole pipeline: they take longest, and the other workers fill the time."""
    items.sort(key=lambda item: not any(mark.args == ("pipeline",) for mark in item.iter_markers("xdist_group")))
