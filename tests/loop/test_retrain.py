from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import update

from tests.loop.conftest import DAY, EASY, NIGHT, Bench, Repository, until
from tests.loop.fake_dvc import MODEL
from tradeloop.errors import StoreError
from tradeloop.loop.limits import MARK, kill_marked
from tradeloop.loop.retrain import is_gone, owner_name
from tradeloop.state.database import Database
from tradeloop.state.job import Job
from tradeloop.state.tables import JobRow

Make = Callable[..., Bench]


def left_running(job: Job) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == job.id:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


class TestSuccess:
    def test_from_a_job_to_an_experiment(self, bench: Make, repository: Repository) -> None:
        used = bench()
        asked = used.ask(overrides={"train.xgboost.max_depth": 4}, trigger="accuracy_drop")
        job, result = used.until_ended()
        assert (job.id, job.state, result.state) == (asked.id, "succeeded", "succeeded")
        assert job.result is not None and job.result["model"] == MODEL and job.result["verdict"] == "pass"
        (row,) = used.queue.experiments()
        head = repository.run("git", "rev-parse", "HEAD").stdout.strip()
        assert (row["state"], row["model"], row["verdict"], row["git_revision"]) == ("succeeded", MODEL, "pass", head)
        assert row["data_hash"] == "da" * 32 and row["metrics"] == {"range": {"r2": 0.3}}
        assert row["params"]["train"]["xgboost"]["max_depth"] == 4  # all of them, the changed one changed
        assert row["params"]["seed"] == repository.params.seed
        assert row["cpu_seconds"] > 0 and row["peak_mib"] >= 0
        refs = repository.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
        assert refs == [f"refs/exps/{head[:2]}/{head[2:]}/{row['name']}"]
        assert row["name"] == f"loop-accuracy-drop-{job.id[:8]}"
        assert repository.workspaces() == [] and left_running(job) == []
        log = (repository.root / f"data/live/jobs/{job.id}.log").read_text()
        assert "Running stage 'train'" in log and "attempt 1 of job" in log
        assert repository.run("git", "status", "--porcelain").stdout == ""  # nothing of the project was touched

    def test_a_worse_model_is_no_failure(self, bench: Make, repository: Repository) -> None:
        repository.behave("worse")
        used = bench()
        used.ask()
        job, result = used.until_ended()
        assert job.state == "succeeded" and result.attempt.verdict == "fail"
        assert job.result is not None and job.result["reason"] == "fail: a test"
        assert used.queue.failures() == [] and used.faults == []

    def test_a_file_source_is_read_anew_and_once(self, bench: Make, repository: Repository) -> None:
        content = "market: mine\nmarkets:\n  mine:\n    source: files\n    symbols: [A]\n    calendar: XNYS\n"
        content += "    interval: 1d\n    files: {path: bars}\nseed: 1\nfeatures: {families: [trend]}\n"
        (repository.root / "params.yaml").write_text(content)
        used = bench(backoff="1m")
        used.ask(max_attempts=3)
        for minute, behaviour in enumerate(["refuse ingest", "refuse package", "pass"]):
            repository.behave(behaviour)
            used.until_ended(NIGHT + timedelta(minutes=2 * minute))
        repro = [call for call in repository.calls() if call.startswith("repro")]
        forced = "repro --single-item --force config ingest"
        # The first was refused; what was read is not read again.
        assert repro == [forced, forced, "repro package", "repro package"]


def test_a_package_from_the_cache_is_registered_all_the_same(bench: Make, repository: Repository) -> None:
    script = repository.control / "cached.py"
    source = (Path(__file__).with_name("fake_dvc.py")).read_text()
    script.write_text(source.replace("print(\"Running stage 'package':\")", "print(\"Stage 'package' is cached\")"))
    used = bench(dvc=(sys.executable, str(script)))
    used.ask()
    assert used.until_ended()[0].state == "succeeded"
    assert "repro --single-item --force package" in repository.calls()


