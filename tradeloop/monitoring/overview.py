"""What there is to see of a market, from the database alone and as JSON has it: for HTTP and the command line alike.

Every query reads a bounded number of rows by an index, whatever the tables have grown to.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from tradeloop.errors import ConfigError
from tradeloop.monitoring.queries import outcomes as ended
from tradeloop.monitoring.queries import summary
from tradeloop.registry import Registry
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database
from tradeloop.state.jobs import Job, JobQueue
from tradeloop.state.tables import (
    ErrorRow,
    HeartbeatRow,
    JobRow,
    ModelEventRow,
    RetrainingLogRow,
)
from tradeloop.version_facts import read_facts

MOST = 1000
"""Entries that one answer may hold."""

_ENDS = ("resolved", "expired", "void", "pending")
_ALARMS = ("skill", "calibration")
_NEWEST = 5

Entry = dict[str, Any]


def status(database: Database, market: str, *, clock: str, now: datetime | None) -> Entry:
    """Return the state of everything at a glance.

    Parameters
    ----------
    clock, now
        The market's clock: its mode, and its time, None where that is not known.
    """
    lifecycle = Registry(database, market).state()
    champion = lifecycle.champion
    totals = summary(database, market)
    predictions = {"total": totals["logged"]} | {name: totals[name] for name in _ENDS}
    with database.read() as connection:
        jobs = _counts(connection, JobRow, market, JobRow.state)
        decisions = _newest(connection, RetrainingLogRow, market)
        heartbeats = _heartbeats(connection, market)
        alarms = _alarms(decisions[0]["evidence"]) if decisions else []
        return {
            "market": market,
            "clock": {"mode": clock, "now": _text(now)},
            "champion": champion.to_dict() if champion else None,
            "challengers": [route.to_dict() for route in lifecycle.routes],
            "predictions": predictions,
            "jobs": {state: jobs.get(state, 0) for state in ("queued", "running", "failed", "succeeded", "cancelled")},
            "diagnosis": _diagnosis(connection, market),
            "alarms": [*alarms, *_failed(JobQueue(database, market).failures()), *_parity(heartbeats)],
            "decisions": [_brief(row) for row in decisions],
            "heartbeats": heartbeats,
            "errors": _errors(connection, market),
        }


def models(database: Database, market: str) -> Entry:
    """Return every version with its state, its part as a challenger, and what its holdout said of it."""
    lifecycle = Registry(database, market).state()
    with database.read() as connection:
        facts = read_facts(connection, market)
    found = []
    for record in lifecycle.records.values():
        known = facts.get(record.hash)
        route = lifecycle.route(record.hash)
        entry = {**record.to_dict(), "challenger": route.to_dict() if route else None}
        found.append(entry | (_facts(vars(known)) if known else _facts({})))
    champion = lifecycle.champion
    return {"market": market, "champion": champion.version if champion else None, "models": found}


def experiments(database: Database, market: str, *, limit: int = 50, job: str | None = None) -> Entry:
    """Return the newest attempts at training, the last first."""
    return {"market": market, "experiments": JobQueue(database, market).experiments(limit, job_id=job)}


def retraining(database: Database, market: str, *, limit: int = 50) -> Entry:
    """Return the jobs that wait (the most urgent first) or run, and the newest that ended."""
    with database.read() as connection:
        table = JobRow.__table__
        mine = select(table).where(table.c.market == market)
        waiting = mine.where(table.c.state == "queued").order_by(table.c.priority.desc(), table.c.created_at)
        running = mine.where(table.c.state == "running").order_by(table.c.started_at)
        ended = mine.where(table.c.ended_at.is_not(None)).order_by(table.c.ended_at.desc())
        parts = {"queued": waiting, "running": running, "ended": ended}
        found = {name: _all(connection, query.limit(limit)) for name, query in parts.items()}
    return {"market": market, **found}


def decisions(
    database: Database, market: str, *, limit: int = 50, kind: str | None = None, before: int | None = None
) -> Entry:
    """Return the newest decisions of the loop, the last first; `before` is the ``next`` of the page before."""
    table = RetrainingLogRow.__table__
    query = select(table).where(table.c.market == market).order_by(table.c.seq.desc()).limit(limit)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    if before is not None:
        query = query.where(table.c.seq < before)
    with database.read() as connection:
        found = _all(connection, query)
    return {"market": market, "decisions": found, "next": found[-1]["seq"] if len(found) == limit else None}


def outcomes(
    database: Database, market: str, *, symbol: str | None = None, after_seq: int = 0, limit: int = 100
) -> Entry:
    """Return how predictions ended, the last learned first, as `queries.outcomes`; ranges as fractions of the price."""
    found = []
    for row in ended(database, market, symbol=symbol, after_seq=after_seq, limit=limit):
        realised = None if row["range"] is None else math.exp(row["range"])
        found.append(_plain(row) | {"range": realised})
    return {"market": market, "outcomes": found}


def adaptations(database: Database, market: str, model: str, *, limit: int = 50) -> Entry:
    """Return what was learned of a model (its hash) between retrainings, the last first, and the id that applies."""
    store = AdaptationStore(database, market)
    applied = store.newest(model)
    return {
        "market": market,
        "model": model,
        "held": store.held(model),
        "applied": applied[0] if applied else None,
        "entries": [_plain(row) for row in store.history(model, limit)],
    }


def events(database: Database, market: str, *, limit: int = 100, after: str | None = None) -> Entry:
    """Return what happened to the models and what the loop decided, oldest first, in the order of the wall's time.

    Parameters
    ----------
    after
        The ``next`` of the page before, ``0.0`` for the beginning; by default the newest `limit` entries are returned.
    """
    seen = (0, 0) if after is None else parse_cursor(after)
    tables = {"lifecycle": ModelEventRow.__table__, "decision": RetrainingLogRow.__table__}
    with database.read() as connection:
        pages = [
            _page(connection, stream, table, market, last, limit=limit, newest=after is None)
            for (stream, table), last in zip(tables.items(), seen, strict=True)
        ]
    # Merged, not sorted: within a stream it is the number that orders, whatever the wall's clock did.
    merged = list(heapq.merge(*pages, key=lambda entry: entry["time"]))
    shown = merged[-limit:] if after is None else merged[:limit]
    last = [max((entry["seq"] for entry in shown if entry["stream"] == stream), default=0) for stream in tables]
    cursor = [max(pair) for pair in zip(last, seen if after else _ends(pages), strict=True)]
    return {"market": market, "events": shown, "next": f"{cursor[0]}.{cursor[1]}"}


def parse_cursor(text: str) -> tuple[int, int]:
    """Return the two numbers of a page's ``next``; ConfigError where it is none."""
    event, dot, decision = text.partition(".")
    if not (dot and event.isdecimal() and decision.isdecimal() and len(text) <= 40):
        raise ConfigError(f"after must be the `next` of an earlier answer, such as 12.30, or 0.0, got {text[:40]!r}")
    return int(event), int(decision)


