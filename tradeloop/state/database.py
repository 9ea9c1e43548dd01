"""The state database: predictions and lifecycle events, in SQLite (WAL, flushed at every commit) or PostgreSQL.

All times go in and come out as aware datetimes in UTC.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Delete,
    Dialect,
    Engine,
    Insert,
    PoolProxiedConnection,
    Select,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.sql.compiler import SQLCompiler

from tradeloop.config import Params
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.state.tables import Base, RevisionRow

URL_VARIABLE = "TRADELOOP_DATABASE_URL"
REVISIONS = ("0001", "0002")
"""Every revision of the tables, oldest first; the last is this code's (see `tradeloop.state.migrations`)."""
REVISION = REVISIONS[-1]

_JSON = json.JSONEncoder(allow_nan=False).encode
"""Of two databases one would take NaN and the other not: neither does."""
_SQLITE_SETUP = ("PRAGMA journal_mode=WAL", "PRAGMA foreign_keys=ON")


def database_url(layout: Layout, params: Params) -> str:
    """Return ``$TRADELOOP_DATABASE_URL``, else params' ``serving.database_url``, else SQLite below data/live."""
    url = os.environ.get(URL_VARIABLE) or params.serving.database_url
    return url or f"sqlite:///{layout.live / 'tradeloop.db'}"


class Native:
    """A compiled statement for the driver: its text, and rows in the form the driver wants."""

    def __init__(self, statement: Select[*tuple[Any, ...]] | Insert | Delete, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        self._defaults = compiled.params
        self._order = compiled.positiontup
        types = {bind.key: bind.type.dialect_impl(dialect) for bind in compiled.binds.values()}
        processors = {key: kind.bind_processor(dialect) for key, kind in types.items()}
        self._processors = {key: process for key, process in processors.items() if process is not None}

    def row(self, values: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        """Return the bound values, converted by their columns' types."""
        bound = {**self._defaults, **values}
        for key, process in self._processors.items():
            bound[key] = process(bound[key])
        return bound if self._order is None else [bound[key] for key in self._order]

    def rows(self, values: Iterable[Mapping[str, Any]]) -> Sequence[Any]:
        """Return `row` of each, for a statement that runs once a row."""
        return [self.row(each) for each in values]


class Database:
    """An open state database; safe to share between threads, not across a fork.

    Every method raises `StoreError`, one line, when the database is unreachable, locked or damaged.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error

    @classmethod
    def open(cls, url: str, *, busy_timeout: float = 5.0, durable: bool = True) -> Database:
        """Connect; create the tables where there are none yet, bring those of older code up to date.

        Parameters
        ----------
        url
            ``sqlite:///path`` or ``postgresql+psycopg://user:password@host:port/name``.
        busy_timeout
            Seconds to wait for another process that is writing.
        durable
            Whether a commit waits for the disk. Without it (a simulation, which can be run again) a SQLite file may be
            lost when the machine, not the process, dies; PostgreSQL commits as its server is set up.
        """
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise StoreError("a database url looks like sqlite:///path or postgresql+psycopg://…, got none") from None
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(f"the database must be sqlite or postgresql, got {parsed.get_backend_name()!r}")
        database = cls(_engine(parsed, busy_timeout, durable=durable))
        try:
            database._prepare()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def name(self) -> str:
        """The url without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def write(self, lock: str | None = None) -> Iterator[Connection]:
        """Yield a connection in a transaction that commits at the end.

        Two transactions that name the same `lock` run one after the other, also across processes (SQLite has
        one writer at a time anyway).
        """
        with self.explain(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            if lock is not None and connection.dialect.name == "postgresql":
                statement = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
                connection.execute(statement, {"name": lock})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection whose reads see one state of the database."""
        with self.explain(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def driver(self) -> Iterator[PoolProxiedConnection]:
        """Yield the driver's own connection, outside a transaction, for the paths where microseconds count."""
        with self.explain():
            connection = self.engine.raw_connection()
            try:
                yield connection
            finally:
                connection.close()

    def native(self, statement: Select[*tuple[Any, ...]] | Insert | Delete) -> Native:
        """Return `statement` in the driver's own words, compiled once."""
        return Native(statement, self.engine.dialect)

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Turn what the driver raises into a `StoreError` that names the database."""
        try:
            yield
        except (SQLAlchemyError, self._driver_error) as error:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            raise StoreError(f"database {self.name}: {cause}") from error

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()

    def _prepare(self) -> None:
        """Create the tables, or bring older ones up to date; whoever comes first does it for all."""
        with self.read() as connection:
            if _revision(connection) == REVISION:
                return
        with self.write(lock="tradeloop.tables") as connection:
            found = _revision(connection)
            if found is None:
                Base.metadata.create_all(connection)
                connection.execute(insert(RevisionRow).values(version_num=REVISION))
            elif found not in REVISIONS:
                raise StoreError(
                    f"database {self.name} is at revision {found}, newer than {REVISION}, which this code knows: "
                    "update tradeloop"
                )
            elif found != REVISION:
                from tradeloop.state.upgrade import upgrade

                upgrade(connection)


def _revision(connection: Connection) -> str | None:
    """Return the revision of the tables, None where there are none."""
    if not inspect(connection).has_table(RevisionRow.__tablename__):
        return None
    found = connection.execute(select(RevisionRow.version_num)).scalars().all()
    return " and ".join(found) or "unknown"


def _engine(url: URL, busy_timeout: float, *, durable: bool) -> Engine:
    """Return an engine; SQLite's connections take part in explicit transactions only."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, json_serializer=_JSON, connect_args=_patience(busy_timeout))
    if url.database is None or url.database == ":memory:":
        raise StoreError("the state database must be a file: an in-memory one would forget what was answered")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the folder of {url.database}: {error.strerror}") from None
    engine = create_engine(url, json_serializer=_JSON, connect_args={"timeout": busy_timeout})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late (at the first write) for a read-then-write transaction.
        connection.isolation_level = None
        for statement in (*_SQLITE_SETUP, f"PRAGMA synchronous={'FULL' if durable else 'OFF'}"):
            connection.execute(statement)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _patience(busy_timeout: float) -> dict[str, Any]:
    """Return what keeps a call on PostgreSQL from waiting for ever: for a server, a lock, or a network that is gone."""
    return {
        "connect_timeout": max(2, int(busy_timeout)),
        "options": f"-c lock_timeout={max(1, int(1000 * busy_timeout))}",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