class TestFailure:
    def attempt(self, used: Bench) -> tuple[Job, str]:
        job, result = used.until_ended()
        assert result.state == "failed" and result.error is not None
        (row, *_) = used.queue.experiments()
        assert (row["state"], row["error"]) == ("failed", result.error)
        assert "\n" not in result.error
        ((cause, text),) = used.faults
        assert cause == result.cause and result.error in text and job.id in text
        assert left_running(job) == []
        return job, result.error

    def test_one_that_hangs_is_ended_with_all_it_started(self, bench: Make, repository: Repository) -> None:
        repository.behave("hang")
        used = bench(limits=replace(EASY, timeout=3.0))
        used.ask()
        job, error = self.attempt(used)
        assert error == "timeout: it took longer than retrain.timeout = 3 s"
        child = int((repository.control / "child").read_text())
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        assert job.state == "queued" and job.not_before == NIGHT + timedelta(minutes=10)
        assert repository.workspaces() == [job.id]  # kept for the next attempt
        assert used.queue.experiments()[0]["git_revision"] is not None

    def test_one_that_is_killed_is_tried_again(self, bench: Make, repository: Repository) -> None:
        repository.behave("die")
        used = bench()
        used.ask()
        job, error = self.attempt(used)
        assert error.startswith("killed: signal 9") and job.state == "queued"

    def test_one_that_fills_the_disk(self, bench: Make, repository: Repository) -> None:
        repository.behave("full")
        used = bench()
        used.ask()
        job, error = self.attempt(used)
        assert error.startswith("disk: stage train: OSError: [Errno 28] No space left") and job.state == "queued"

    def test_one_without_room_does_not_begin(self, bench: Make, repository: Repository) -> None:
        used = bench(limits=replace(EASY, min_free_mib=10**9))
        used.ask()
        job, error = self.attempt(used)
        assert error.startswith("disk: ") and "retrain.min_free_mib" in error and job.state == "queued"
        assert repository.calls() == []

    def test_too_much_memory_is_final(self, bench: Make, repository: Repository) -> None:
        repository.behave("grow")
        used = bench(limits=replace(EASY, memory_mib=200))
        used.ask()
        job, error = self.attempt(used)
        assert error.startswith("memory: it used ") and job.state == "failed"
        assert (used.queue.experiments()[0]["peak_mib"] or 0) > 200
        assert used.queue.failures() == [job]

    def test_a_stage_that_refuses_is_quoted_and_the_attempts_are_bounded(
        self, bench: Make, repository: Repository
    ) -> None:
        repository.behave("refuse")
        used = bench(backoff="10m")
        used.ask()
        job, error = self.attempt(used)
        assert error == "failed: stage train: train: the training matrix has no rows" and job.state == "queued"
        assert used.retraining.step(NIGHT + timedelta(minutes=9)) == []
        assert used.queue.get(job.id).state == "queued"
        job, result = used.until_ended(NIGHT + timedelta(minutes=10))
        assert (job.state, job.error) == ("failed", result.error)
        assert used.queue.failures() == [job]
        assert [row["attempt"] for row in used.queue.experiments()] == [2, 1]

    def test_the_wait_doubles(self, bench: Make, repository: Repository) -> None:
        repository.behave("refuse")
        used = bench(backoff="10m")
        used.ask(max_attempts=3)
        used.until_ended()
        job, _ = used.until_ended(NIGHT + timedelta(minutes=10))
        assert job.not_before == NIGHT + timedelta(minutes=30)

    def test_a_bad_override_is_final(self, bench: Make) -> None:
        used = bench()
        used.ask(overrides={"train.xgboost.max_deepth": 4})
        job, error = self.attempt(used)
        assert job.state == "failed" and error.startswith("params: ") and "max_deepth" in error

    def test_a_project_without_a_commit(self, bench: Make, repository: Repository) -> None:
        used = bench()
        repository.run("git", "update-ref", "-d", "refs/heads/main")
        used.ask()
        error = self.attempt(used)[1]
        assert error.startswith(f"failed: git rev-parse failed in {repository.root}: ")

    def test_failed_workspaces_are_kept_but_few(self, bench: Make, repository: Repository) -> None:
        repository.behave("refuse")
        used = bench(keep_failed=1)
        jobs = []
        for dedupe in "abc":
            used.ask(dedupe, max_attempts=1)
            jobs.append(used.until_ended()[0])
        assert repository.workspaces() == [jobs[-1].id]


