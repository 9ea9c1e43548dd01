"""A database of older code is brought up to date when it is opened, with all that it holds, whoever opens it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from tests.conftest import ROOT
from tests.databases import fresh_url
from tradeloop.bento import included
from tradeloop.errors import StoreError
from tradeloop.registry import Registry
from tradeloop.state.database import REVISION, REVISIONS, Database
from tradeloop.state.tables import Base
from tradeloop.state.upgrade import SCRIPTS, configuration

OPEN = "import sys; from tradeloop.state.database import Database; Database.open(sys.argv[1]).close()"
EVENT = {
    "market": "us_daily",
    "time": datetime(2020, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
    "model": "a" * 64,
    "version": "a" * 12,
    "actor": "t",
    "reason": "r",
    "evidence": '{"auc": 0.53}',
}
INSERT = (
    "INSERT INTO model_events (market, time, kind, model, version, actor, reason, evidence) "
    "VALUES (:market, :time, :kind, :model, :version, :actor, :reason, :evidence)"
)
PREDICTION = (
    "INSERT INTO predictions (id, market, symbol, asked_at, logged_at, max_age, model, schema_hash, features, p_up, "
    "verdict, reasons, clock) VALUES (:id, 'us_daily', 'AAPL', :at, :at, 60.5, 'm', 's', :features, 0.25, 'trade', "
    "'[]', 'replay')"
)


@pytest.fixture
def old(url: str) -> Iterator[Engine]:
    """Return a database of the first revision with 300 predictions and a champion in it."""
    engine = make_old(url)
    yield engine
    engine.dispose()


def make_old(url: str) -> Engine:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    moment: Any = EVENT["time"]
    if engine.dialect.name == "sqlite":
        moment = "2020-01-01 12:30:15.123456"
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "0001")
        for kind in ("registered", "promoted"):
            connection.execute(text(INSERT), EVENT | {"kind": kind, "time": moment})
        rows = [{"id": f"{i:036}", "at": moment, "features": bytes([i % 256]) * 8} for i in range(300)]
        connection.execute(text(PREDICTION), rows)
    return engine


def differences(connection: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


def read(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)).all())


def test_opening_upgrades_to_exactly_the_tables_of_the_code_and_keeps_the_data(url: str, old: Engine) -> None:
    before = read(old, "SELECT * FROM predictions ORDER BY id")
    names = ", ".join(column["name"] for column in inspect(old).get_columns("predictions"))
    database = Database.open(url)
    with database.read() as connection:
        assert differences(connection) == []
        assert set(inspect(connection).get_table_names()) == set(Base.metadata.tables)
    assert read(old, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert read(old, f"SELECT {names} FROM predictions ORDER BY id") == before and len(before) == 300
    assert {tuple(row) for row in read(old, "SELECT arm, answered FROM predictions")} == {("champion", True)}
    champion = Registry(database, "us_daily").champion()
    database.close()
    assert champion is not None
    assert (champion.state, champion.since, champion.evidence) == ("production", EVENT["time"], {"auc": 0.53})


def test_what_was_logged_before_waits_for_its_outcome_like_what_is_logged_after(url: str, old: Engine) -> None:
    Database.open(url).close()
    assert read(old, "SELECT prediction_id FROM pending ORDER BY seq") == [(f"{i:036}",) for i in range(300)]
    with old.begin() as connection:
        connection.execute(text(PREDICTION), {"id": "new", "at": "2020-01-01 12:30:15", "features": b""})
    assert read(old, "SELECT market, prediction_id FROM pending WHERE seq > 300") == [("us_daily", "new")]


def test_a_fresh_database_is_what_the_migrations_make(url: str) -> None:
    database = Database.open(url)
    with database.read() as connection:
        assert differences(connection) == []
    database.close()


def test_the_code_knows_every_script() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == REVISIONS
    named = [f"{name.replace('.', '/')}.py" for name in SCRIPTS]
    assert sorted(named) == sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tradeloop/state/migrations").rglob("*.py")
        if path.name != "__init__.py"
    )
    assert set(named) <= set(included(ROOT))  # a Bento may meet an older database


def test_alembic_is_imported_only_where_there_is_something_to_do(tmp_path: Path) -> None:
    script = f"{OPEN}; print('alembic' in sys.modules)"

    def opened(url: str) -> str:
        command = [sys.executable, "-c", script, url]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    old = f"sqlite:///{tmp_path / 'old.db'}"
    make_old(old).dispose()
    assert [opened(f"sqlite:///{tmp_path / 'new.db'}"), opened(old), opened(old)] == ["False", "True", "False"]


def test_processes_that_meet_an_old_database_together_upgrade_it_once(url: str, old: Engine) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN, url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 3, errors
    with old.connect() as connection:
        assert differences(connection) == []


def test_a_step_that_fails_leaves_the_database_as_it_was(url: str, old: Engine) -> None:
    with old.begin() as connection:
        connection.execute(text("CREATE TABLE leases (name VARCHAR(1))"))  # in the way of the second step
    for _ in range(2):
        with pytest.raises(StoreError, match=r"leases.* already exists"):
            Database.open(url)
        assert set(inspect(old).get_table_names()) == {"predictions", "model_events", "alembic_version", "leases"}
        assert read(old, "SELECT version_num FROM alembic_version") == [("0001",)]
    with old.begin() as connection:
        connection.execute(text("DROP TABLE leases"))
    Database.open(url).close()
    with old.connect() as connection:
        assert differences(connection) == []


# Imports once, then forks one upgrade after another, each of an old database of its own, and kills it.
KILLED = """
import os, random, signal, sys, time
from tradeloop.state import upgrade
from tradeloop.state.database import Database
rng = random.Random(20130301)
urls = sys.argv[2:]
def forked(url):
    child = os.fork()
    if child == 0:
        Database.open(url).close()
        os._exit(0)
    return child
started = time.monotonic()
assert os.waitpid(forked(urls[0]), 0)[1] == 0
whole = time.monotonic() - started
for url in urls[1:]:
    child = forked(url)
    time.sleep(rng.uniform(0, 0.9 * whole))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def test_a_kill_in_the_middle_leaves_an_old_or_a_new_database(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(fresh_url(kind, tmp_path / str(i))) for i in range(6)]
        for url in urls:
            make_old(url).dispose()
        command = [sys.executable, "-c", KILLED, kind, *urls]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        revisions = []
        for url in urls:
            engine = create_engine(url)
            tables = set(inspect(engine).get_table_names())
            revisions += [revision for (revision,) in read(engine, "SELECT version_num FROM alembic_version")]
            assert tables == set(Base.metadata.tables) or tables == {"predictions", "model_events", "alembic_version"}
            assert (revisions[-1] == REVISION) == (tables == set(Base.metadata.tables))
            Database.open(url).close()
            with engine.connect() as connection:
                assert differences(connection) == []
            assert read(engine, "SELECT count(*) FROM predictions") == [(300,)]
            engine.dispose()
        assert revisions[0] == REVISION and "0001" in revisions[1:]
