from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, text

from tests.bundles import NOW
from tests.conftest import ROOT
from tradeloop.errors import StoreError
from tradeloop.prediction_log import PredictionLog, pack, read_prediction, unpack
from tradeloop.predictor import Prediction, new_ids
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database.open(url, busy_timeout=0.2)
    yield opened
    opened.close()


def prediction(prediction_id: str | None, **changes: object) -> Prediction:
    values: dict[str, object] = {
        "id": prediction_id,
        "market": "us_daily",
        "symbol": "AAPL",
        "status": "ok" if prediction_id else "unknown_symbol",
        "asked_at": NOW,
        "feature_time": NOW - timedelta(microseconds=3),
        "max_age": 432_000.0,
        "clock": "replay",
        "model": "a" * 64,
        "version": "a" * 12,
        "schema_hash": "b" * 64,
        "features": np.array([1.5, -0.1, np.nan], dtype=np.float32),
        "verdict": "abstain",
        "reasons": ("no_proven_edge", "below_cost"),
        "p_up": 0.1 + 0.2,
        "ret": -1e-300,
        "range": 0.012,
    }
    return Prediction(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


def stored_ids(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(PredictionRow.id)).scalars())


class TestAppend:
    def test_returns_once_the_rows_are_there_exactly_as_given(self, database: Database) -> None:
        (made,) = new_ids(1)
        before = datetime.now(UTC)
        with PredictionLog(database) as log:
            log.append([prediction(made)]).result(timeout=10)
            row = read_prediction(database, made)
        assert row["p_up"] == 0.1 + 0.2 and row["ret"] == -1e-300 and row["range_low"] is None
        assert row["reasons"] == ["no_proven_edge", "below_cost"]
        assert (row["asked_at"], row["feature_time"]) == (NOW, NOW - timedelta(microseconds=3))
        assert before - timedelta(seconds=1) <= row["logged_at"] <= datetime.now(UTC)
        assert np.array_equal(row["features"], np.array([1.5, -0.1, np.nan], dtype=np.float32), equal_nan=True)

    def test_what_was_withheld_is_null(self, database: Database) -> None:
        (made,) = new_ids(1)
        withheld = prediction(made, feature_time=None, p_up=None, ret=None, range=None, reasons=("missing_features",))
        with PredictionLog(database) as log:
            log.append([withheld]).result(timeout=10)
        row = read_prediction(database, made)
        assert row["feature_time"] is None and row["p_up"] is None

    def test_unknown_symbols_are_not_logged(self, database: Database) -> None:
        (made,) = new_ids(1)
        with PredictionLog(database) as log:
            log.append([prediction(None), prediction(made)]).result(timeout=10)
            assert log.append([prediction(None)]).done()
        assert stored_ids(database) == [made]

    def test_requests_of_many_threads_share_commits_and_lose_nothing(self, database: Database) -> None:
        batches = [new_ids(1 + i % 3) for i in range(120)]
        with PredictionLog(database) as log:
            pending: list[Future[None]] = []
            lock = threading.Lock()

            def send(part: list[list[str]]) -> None:
                for ids in part:
                    future = log.append([prediction(made) for made in ids])
                    with lock:
                        pending.append(future)

            threads = [threading.Thread(target=send, args=(batches[i::8],)) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done, late = wait(pending, timeout=30)
            assert not late and all(future.exception() is None for future in done)
        assert sorted(stored_ids(database)) == sorted(made for ids in batches for made in ids)
        with database.read() as connection:
            commits = connection.execute(select(func.count(func.distinct(PredictionRow.logged_at)))).scalar_one()
        assert commits < len(batches)

    def test_close_writes_what_is_waiting_then_refuses(self, database: Database) -> None:
        ids = new_ids(500)
        log = PredictionLog(database)
        futures = [log.append([prediction(made)]) for made in ids]
        log.close()
        assert all(future.done() and future.exception() is None for future in futures)
        assert sorted(stored_ids(database)) == sorted(ids)
        with pytest.raises(StoreError, match="log is closed"):
            log.append([prediction(new_ids(1)[0])])

    def test_a_backlog_has_a_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradeloop.prediction_log._MOST_WAITING", 3)
        database = Database.open(f"sqlite:///{tmp_path / 'a.db'}", busy_timeout=30)
        holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with PredictionLog(database) as log:
            accepted = [log.append([prediction(made)]) for made in new_ids(1)]
            accepted.append(log.append([prediction(made) for made in new_ids(2)]))
            with pytest.raises(StoreError, match="rows behind: the database does not keep up"):
                log.append([prediction(made) for made in new_ids(2)])
            holder.execute("ROLLBACK")
            for future in accepted:
                future.result(timeout=30)
        holder.close()
        assert len(stored_ids(database)) == 3
        database.close()


class TestFollow:
    def test_is_written_without_anybody_asking(self, database: Database) -> None:
        ids = new_ids(2)
        with PredictionLog(database) as log:
            log.follow([prediction(ids[0], arm="shadow", answered=False, parent=ids[1])]).result(timeout=10)
            row = read_prediction(database, ids[0])
            assert log.follow([prediction(None)]).done()
        assert (row["arm"], row["answered"], row["parent"]) == ("shadow", False, ids[1])

    def test_rides_along_with_what_is_answered(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradeloop.prediction_log._FOLLOW_SECONDS", 30.0)
        ids = new_ids(3)
        with PredictionLog(database) as log:
            followers = [log.follow([prediction(made)]) for made in ids[:2]]
            assert stored_ids(database) == []  # it waits for company
            log.append([prediction(ids[2])]).result(timeout=10)
            for follower in followers:
                follower.result(timeout=10)
        assert sorted(stored_ids(database)) == sorted(ids)

    def test_is_not_put_off_by_more_of_the_same(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradeloop.prediction_log._FOLLOW_SECONDS", 0.3)
        with PredictionLog(database) as log:
            first = log.follow([prediction(made) for made in new_ids(1)])
            deadline = time.monotonic() + 20
            while not first.done():
                assert time.monotonic() < deadline
                log.follow([prediction(made) for made in new_ids(1)])
                time.sleep(0.05)

    def test_what_cannot_be_written_takes_no_answer_with_it(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tradeloop.prediction_log._FOLLOW_SECONDS", 30.0)
        taken, answered, fine = new_ids(3)
        with PredictionLog(database) as log:
            log.append([prediction(taken)]).result(timeout=10)
            doubled = log.follow([prediction(fine), prediction(taken)])
            naive = log.follow([prediction(new_ids(1)[0], asked_at=datetime(2013, 3, 1))])
            log.append([prediction(answered)]).result(timeout=10)
            for follower in (doubled, naive):
                with pytest.raises(StoreError):
                    follower.result(timeout=10)
        assert sorted(stored_ids(database)) == sorted([taken, answered])

    def test_close_writes_it_and_a_backlog_of_it_is_its_own(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tradeloop.prediction_log._FOLLOW_SECONDS", 30.0)
        monkeypatch.setattr("tradeloop.prediction_log._MOST_FOLLOWING", 2)
        ids = new_ids(4)
        log = PredictionLog(database)
        followers = [log.follow([prediction(made)]) for made in ids[:2]]
        with pytest.raises(StoreError, match="rows behind"):
            log.follow([prediction(ids[2])])
        log.close()
        assert all(follower.exception(timeout=0) is None for follower in followers)
        assert sorted(stored_ids(database)) == sorted(ids[:2])


class TestFailure:
    def test_all_who_wait_hear_of_it_and_nothing_is_half_written(self, database: Database) -> None:
        good, taken, late = new_ids(3)
        with PredictionLog(database) as log:
            log.append([prediction(taken)]).result(timeout=10)
            doubled = log.append([prediction(good), prediction(taken)])
            with pytest.raises(StoreError):
                doubled.result(timeout=10)
            assert stored_ids(database) == [taken]
            log.append([prediction(late)]).result(timeout=10)
        assert sorted(stored_ids(database)) == sorted([taken, late])

    def test_a_locked_database_fails_the_request_and_recovers(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path / 'a.db'}", busy_timeout=0.05)
        holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        first, second = new_ids(2)
        with PredictionLog(database) as log:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                log.append([prediction(first)]).result(timeout=10)
            holder.execute("ROLLBACK")
            log.append([prediction(second)]).result(timeout=10)
        holder.close()
        assert stored_ids(database) == [second]
        database.close()

    def test_a_vanished_table_is_reported(self, database: Database) -> None:
        with database.write() as connection:
            connection.execute(text("DROP TABLE predictions"))
        with PredictionLog(database) as log, pytest.raises(StoreError, match="predictions"):
            log.append([prediction(new_ids(1)[0])]).result(timeout=10)

    def test_one_who_gives_up_leaves_the_others_alone(self, database: Database) -> None:
        ids = new_ids(50)
        with PredictionLog(database) as log:
            futures = [log.append([prediction(made)]) for made in ids]
            assert not futures[7].cancel()
        assert sorted(stored_ids(database)) == sorted(ids)

    def test_an_unknown_id_is_named(self, database: Database) -> None:
        with pytest.raises(StoreError, match="no prediction has the id 'nothing'"):
            read_prediction(database, "nothing")


def test_features_survive_packing() -> None:
    row = np.array([0.1, -0.0, np.nan, np.inf, 1e-45], dtype=np.float32)
    assert unpack(pack(row)).tobytes() == row.tobytes()
    assert len(pack(row)) == 20


# Imports once, then forks one writer after another and kills each while it writes.
WRITERS = """
import os, random, signal, sys, threading, time
from datetime import UTC, datetime
import numpy as np
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction, new_ids
from tradeloop.state.database import Database

def send(log):
    while True:
        ids = new_ids(3)
        rows = [Prediction(id=made, market="m", symbol="S", status="ok", asked_at=datetime.now(UTC), feature_time=None,
                           max_age=1.0, clock="live", model=ids[0], version="a", schema_hash="b",
                           features=np.zeros(60, dtype=np.float32), verdict="abstain", reasons=()) for made in ids]
        log.append(rows).result()
        os.write(1, "".join(made + "\\n" for made in ids).encode())  # short enough to be written whole

rng = random.Random(20130301)
Database.open(sys.argv[1]).close()
for _ in range(int(sys.argv[2])):
    writer = os.fork()
    if writer == 0:
        log = PredictionLog(Database.open(sys.argv[1]))
        for _ in range(3):
            threading.Thread(target=send, args=(log,), daemon=True).start()
        threading.Event().wait()
    time.sleep(rng.uniform(0.1, 0.3))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
"""


@pytest.mark.slow
def test_no_acknowledged_prediction_is_lost_when_the_process_is_killed(url: str) -> None:
    command = [sys.executable, "-c", WRITERS, url, "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    acknowledged = done.stdout.split()
    database = Database.open(url)
    found = stored_ids(database)
    sizes = select(func.count()).select_from(PredictionRow).group_by(PredictionRow.model)
    with database.read() as connection:
        assert set(connection.execute(sizes).scalars()) == {3}, "a request was written in part"
    database.close()
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