class TestCancel:
    def test_a_running_job_is_stopped(
        self, bench: Make, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tradeloop.loop.retrain._BEAT_SECONDS", 0.0)
        repository.behave("hang")
        used = bench()
        asked = used.ask()
        used.until_started()
        used.queue.cancel(asked.id, actor="ann", reason="not needed")
        job, result = used.until_ended()
        assert (job.state, result.state) == ("cancelled", "cancelled")
        assert left_running(job) == [] and used.faults == []

    def test_closing_hands_the_job_back_uncounted(self, bench: Make, repository: Repository) -> None:
        repository.behave("hang")
        used = bench()
        asked = used.ask()
        used.until_started()
        used.retraining.close(NIGHT)
        job = used.queue.get(asked.id)
        assert (job.state, job.attempts) == ("queued", 0) and left_running(job) == []
        repository.behave("pass")
        assert bench().until_ended()[0].state == "succeeded"


class TestHours:
    def test_an_ordinary_job_waits_for_the_close(self, bench: Make) -> None:
        used = bench()
        used.ask()
        used.retraining.step(DAY)
        assert used.queue.jobs()[0].state == "queued"
        used.retraining.step(datetime(2024, 1, 3, 21, tzinfo=UTC))
        assert used.queue.jobs()[0].state == "running"

    @pytest.mark.parametrize("changes", [{"urgent": 50}, {"off_hours": False}, {"hours": "15:00-17:00"}])
    def test_not_if_it_is_urgent_or_may_run_then(self, bench: Make, changes: dict[str, object]) -> None:
        used = bench(**changes)
        used.ask()
        used.retraining.step(DAY)
        assert used.queue.jobs()[0].state == "running"


LOOP = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tests.loop.conftest import EASY, FAKE_DVC, NIGHT
from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.loop.dvc_trainer import DvcTrainer
from tradeloop.loop.retrain import Retraining
from tradeloop.state.database import Database
from tradeloop.state.jobs import JobQueue
import time
root = Path(sys.argv[1])
params = load_params(root / "params.yaml")
queue = JobQueue(Database.open(f"sqlite:///{root}/data/live/tradeloop.db"), params.market)
trainer = DvcTrainer(Layout(root), params, limits=EASY, dvc=FAKE_DVC)
retraining = Retraining(queue, trainer, params.retrain, calendar="XNYS")
while True:
    retraining.step(NIGHT)
    time.sleep(0.05)
"""


class TestCrash:
    def test_the_loop_is_killed_its_training_dies_and_the_next_loop_goes_on(
        self, bench: Make, repository: Repository
    ) -> None:
        repository.behave("hang")
        used = bench()
        asked = used.ask()
        root = Path(__file__).resolve().parents[2]
        environment = os.environ | {"PYTHONPATH": str(root)}
        loop = subprocess.Popen([sys.executable, "-c", LOOP, str(repository.root)], cwd=root, env=environment)
        try:
            until(lambda: (repository.control / "started").exists(), 60)
        finally:
            loop.send_signal(signal.SIGKILL)
            loop.wait()
        until(lambda: left_running(asked) == [])
        assert used.queue.get(asked.id).state == "running"  # nobody could say that it is not
        repository.behave("pass")
        job, _ = used.until_ended()
        assert (job.state, job.attempts) == ("succeeded", 2)
        assert job.result is not None and job.result["resumed"] is True
        lost, done = reversed(used.queue.experiments())
        assert (lost["state"], done["state"]) == ("failed", "succeeded") and lost["error"].startswith("lost: ")
        assert repository.calls().count("cache dir") == 1  # one clone

    @pytest.mark.parametrize(("stale_after", "becomes"), [("5m", "queued"), ("1h", "running")])
    def test_an_owner_elsewhere_is_waited_for(
        self, bench: Make, state: Database, stale_after: str, becomes: str
    ) -> None:
        used = bench(stale_after=stale_after)
        asked = used.ask()
        assert used.queue.claim("another-host:1:x", NIGHT) is not None
        with state.write() as connection:
            connection.execute(update(JobRow).values(seen_at=datetime.now(UTC) - timedelta(minutes=10)))
        used.retraining.step(DAY)  # when it may not start again
        assert used.queue.get(asked.id).state == becomes

    def test_what_a_dead_supervisor_left_is_killed(self, bench: Make, repository: Repository) -> None:
        repository.behave("hang")
        used = bench()
        asked = used.ask()
        used.until_started()
        (running,) = used.trainer._running.values()
        running.process.kill()
        job, result = used.until_ended()
        assert (job.state, result.error) == ("queued", "killed: the training's process ended with signal 9")
        assert left_running(asked) == [] and kill_marked(asked.id) == 0

    def test_a_database_that_goes_away_takes_no_result_with_it(
        self, bench: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used = bench()
        used.ask()
        used.retraining.step(NIGHT)

        def away(*_: object) -> None:
            raise StoreError("database x: gone")

        monkeypatch.setattr(used.queue, "finish", away)
        until(lambda: _raises(lambda: used.retraining.step(NIGHT)))
        with pytest.raises(StoreError):
            used.retraining.step(NIGHT)
        monkeypatch.undo()
        ((job, _),) = used.retraining.step(NIGHT)
        assert job.state == "succeeded"

    def test_another_code_or_other_parameters_begin_anew(self, bench: Make, repository: Repository) -> None:
        repository.behave("refuse")
        used = bench()
        used.ask(max_attempts=4)
        used.until_ended()
        repository.set({"train.xgboost.max_depth": 5})
        _, result = used.until_ended(NIGHT + timedelta(days=1))
        assert result.attempt.params["train"]["xgboost"]["max_depth"] == 5
        (repository.root / "code.py").write_text("pass\n")
        repository.run("git", "add", "code.py")
        repository.run("git", "commit", "-qm", "Other code")
        _, result = used.until_ended(NIGHT + timedelta(days=3))
        head = repository.run("git", "rev-parse", "HEAD").stdout.strip()
        assert result.attempt.git_revision == head
        assert repository.calls().count("cache dir") == 3


def _raises(act: Callable[[], object]) -> bool:
    try:
        act()
    except StoreError:
        return True
    return False


def test_progress_for_people(bench: Make, repository: Repository) -> None:
    repository.behave("hang")
    used = bench()
    asked = used.ask()
    used.until_started()
    line = until(lambda: (text := used.retraining.status()[asked.id]).startswith("stage") and text)
    assert line.startswith("stage 1 train, ") and line.endswith(" MiB")


def test_owners_that_are_known_to_be_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    owner = owner_name().split(":")
    assert not is_gone(":".join(owner))
    child.wait()
    assert is_gone(f"{owner[0]}:{child.pid}:x")
    assert not is_gone(f"another-host:{child.pid}:x") and not is_gone("nonsense")
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    assert is_gone(f"{owner[0]}:{zombie.pid}:x")
    zombie.wait()
