"""The loop as a process, on a project whose pipeline has run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ENVIRONMENT, Project
from tests.databases import KINDS, fresh_url
from tests.feature_files import read_rows
from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, load_params
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.loop.runner import LEASE_SECONDS, Runner
from tradeloop.monitoring.accounts import count
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Predictor
from tradeloop.publishing import ensure_published
from tradeloop.state.database import Database, database_url
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.state.jobs import JobQueue
from tradeloop.state.leases import Leases
from tradeloop.state.online import OnlineRows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]

BARS = 60


class Quiet:
    """A trainer that has nothing to do."""

    def start(self, job: object) -> None:
        raise AssertionError(f"nothing was to be trained, got {job}")

    def poll(self) -> list[object]:
        return []

    def cancel(self, job_id: str, reason: str) -> None: ...

    def status(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...

    def tidy(self, active: object) -> None: ...


@pytest.fixture
def operated(project: Project) -> tuple[Layout, Params]:
    """Return a project whose champion has answered for the last `BARS` bars of each symbol."""
    project.set({"triggers.time_based.enabled": False, "triggers.new_data.enabled": False})
    return operate(project)


def operate(project: Project) -> tuple[Layout, Params]:
    layout = Layout(project.root)
    params = load_params(layout.params)
    champion = ensure_published(layout, params)
    assert champion is not None
    bundle = BundleStore(layout, params).get(champion.hash)
    database = Database.open(database_url(layout, params))
    with PredictionLog(database) as log:
        for symbol in params.active.symbols:
            rows = read_rows(layout.features, symbol).tail(BARS)
            times = rows["timestamp"].dt.tz_localize(None).to_numpy("datetime64[us]")
            asked = OnlineRows.of(rows[list(bundle.schema.names)].to_numpy(np.float32), times)
            now = [time.to_pydatetime() for time in rows["timestamp"]]
            told = Predictor(bundle).predict([symbol] * BARS, asked, now=now, max_age=timedelta(days=5), clock="replay")
            log.append(told).result()
    database.close()
    return layout, params


def test_a_turn_resolves_measures_and_remembers(operated: tuple[Layout, Params]) -> None:
    layout, params = operated
    lines: list[str] = []
    Runner(layout, params, say=lines.append, trainer=Quiet()).run(threading.Event(), once=True)
    database = Database.open(database_url(layout, params))
    found = count(database, params.market)
    symbols = len(params.active.symbols)
    assert (found.logged, found.resolved, found.pending) == (BARS * symbols, (BARS - 1) * symbols, symbols)
    (beat,) = [beat for beat in Heartbeats(database, params.market).read() if beat.component == "loop"]
    assert beat.state == "stopped"
    # The next one goes on: nothing is resolved twice.
    Runner(layout, params, say=lines.append, trainer=Quiet()).run(threading.Event(), once=True)
    assert count(database, params.market) == found
    assert sum("begins" in line for line in lines) == 2
    database.close()


def test_of_two_loops_one_acts_and_the_other_takes_over(operated: tuple[Layout, Params]) -> None:
    layout, params = operated
    database = Database.open(database_url(layout, params))
    name = f"tradeloop.loop.{params.market}"
    assert Leases(database).acquire(name, "another", LEASE_SECONDS)
    lines: list[str] = []
    runner = Runner(layout, params, say=lines.append, trainer=Quiet())
    runner.run(threading.Event(), once=True)
    assert "has a loop already, run by another: this one stands by" in lines[-1]
    assert count(database, params.market).resolved == 0
    Leases(database).release(name, "another")
    Runner(layout, params, say=lines.append, trainer=Quiet()).run(threading.Event(), once=True)
    assert count(database, params.market).resolved > 0
    database.close()


def test_a_loop_that_loses_its_lease_writes_nothing_of_its_turn(
    operated: tuple[Layout, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, params = operated
    monkeypatch.setattr(Leases, "holds", lambda *_: False)
    with pytest.raises(StoreError, match=r"lease .* was lost"):
        Runner(layout, params, say=[].append, trainer=Quiet()).run(threading.Event(), once=True)
    database = Database.open(database_url(layout, params))
    with database.driver() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT COUNT(*) FROM retraining_log")
        assert cursor.fetchone() == (0,)
    database.close()


def test_a_database_that_goes_away_for_a_while_is_waited_for(
    operated: tuple[Layout, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, params = operated
    params = params.model_copy(update={"loop": params.loop.model_copy(update={"every": 0.05})})
    lines: list[str] = []
    stop = threading.Event()
    real, failures = Leases.acquire, iter([True, True])

    def flaky(self: Leases, *rest: object) -> bool:
        if next(failures, False):
            raise StoreError("database x: it is away")
        return real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Leases, "acquire", flaky)
    monkeypatch.setattr("tradeloop.loop.runner.LONGEST_WAIT", 0.05)
    runner = threading.Thread(target=Runner(layout, params, say=lines.append, trainer=Quiet()).run, args=(stop,))
    runner.start()
    until = time.monotonic() + 60
    while not any("goes on" in line for line in lines) and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    runner.join(30)
    assert sum("the loop waits: database x: it is away" in line for line in lines) == 1
    assert any("the loop goes on" in line for line in lines)
    database = Database.open(database_url(layout, params))
    assert count(database, params.market).resolved > 0
    database.close()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again_nothing_is_lost_or_doubled(
    kind: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New data fires a trigger, whose job waits behind another owner's; each loop is killed at a random moment."""
    kills = int(os.environ.get("TRADELOOP_KILLS", "4"))
    rng = np.random.default_rng(5)
    project.set({"triggers.new_data.bars": 10, "triggers.time_based.enabled": False, "retrain.stale_after": "1d"})
    with fresh_url(kind, tmp_path) as url:
        monkeypatch.setenv("TRADELOOP_DATABASE_URL", url)
        layout, params = operate(project)
        environment = os.environ | ENVIRONMENT | {"TRADELOOP_HOME": str(layout.root), "PYTHONPATH": str(layout.root)}
        database = Database.open(url)
        jobs = JobQueue(database, params.market)
        asked = {"dedupe": "before", "market_time": datetime(2013, 2, 1, tzinfo=UTC), "max_attempts": 1}
        jobs.enqueue("manual", 1, "in the way", {}, **asked)
        assert jobs.claim("elsewhere", datetime(2013, 2, 1, tzinfo=UTC)) is not None
        for _ in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-m", "tradeloop.cli", "loop", "--once"], cwd=layout.root, env=environment
            )
            time.sleep(float(rng.uniform(0.5, 6.0)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            with database.write() as connection:  # the lease of the dead one
                connection.exec_driver_sql("DELETE FROM leases")
        Runner(layout, params, say=[].append, trainer=Quiet()).run(threading.Event(), once=True)
        found, symbols = count(database, params.market), len(params.active.symbols)
        assert (found.logged, found.resolved, found.pending) == (BARS * symbols, (BARS - 1) * symbols, symbols)
        assert sorted((job.trigger, job.state) for job in jobs.jobs()) == [
            ("manual", "running"),
            ("new_data", "queued"),
        ]
        with database.driver() as connection:
            cursor = connection.cursor()
            for table, key in (("outcomes", "prediction_id"), ("retraining_log", "dedupe"), ("jobs", "dedupe")):
                cursor.execute(f"SELECT COUNT(*) - COUNT(DISTINCT {key}), COUNT(*) FROM {table}")
                doubled, rows = cursor.fetchone() or (None, 0)
                assert doubled == 0 and rows > 0, table
        database.close()


def test_the_clock_of_a_replayed_market_is_its_last_bar(operated: tuple[Layout, Params]) -> None:
    layout, params = operated
    lines: list[str] = []
    runner = Runner(layout, params, say=lines.append, trainer=Quiet())
    runner.run(threading.Event(), once=True)
    database = Database.open(database_url(layout, params))
    with database.driver() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT MAX(resolved_at) FROM outcomes")
        (newest,) = cursor.fetchone() or (None,)
    assert str(newest).startswith("2013-03-01")
    assert datetime.now(UTC).year > 2013
    database.close()