def _counts(connection: Connection, of: Any, market: str, column: Any) -> dict[str, int]:
    query = select(column, func.count()).where(of.market == market).group_by(column)
    return {str(value): int(count) for value, count in connection.execute(query)}


def _newest(connection: Connection, of: Any, market: str) -> list[Entry]:
    return _all(connection, select(of.__table__).where(of.market == market).order_by(of.seq.desc()).limit(_NEWEST))


def _brief(decision: Mapping[str, Any]) -> Entry:
    names = ("seq", "market_time", "wall_time", "kind", "decision", "reason", "job_id")
    return {name: decision[name] for name in names}


def _diagnosis(connection: Connection, market: str) -> Entry | None:
    """Return the diagnosis that stands: the log has a row whenever it changes."""
    log = RetrainingLogRow.__table__
    mine = select(log).where(log.c.market == market, log.c.kind == "diagnosis")
    found = _all(connection, mine.order_by(log.c.seq.desc()).limit(1))
    if not found:
        return None
    return {"remedy": found[0]["decision"], "reason": found[0]["reason"], "since": found[0]["market_time"]}


def _alarms(evidence: Mapping[str, Any]) -> list[Entry]:
    """Return the alarms that the evidence of the newest decision shows."""
    found = []
    for watch in _ALARMS:
        part = evidence.get(watch) or {}
        if part.get("alarm"):
            known = {"outcome_seq": part.get("alarm_seq"), "changed_at": part.get("changed_at")}
            found.append({"watch": watch, "text": part.get("text", ""), **known})
    return found


def _failed(jobs: Sequence[Job]) -> list[Entry]:
    """Return an alarm for each retraining that failed for good, until somebody acknowledges it or one succeeds."""
    return [
        {"watch": "retraining", "text": f"job {job.id} failed: {job.error}", "outcome_seq": None}
        | {"changed_at": _text(job.market_time)}
        for job in jobs
    ]


def _parity(heartbeats: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Return the alarm of served rows that are not what the bars say; see `tradeloop.monitoring.parity`."""
    differs = [beat for beat in heartbeats if beat["component"] == "parity" and beat["state"] == "differs"]
    return [
        {"watch": "parity", "text": beat["detail"], "outcome_seq": None, "changed_at": beat["market_time"]}
        for beat in differs
    ]


def _heartbeats(connection: Connection, market: str) -> list[Entry]:
    table = HeartbeatRow.__table__
    now = datetime.now(UTC)
    found = []
    for row in connection.execute(select(table).where(table.c.market == market).order_by(table.c.component)).mappings():
        age = (now - row["wall_time"]).total_seconds()
        found.append({**_plain(row), "age_seconds": round(age, 3)})
    return found


def _errors(connection: Connection, market: str) -> list[Entry]:
    table = ErrorRow.__table__
    names = ("component", "kind", "message", "count", "first_at", "last_at")
    query = select(*(table.c[name] for name in names)).where(table.c.market == market)
    return _all(connection, query.order_by(table.c.last_at.desc()).limit(_NEWEST))


def _page(
    connection: Connection, stream: str, table: Any, market: str, seen: int, *, limit: int, newest: bool
) -> list[Entry]:
    """Return up to `limit` rows after number `seen`, the newest or the oldest of them, oldest first."""
    order = table.c.seq.desc() if newest else table.c.seq
    query = select(table).where(table.c.market == market, table.c.seq > seen).order_by(order).limit(limit)
    rows = [{"stream": stream, "time": row.get("wall_time") or row["time"], **row} for row in _all(connection, query)]
    return rows[::-1] if newest else rows


def _ends(pages: Sequence[Sequence[Entry]]) -> list[int]:
    return [int(page[-1]["seq"]) if page else 0 for page in pages]


def _all(connection: Connection, query: Any) -> list[Entry]:
    return [_plain(row) for row in connection.execute(query).mappings()]


def _facts(known: Mapping[str, Any]) -> Entry:
    return {
        "schema_hash": known.get("schema_hash"),
        "train_end": _text(known.get("train_end")),
        "size": known.get("size"),
        "metrics": known.get("metrics"),
    }


def _plain(row: Mapping[Any, Any]) -> Entry:
    return {str(name): _text(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
