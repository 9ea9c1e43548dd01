"""One holder at a time: between processes, after a kill, and whatever the clock does."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from sqlalchemy import insert, select, update

from tests.conftest import ROOT
from tradeloop.errors import StoreError
from tradeloop.state import leases as module
from tradeloop.state.database import Database
from tradeloop.state.leases import Leases, new_owner
from tradeloop.state.tables import ErrorRow, LeaseRow


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database)


def shift(database: Database, **by: timedelta) -> None:
    """Move the times of all leases, as if the clock had jumped the other way."""
    with database.write() as connection:
        for name, step in by.items():
            stored = connection.execute(select(LeaseRow.__table__.c[name])).scalar_one()
            connection.execute(update(LeaseRow).values({name: stored + step}))


class TestAcquire:
    def test_one_holder_at_a_time(self, leases: Leases) -> None:
        assert leases.acquire("loop", "a", 60)
        assert not leases.acquire("loop", "b", 60)
        assert leases.acquire("other", "b", 60)
        held = leases.holder("loop")
        assert held is not None and held.owner == "a"
        assert held.expires_at - held.acquired_at == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=1))

    def test_the_holder_may_ask_again(self, leases: Leases) -> None:
        assert leases.acquire("loop", "a", 1)
        first = leases.holder("loop")
        assert leases.acquire("loop", "a", 60)
        second = leases.holder("loop")
        assert first is not None and second is not None
        assert second.acquired_at == first.acquired_at and second.expires_at > first.expires_at

    def test_an_expired_lease_is_free(self, leases: Leases) -> None:
        assert leases.acquire("loop", "a", 0.05)
        time.sleep(0.1)
        assert leases.holder("loop") is None
        assert leases.acquire("loop", "b", 60)
        assert not leases.acquire("loop", "a", 60)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_a_lease_lasts(self, leases: Leases, seconds: float) -> None:
        with pytest.raises(ValueError, match="longer than 0 s"):
            leases.acquire("loop", "a", seconds)

    def test_owners_differ(self) -> None:
        assert new_owner() != new_owner() and len(new_owner()) <= 128


class TestRelease:
    def test_only_the_holder_gives_it_back(self, leases: Leases) -> None:
        leases.acquire("loop", "a", 60)
        assert not leases.release("loop", "b")
        assert leases.release("loop", "a")
        assert not leases.release("loop", "a")
        assert leases.acquire("loop", "b", 60)


class TestClock:
    def test_after_a_jump_back_a_dead_holder_costs_its_own_length_once_more(
        self, leases: Leases, database: Database
    ) -> None:
        leases.acquire("loop", "dead", 0.2)
        day = timedelta(days=1)
        shift(database, acquired_at=day, expires_at=day)  # taken tomorrow: the clock has jumped back
        assert not leases.acquire("loop", "b", 60)
        time.sleep(0.3)
        assert leases.acquire("loop", "b", 60)

    def test_after_a_jump_forward_the_old_holder_learns_it_and_writes_nothing(
        self, leases: Leases, database: Database
    ) -> None:
        leases.acquire("loop", "a", 60)
        shift(database, acquired_at=-timedelta(hours=1), expires_at=-timedelta(hours=1))
        assert leases.acquire("loop", "b", 60)
        assert not leases.acquire("loop", "a", 60)
        with database.write() as connection:
            assert not leases.holds(connection, "loop", "a")
            assert leases.holds(connection, "loop", "b")

    def test_on_postgresql_the_servers_clock_counts(
        self, leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Ahead(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.now(tz) + timedelta(hours=1)

        leases.acquire("loop", "a", 60)
        monkeypatch.setattr(module, "datetime", Ahead)
        assert leases.acquire("loop", "b", 60) == (database.engine.dialect.name == "sqlite")


# Holds the lease again and again for a moment, and writes one row as it begins and one as it ends.
WORKER = """
import sys, time
from datetime import UTC, datetime
from sqlalchemy import insert
from tradeloop.state.database import Database
from tradeloop.state.leases import Leases, new_owner
from tradeloop.state.tables import ErrorRow
database = Database.open(sys.argv[1])
leases, owner = Leases(database), new_owner()
print("ready", flush=True)
def note(kind):
    now = datetime.now(UTC)
    row = dict(market="m", component=owner, kind=kind, message="", first_at=now, last_at=now)
    with database.write() as connection:
        if not leases.holds(connection, "loop", owner):
            return False
        connection.execute(insert(ErrorRow).values(row))
        return True
while True:
    if leases.acquire("loop", owner, 0.5):
        if note("begin"):
            time.sleep(0.02)
            if note("end"):
                leases.release("loop", owner)
    time.sleep(0.005)
"""


def test_never_two_holders_even_when_they_are_killed(url: str, database: Database) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    time.sleep(0.5)
    for worker in workers[:2]:
        worker.send_signal(signal.SIGKILL)
        time.sleep(1.0)  # twice the lease: the others must go on
    for worker in workers:
        worker.kill()
        worker.communicate()
    with database.read() as connection:
        rows = connection.execute(select(ErrorRow.component, ErrorRow.kind).order_by(ErrorRow.seq)).all()
    owners = [owner for owner, _ in rows]
    assert rows[-1] and len(set(owners)) == 3 and len(rows) > 20
    interrupted = 0
    for (owner, kind), (other, then) in itertools.pairwise(rows):
        if kind == "begin" and (other, then) != (owner, "end"):
            interrupted += 1  # it was killed in the middle, and its lease ran out
        else:
            assert then != kind
    assert interrupted <= len(workers), "a lease was taken from a holder that lived"


def test_a_lease_cannot_be_taken_from_under_a_transaction(url: str, database: Database, leases: Leases) -> None:
    leases.acquire("loop", "a", 0.3)
    row = {"market": "m", "component": "c", "kind": "k", "message": "", "first_at": datetime.now(UTC)}
    impatient = Database.open(url, busy_timeout=0.1)
    with database.write() as connection:
        assert leases.holds(connection, "loop", "a")
        time.sleep(0.4)
        with pytest.raises(StoreError, match="lock"):
            Leases(impatient).acquire("loop", "b", 60)  # expired, but its holder is still writing
        connection.execute(insert(ErrorRow).values({**row, "last_at": datetime.now(UTC)}))
    assert Leases(impatient).acquire("loop", "b", 60)
    impatient.close()
