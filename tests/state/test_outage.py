"""A PostgreSQL that goes away and comes back, and a SQLite file that is locked for long: errors meanwhile, then on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.servers import free_port
from tradeloop.errors import StoreError
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.faults import Faults
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.state.leases import Leases

WHY = {"actor": "t", "reason": "r"}


@dataclass
class Cluster:
    """A PostgreSQL server of this test's own."""

    programs: Path
    data: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        command = [*owner, str(self.programs / program), "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self.run("pg_ctl", "-w", "-l", str(self.data / "server.log"), "-o", options, "start")

    def stop(self, how: str) -> None:
        self.run("pg_ctl", "-w", "-m", how, "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("no initdb below /usr/lib/postgresql: `make services` installs it")
        pytest.skip("no initdb below /usr/lib/postgresql: `make services` installs it")
    folder = Path(tempfile.mkdtemp(prefix="tradeloop-outage-", dir="/tmp"))  # pytest's own is closed to other users
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    made = Cluster(found[-1].parent, folder / "data", free_port())
    try:
        made.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        made.start()
        yield made
        made.stop("fast")
    finally:
        if (made.data / "postmaster.pid").exists():
            made.stop("immediate")
        shutil.rmtree(folder)


def calls(database: Database) -> dict[str, Callable[[], Any]]:
    """Return one call of everything that talks to the database; each may be made again."""
    registry = Registry(database, "us_daily")

    def read() -> int:
        with database.read() as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())

    def drive() -> Any:
        with database.driver() as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            return cursor.fetchone()

    return {
        "read": read,
        "driver": drive,
        "champion_version": registry.champion_version,
        "state": registry.state,
        "register": lambda: registry.register("a" * 64, passed=True, **WHY),
        "promote": lambda: registry.promote("a" * 64, **WHY),
        "lease": lambda: Leases(database).acquire("loop", "me", 60),
        "holder": lambda: Leases(database).holder("loop"),
        "fault": lambda: Faults(database, "us_daily").record("feed", "gap", "m"),
        "beat": lambda: Heartbeats(database, "us_daily").beat("loop", "ok"),
        "beats": lambda: Heartbeats(database, "us_daily").read(),
    }


@pytest.mark.services
def test_a_server_that_goes_away_and_comes_back(cluster: Cluster) -> None:
    database = Database.open(cluster.url, busy_timeout=2)
    acts = calls(database)
    for act in acts.values():
        act()
    crowd = threading.Barrier(3)

    def hold() -> None:
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
            crowd.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(3)]  # so that three connections lie in the pool
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = Registry(database, "us_daily").events()
    for how in ("immediate", "fast"):
        cluster.stop(how)
        for name, act in acts.items():
            started = time.monotonic()
            with pytest.raises(StoreError) as caught:
                act()
            assert "\n" not in str(caught.value) and cluster.url in str(caught.value), name
            assert time.monotonic() - started < 5, name
        cluster.start()
        for act in acts.values():
            act()  # at the first attempt, on every connection
        assert Registry(database, "us_daily").events() == history
        cluster.stop(how)  # and while nobody asks
        cluster.start()
        for act in acts.values():
            act()
    database.close()


@pytest.mark.services
def test_a_server_that_goes_away_in_the_middle_of_a_transaction(cluster: Cluster) -> None:
    database = Database.open(cluster.url, busy_timeout=2)
    registry = Registry(database, "us_daily")
    registry.register("a" * 64, passed=True, **WHY)
    with pytest.raises(StoreError), database.write() as connection:
        connection.execute(text("DELETE FROM model_events"))
        cluster.stop("immediate")
    with pytest.raises(StoreError):
        registry.events()
    cluster.start()
    assert len(registry.events()) == 1
    database.close()


def test_a_file_that_is_locked_for_long(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database.open(f"sqlite:///{path}", busy_timeout=0.05)
    acts = calls(database)
    for act in acts.values():
        act()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    readers = {"read", "driver", "champion_version", "state", "holder", "beats"}
    for name, act in acts.items():
        if name in readers:
            act()  # a writer does not keep readers out
            continue
        with pytest.raises(StoreError, match="locked"):
            act()
    other.execute("ROLLBACK")
    other.close()
    for act in acts.values():
        act()
    assert Faults(database, "us_daily").recent()[0].count == 2
    database.close()
