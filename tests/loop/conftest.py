from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENVIRONMENT, ROOT, Project
from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.loop.dvc_trainer import DvcTrainer
from tradeloop.loop.limits import Limits
from tradeloop.loop.retrain import Retraining, TrainingResult
from tradeloop.state.database import Database
from tradeloop.state.job import Job
from tradeloop.state.jobs import JobQueue

NIGHT = datetime(2024, 1, 3, 2, tzinfo=UTC)
DAY = datetime(2024, 1, 3, 16, tzinfo=UTC)
FAKE_DVC = (sys.executable, str(Path(__file__).with_name("fake_dvc.py")))
EASY = Limits(timeout=120.0, memory_mib=8192, min_free_mib=1, cores=1, nice=5)


@dataclass(frozen=True)
class Repository(Project):
    """A small repository that can be retrained."""

    control: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def params(self) -> Params:
        return load_params(self.root / "params.yaml")

    def behave(self, behaviour: str) -> None:
        (self.control / "behaviour").write_text(behaviour)

    def calls(self) -> list[str]:
        path = self.control / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def workspaces(self) -> list[str]:
        return sorted(path.name for path in (self.root / "data/live/workspaces").glob("*"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a repository with the real parameters and one commit, whose DVC is `fake_dvc`."""
    root, control = tmp_path / "project", tmp_path / "control"
    control.mkdir()
    (root / ".dvc").mkdir(parents=True)
    shutil.copy2(ROOT / "params.yaml", root)
    (root / ".gitignore").write_text("/data/\n.dvc/tmp\n.dvc/config.local\n")
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    monkeypatch.setenv("FAKE_DVC", str(control))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    made = Repository(root, control)
    made.run("git", "init", "-q", "-b", "main")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "A project")
    return made


@dataclass
class Bench:
    """A queue, a trainer, and the two together."""

    repository: Repository
    queue: JobQueue
    trainer: DvcTrainer
    retraining: Retraining
    faults: list[tuple[str, str]]

    def ask(self, dedupe: str = "a", **changes: Any) -> Job:
        values: dict[str, Any] = {"dedupe": dedupe, "market_time": NIGHT, "max_attempts": 2} | changes
        overrides = values.pop("overrides", {})
        job = self.queue.enqueue(
            values.pop("trigger", "manual"), values.pop("priority", 50), "a test", {"overrides": overrides}, **values
        )
        assert job is not None
        return job

    def until_ended(self, now: datetime = NIGHT, seconds: float = 60) -> tuple[Job, TrainingResult]:
        """Take turns until an attempt has ended."""
        return until(lambda: next(iter(self.retraining.step(now)), None), seconds)

    def until_started(self, now: datetime = NIGHT) -> None:
        """Take turns until the pipeline runs."""

        def started() -> bool:
            self.retraining.step(now)
            return (self.repository.control / "started").exists()

        until(started)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return what `condition` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"nothing happened in {seconds} s")


@pytest.fixture
def state(repository: Repository) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{repository.root}/data/live/tradeloop.db")
    yield opened
    opened.close()


@pytest.fixture
def bench(repository: Repository, state: Database) -> Iterator[Callable[..., Bench]]:
    """Return what makes a bench; its trainer is closed at the end."""
    made: list[Bench] = []

    def make(*, limits: Limits = EASY, **changes: Any) -> Bench:
        dvc = changes.pop("dvc", FAKE_DVC)
        config = repository.params.retrain.model_copy(update=changes)
        params = repository.params.model_copy(update={"retrain": config})
        trainer = DvcTrainer(repository.layout, params, limits=limits, dvc=dvc)
        queue, faults = JobQueue(state, params.market), []
        retraining = Retraining(
            queue, trainer, config, calendar="XNYS", fault=lambda cause, text: faults.append((cause, text))
        )
        made.append(Bench(repository, queue, trainer, retraining, faults))
        return made[-1]

    yield make
    for one in made:
        one.trainer.close()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
