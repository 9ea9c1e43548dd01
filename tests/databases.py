"""Databases for tests: a SQLite file, or a PostgreSQL database of one's own on the project's server."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]

_SERVER = "tradeloop:tradeloop@127.0.0.1:15432"


@contextmanager
def fresh_url(kind: str, folder: Path) -> Iterator[str]:
    """Yield the url of an empty database; PostgreSQL's is dropped at the end."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'live' / 'tradeloop.db'}"
        return
    name = f"test_{uuid.uuid4().hex}"
    try:
        server = psycopg.connect(f"postgresql://{_SERVER}/tradeloop", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"no PostgreSQL at 127.0.0.1:15432: make services ({error})")
    with server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql+psycopg://{_SERVER}/{name}"
        finally:
            _drop(server, name)


def _drop(server: psycopg.Connection, name: str) -> None:
    """Drop a database; where the server is just vacuuming it, which only a superuser may stop, wait for that."""
    for attempt in range(50):
        try:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        except psycopg.errors.InsufficientPrivilege:
            if attempt == 49:
                raise
            time.sleep(0.2)
        else:
            return
