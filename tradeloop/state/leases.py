"""Leases: who may act alone under a name, across processes and machines, until when.

A holder that dies is followed by another as soon as its time is up; one that lives acquires it again before that. The
time is the database's: PostgreSQL's own clock, for SQLite that of the machine, which all its users share.

- A clock that jumps forward may end a lease early. Whatever its holder still tries to write under `holds` is refused:
  two may believe that they hold a lease, but only one can write under it.
- A clock that jumps back would make a dead holder's lease last. Whoever asks for it next cuts it to its own length
  from now on, so that it costs at most that much more.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from tradeloop.state.database import Database
from tradeloop.state.tables import LeaseRow

_TABLE = LeaseRow.__table__


@dataclass(frozen=True)
class Lease:
    """A lease as it stands in the database; times are the wall's, aware, UTC."""

    name: str
    owner: str
    acquired_at: datetime
    expires_at: datetime


def new_owner() -> str:
    """Return a name for this process that no other one has had: host, process number and a random part."""
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(8)}"


class Leases:
    """The leases in a database. Every method raises StoreError if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease that is free or expired, or renew one's own; return whether `owner` holds it now."""
        if not seconds > 0:
            raise ValueError(f"a lease must last longer than 0 s, got {seconds}")
        with self._database.write(_lock(name)) as connection:
            now = _now(connection)
            lease = _read(connection, name)
            if lease is not None and lease.owner != owner and lease.expires_at > now:
                _cut(connection, lease, now)
                return False
            acquired_at = lease.acquired_at if lease is not None and lease.owner == owner else now
            _write(connection, Lease(name, owner, min(acquired_at, now), now + timedelta(seconds=seconds)))
            return True

    def release(self, name: str, owner: str) -> bool:
        """Give a lease back; return whether it was `owner`'s."""
        with self._database.write(_lock(name)) as connection:
            mine = delete(LeaseRow).where(_TABLE.c.name == name, _TABLE.c.owner == owner)
            return connection.execute(mine).rowcount > 0

    def holder(self, name: str) -> Lease | None:
        """Return the lease if somebody holds it now."""
        with self._database.read() as connection:
            lease = _read(connection, name)
            return lease if lease is not None and lease.expires_at > _now(connection) else None

    def holds(self, connection: Connection, name: str, owner: str) -> bool:
        """Return whether `owner` holds a lease, and keep it so until the transaction of `connection` ends.

        `connection` comes from ``database.write()``. What is written in the same transaction is written by the one
        holder: nobody can take the lease before the commit.
        """
        lease = _read(connection, name, keep=True)
        return lease is not None and lease.owner == owner and lease.expires_at > _now(connection)


def _lock(name: str) -> str:
    return f"tradeloop.lease.{name}"


def _now(connection: Connection) -> datetime:
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


def _read(connection: Connection, name: str, *, keep: bool = False) -> Lease | None:
    query = select(_TABLE).where(_TABLE.c.name == name)
    row = connection.execute(query.with_for_update() if keep else query).mappings().first()
    return Lease(**row) if row else None


def _write(connection: Connection, lease: Lease) -> None:
    changed = connection.execute(update(LeaseRow).where(_TABLE.c.name == lease.name).values(**vars(lease))).rowcount
    if not changed:
        connection.execute(insert(LeaseRow).values(**vars(lease)))


def _cut(connection: Connection, lease: Lease, now: datetime) -> None:
    """Let a lease that was taken in the future (the clock has jumped back) last its own length from now."""
    if lease.acquired_at > now:
        _write(connection, Lease(lease.name, lease.owner, now, now + (lease.expires_at - lease.acquired_at)))
