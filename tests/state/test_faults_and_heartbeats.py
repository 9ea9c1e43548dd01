from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import ROOT
from tradeloop.state.database import Database
from tradeloop.state.faults import Faults
from tradeloop.state.heartbeats import Heartbeats

LONG = "x" * 30_000 + "\0"


@pytest.fixture
def faults(database: Database) -> Faults:
    return Faults(database, "us_daily")


@pytest.fixture
def heartbeats(database: Database) -> Heartbeats:
    return Heartbeats(database, "us_daily")


class TestFaults:
    def test_the_same_failure_again_is_counted(self, faults: Faults) -> None:
        first = faults.record("retrain", "timeout", "no end after 2 h", "attempt 1")
        time.sleep(0.002)
        again = faults.record("retrain", "timeout", "no end after 2 h", "attempt 2")
        assert (first.count, again.count, again.detail) == (1, 2, "attempt 2")
        assert again.first_at == first.first_at and again.last_at > first.last_at
        assert faults.recent() == [again]

    def test_newest_first_and_no_more_than_asked(self, faults: Faults) -> None:
        for message in ("a", "b", "c", "a"):
            faults.record("feed", "gap", message)
            time.sleep(0.002)
        assert [(fault.message, fault.count) for fault in faults.recent(2)] == [("a", 2), ("c", 1)]

    def test_another_kind_component_or_market_is_another_failure(self, faults: Faults, database: Database) -> None:
        for component, kind in (("feed", "gap"), ("feed", "late"), ("log", "gap")):
            faults.record(component, kind, "m")
        other = Faults(database, "btc_15m")
        assert other.recent() == []
        assert other.record("feed", "gap", "m").count == 1
        assert [fault.count for fault in faults.recent()] == [1, 1, 1]

    def test_whatever_text_comes_is_kept_as_far_as_it_fits(self, faults: Faults) -> None:
        for _ in range(2):
            fault = faults.record(LONG, LONG, f"\0{LONG}", LONG)
        assert (fault.count, len(fault.component), len(fault.message), len(fault.detail or "")) == (2, 64, 2000, 20_000)

    def test_processes_count_together(self, url: str, faults: Faults) -> None:
        script = """
import sys
from tradeloop.state.database import Database
from tradeloop.state.faults import Faults
faults = Faults(Database.open(sys.argv[1]), "us_daily")
for _ in range(20):
    faults.record("feed", "gap", "m")
"""
        started = [subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT) for _ in range(2)]
        assert [process.wait(timeout=60) for process in started] == [0, 0]
        assert [fault.count for fault in faults.recent()] == [40]


class TestHeartbeats:
    def test_the_last_sign_of_each_component(self, heartbeats: Heartbeats, database: Database) -> None:
        moment = datetime(2013, 3, 1, 21, tzinfo=UTC)
        heartbeats.beat("resolver", "ok", "3 resolved", moment)
        heartbeats.beat("loop", "starting")
        heartbeats.beat("loop", "ok", "turn 1", moment)
        Heartbeats(database, "btc_15m").beat("loop", "failed")
        found = heartbeats.read()
        assert [(beat.component, beat.state, beat.detail, beat.market_time) for beat in found] == [
            ("loop", "ok", "turn 1", moment),
            ("resolver", "ok", "3 resolved", moment),
        ]
        assert abs(datetime.now(UTC) - found[0].wall_time) < timedelta(seconds=10)
        assert found[0].to_dict()["market_time"] == moment.isoformat()

    def test_a_long_detail_is_cut(self, heartbeats: Heartbeats) -> None:
        heartbeats.beat("loop", "failed", LONG)
        assert len(heartbeats.read()[0].detail) == 2000
