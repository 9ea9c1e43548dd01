"""The bot's memory: one SQLite file, written once a bar in one transaction, from which it goes on after any death."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from tradeloop.errors import StoreError
from tradeloop.paper.exchange import Account, Fill, Target, from_json, to_json

_TABLES = """
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fills (
    fill_id TEXT PRIMARY KEY, content TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'unreported', reason TEXT);
CREATE TABLE IF NOT EXISTS bars (
    closed_at TEXT PRIMARY KEY, equity REAL NOT NULL, exposure REAL NOT NULL, asked INTEGER NOT NULL,
    abstained INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class State:
    """Where the bot stands after a bar.

    Attributes
    ----------
    run
        Name of this account's life, made once.
    settings
        What the account was opened under; going on under other rules would mix two experiments.
    cursor
        Close of the last bar that was worked through, None before the first.
    """

    run: str
    settings: Mapping[str, Any]
    cursor: datetime | None
    account: Account
    targets: Mapping[str, Target]


@dataclass(frozen=True)
class Bar:
    """One line of the equity curve, and how many questions were asked and declined at it."""

    closed_at: datetime
    equity: float
    exposure: float
    asked: int
    abstained: int


class Ledger:
    """The file of one account.

    Raises
    ------
    StoreError
        The file cannot be used; from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explain():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
                self._connection.execute(statement).close()
            self._connection.executescript(_TABLES)

    def begin(self, account: Account, settings: Mapping[str, Any]) -> State:
        """Return where the account stands, or open a new one.

        Raises
        ------
        StoreError
            The file holds an account that was opened under other settings.
        """
        found = self._read()
        if found is None:
            found = State(secrets.token_hex(4), dict(settings), None, account, {})
            self.commit(found, [], None)
        if changed := sorted(key for key in settings if found.settings.get(key) != settings[key]):
            key = changed[0]
            raise StoreError(
                f"{self._path} holds an account with {key} {found.settings.get(key)!r}, now it is {settings[key]!r}: "
                "begin a new one with --new"
            )
        return found

    def commit(self, state: State, fills: Sequence[Fill], bar: Bar | None) -> None:
        """Write a bar's work, all of it or nothing."""
        with self._explain(), self._transaction() as cursor:
            cursor.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (_dump(_state_to_json(state)),))
            cursor.executemany(
                "INSERT INTO fills (fill_id, content) VALUES (?, ?)",
                [(fill.fill_id, _dump(_fill_to_json(fill))) for fill in fills],
            )
            if bar is not None:
                row = (bar.closed_at.isoformat(), bar.equity, bar.exposure, bar.asked, bar.abstained)
                cursor.execute("INSERT INTO bars VALUES (?, ?, ?, ?, ?)", row)

    def unreported(self) -> list[Fill]:
        """Return fills that the service has not yet confirmed, oldest first."""
        return self._fills("WHERE status = 'unreported'")

    def reported(self, results: Mapping[str, tuple[str, str | None]]) -> None:
        """Note what the service said of fills: status and reason by id."""
        with self._explain(), self._transaction() as cursor:
            cursor.executemany(
                "UPDATE fills SET status = ?, reason = ? WHERE fill_id = ?",
                [(status, reason, name) for name, (status, reason) in results.items()],
            )

    def fills(self) -> list[Fill]:
        """Return all fills, oldest first."""
        return self._fills("")

    def statuses(self) -> dict[str, int]:
        """Return how many fills have each status."""
        with self._explain(), closing(self._connection.cursor()) as cursor:
            return dict(cursor.execute("SELECT status, COUNT(*) FROM fills GROUP BY status").fetchall())

    def bars(self) -> list[Bar]:
        """Return the equity curve, oldest first."""
        with self._explain(), closing(self._connection.cursor()) as cursor:
            rows = cursor.execute("SELECT * FROM bars ORDER BY closed_at").fetchall()
        return [Bar(datetime.fromisoformat(row[0]), *row[1:]) for row in rows]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> State | None:
        with self._explain(), closing(self._connection.cursor()) as cursor:
            row = cursor.execute("SELECT content FROM state").fetchone()
        return None if row is None else _state_from_json(json.loads(row[0]))

    def _fills(self, where: str) -> list[Fill]:
        with self._explain(), closing(self._connection.cursor()) as cursor:
            rows = cursor.execute(f"SELECT content FROM fills {where} ORDER BY rowid").fetchall()
        return [_fill_from_json(json.loads(row[0])) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the bot's ledger {self._path}: {error}") from error


def retire(path: Path) -> Path | None:
    """Put an account's file aside, so that a new one can begin; return where it is now, None if there was none."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        extra = path.with_name(path.name + suffix)
        if extra.exists():
            extra.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside


def _dump(content: Any) -> str:
    return json.dumps(content, allow_nan=False)


def _state_to_json(state: State) -> dict[str, Any]:
    return {
        "run": state.run,
        "settings": dict(state.settings),
        "cursor": None if state.cursor is None else state.cursor.isoformat(),
        "account": to_json(state.account),
        "targets": {symbol: [target.side, target.prediction_id] for symbol, target in state.targets.items()},
    }


def _state_from_json(content: Mapping[str, Any]) -> State:
    cursor = content["cursor"]
    return State(
        content["run"],
        content["settings"],
        None if cursor is None else datetime.fromisoformat(cursor),
        from_json(content["account"]),
        {symbol: Target(side, name) for symbol, (side, name) in content["targets"].items()},
    )


def _fill_to_json(fill: Fill) -> dict[str, Any]:
    return {**asdict(fill), "filled_at": fill.filled_at.isoformat()}


def _fill_from_json(content: Mapping[str, Any]) -> Fill:
    return Fill(**{**content, "filled_at": datetime.fromisoformat(content["filled_at"])})
