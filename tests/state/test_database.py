from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import StatementError

from tests.conftest import ROOT
from tradeloop.config import Params
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.state.database import REVISION, URL_VARIABLE, Database, database_url
from tradeloop.state.tables import Base, ModelEventRow


def event(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"market": "m", "time": datetime(2020, 1, 1, tzinfo=UTC), "kind": "registered"}
    row |= {"model": "a" * 64, "version": "a", "previous": None, "actor": "t", "reason": "r", "evidence": {"x": 1}}
    return row | changes


class TestOpening:
    def test_makes_the_tables_once_and_stamps_their_revision(self, url: str) -> None:
        for _ in range(2):
            database = Database.open(url)
            with database.read() as connection:
                assert set(inspect(connection).get_table_names()) == set(Base.metadata.tables)
                assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [REVISION]
            database.close()

    def test_a_newer_revision_is_refused(self, url: str) -> None:
        database = Database.open(url)
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        database.close()
        with pytest.raises(StoreError, match=rf"at revision 9999, newer than {REVISION}, which this code knows"):
            Database.open(url)

    def test_sqlite_flushes_at_every_commit_and_lets_readers_in_meanwhile(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path / 'a.db'}")
        with database.read() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        database.close()

    def test_a_simulation_does_not_wait_for_the_disk(self, tmp_path: Path) -> None:
        database = Database.open(f"sqlite:///{tmp_path / 'a.db'}", durable=False)
        with database.read() as connection:
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 0
        database.close()

    def test_opening_does_not_wait_for_a_writer(self, tmp_path: Path) -> None:
        path = tmp_path / "a.db"
        Database.open(f"sqlite:///{path}").close()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        Database.open(f"sqlite:///{path}", busy_timeout=0.05).close()
        other.close()

    def test_processes_that_start_together_all_get_the_tables(self, url: str) -> None:
        script = "import sys; from tradeloop.state.database import Database; Database.open(sys.argv[1]).close()"
        command = [sys.executable, "-c", script, url]
        started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        errors = [process.communicate(timeout=60)[1] for process in started]
        assert [process.returncode for process in started] == [0] * 3, errors


class TestTrouble:
    @pytest.mark.parametrize(
        ("url", "rule"),
        [
            ("mysql://localhost/x", "must be sqlite or postgresql, got 'mysql'"),
            ("nonsense", "a database url looks like"),
            ("sqlite://", "must be a file"),
            ("sqlite:///:memory:", "must be a file"),
            ("sqlite:////proc/nowhere/a.db", "cannot create the folder"),
        ],
    )
    def test_a_bad_url_names_the_rule(self, url: str, rule: str) -> None:
        with pytest.raises(StoreError, match=rule):
            Database.open(url)

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
    def test_a_damaged_file_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.db"
        path.write_bytes(content)
        with pytest.raises(StoreError) as caught:
            Database.open(f"sqlite:///{path}")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert path.read_bytes() == content

    def test_a_folder_in_its_place_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="unable to open database file"):
            Database.open(f"sqlite:///{tmp_path}")

    def test_a_writer_that_does_not_let_go_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "a.db"
        database = Database.open(f"sqlite:///{path}", busy_timeout=0.05)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"), database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event()))
        other.execute("ROLLBACK")
        other.close()
        with database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event()))
        database.close()

    def test_an_unreachable_server_is_reported_without_its_password(self) -> None:
        with pytest.raises(StoreError) as caught:
            Database.open("postgresql+psycopg://somebody:secret@127.0.0.1:1/x")
        assert "secret" not in str(caught.value) and "somebody:***" in str(caught.value)
        assert "\n" not in str(caught.value)


class TestTransactions:
    def test_what_fails_leaves_nothing(self, database: Database) -> None:
        with pytest.raises(RuntimeError, match="stop"), database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event()))
            raise RuntimeError("stop")
        with database.read() as connection:
            assert connection.execute(select(ModelEventRow)).all() == []

    def test_a_lock_keeps_read_and_write_together(self, url: str, database: Database) -> None:
        script = """
import sys
from sqlalchemy import func, insert, select
from tradeloop.state.database import Database
from tradeloop.state.tables import Base, ModelEventRow
database = Database.open(sys.argv[1])
for _ in range(25):
    with database.write("counter") as connection:
        count = connection.execute(select(func.count()).select_from(ModelEventRow)).scalar()
        row = dict(market="m", time=__import__("datetime").datetime.now(__import__("datetime").UTC), kind="registered",
                   model=str(count), version="v", previous=None, actor="a", reason="r", evidence={})
        connection.execute(insert(ModelEventRow).values(row))
"""
        started = [subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT) for _ in range(2)]
        assert [process.wait(timeout=120) for process in started] == [0] * 2
        with database.read() as connection:
            models = connection.execute(select(ModelEventRow.model).order_by(ModelEventRow.seq)).scalars().all()
        assert models == [str(i) for i in range(50)]

    def test_a_lock_that_is_held_for_long_is_reported(self, url: str) -> None:
        database, other = Database.open(url, busy_timeout=0.2), Database.open(url)
        with other.write("counter"), pytest.raises(StoreError, match=r"lock"), database.write("counter"):
            raise AssertionError("two held the lock")
        with database.write("counter") as connection:
            connection.execute(insert(ModelEventRow).values(event()))
        database.close()
        other.close()

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_json_holds_finite_numbers_only(self, database: Database, number: float) -> None:
        with pytest.raises((StoreError, ValueError), match="not JSON compliant"), database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event(evidence={"x": number})))


class TestTimes:
    def test_come_back_in_utc_to_the_microsecond(self, database: Database) -> None:
        zone = timezone(timedelta(hours=5, minutes=30))
        moment = datetime(2013, 3, 1, 2, 30, 0, 123457, tzinfo=zone)
        with database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event(time=moment)))
        with database.read() as connection:
            found = connection.execute(select(ModelEventRow.time)).scalar_one()
        assert found == moment and found.tzinfo is UTC

    def test_naive_ones_are_refused(self, database: Database) -> None:
        naive = datetime(2013, 3, 1)
        with pytest.raises((StoreError, StatementError), match="must be aware"), database.write() as connection:
            connection.execute(insert(ModelEventRow).values(event(time=naive)))


class TestUrl:
    def test_environment_comes_before_parameters_before_the_default(
        self, params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        layout = Layout(tmp_path)
        monkeypatch.delenv(URL_VARIABLE, raising=False)
        assert database_url(layout, params) == f"sqlite:///{tmp_path}/data/live/tradeloop.db"
        serving = params.serving.model_copy(update={"database_url": "postgresql+psycopg://h/a"})
        changed = params.model_copy(update={"serving": serving})
        assert database_url(layout, changed) == "postgresql+psycopg://h/a"
        monkeypatch.setenv(URL_VARIABLE, "sqlite:///elsewhere.db")
        assert database_url(layout, changed) == "sqlite:///elsewhere.db"
