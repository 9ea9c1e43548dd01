"""Commands that look: status, the gate's verdict, the features, the version."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import func, select

from tradeloop.cli.output import Json, day_and_time, opened, project, show_facts, show_json, show_table
from tradeloop.config import Params
from tradeloop.errors import DataError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.database import Database
from tradeloop.state.feast_views import FEATURE_TIME, PROJECT
from tradeloop.state.tables import PredictionRow

_NEWEST = 1000


@dataclass(frozen=True)
class OnlineState:
    """What the online store holds of a schema: symbols with a row, and the oldest and newest row's time."""

    symbols: int
    oldest: datetime | None
    newest: datetime | None


def status(as_json: Json = False) -> None:
    """Show market, clock, champion, features, database, the last gate verdict and the predictions so far."""
    layout, params = project()
    with opened(layout, params) as (database, registry):
        champion = registry.champion()
        predictions = _predictions(database, params.market)
        name = database.name
    schema = _schema(layout)
    online = online_state(layout, params, schema) if schema else None
    gate_report = _read_gate(layout)
    verdict = str(gate_report["verdict"]) if gate_report else None
    if as_json:
        show_json(
            {
                "market": params.market,
                "clock": params.active.clock,
                "champion": champion.to_dict() if champion else None,
                "schema": {"hash": schema.hash, "features": len(schema)} if schema else None,
                "online_store": {"type": params.serving.online_store, **(asdict(online) if online else {})},
                "database": name,
                "gate": verdict,
                "predictions": predictions,
            }
        )
        return
    symbols = len(params.active.symbols)
    facts: list[tuple[str, Any]] = [("market", f"{params.market}, {symbols} symbols, {params.active.clock} clock")]
    if champion is None:
        facts.append(("champion", "none: run `make repro`, or `tradeloop promote VERSION`"))
    else:
        facts.append(("champion", f"{champion.version} since {day_and_time(champion.since)} UTC: {champion.reason}"))
        facts.append(("", champion.hash))
    facts.append(("gate", f"{verdict}: see `tradeloop gate`" if verdict else "not run yet"))
    facts.append(("schema", f"{schema.hash[:12]}, {len(schema)} features" if schema else "none: run `make repro`"))
    facts.append(("online store", _online_text(online, params)))
    facts.append(("database", name))
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(predictions["newest"].items()))
    facts.append(("predictions", f"{predictions['total']}" + (f"; the newest: {verdicts}" if verdicts else "")))
    show_facts(facts)


def gate(as_json: Json = False) -> None:
    """Show the gate's verdict on the last model with every check; exit status 1 unless it passed."""
    layout, _ = project()
    report = _read_gate(layout)
    if report is None:
        raise DataError(f"{layout.reports / 'gate.json'} is missing: run `dvc repro gate` first")
    if as_json:
        show_json(report)
    else:
        rows = [
            ("ok" if reason.get("ok") else "FAIL", reason.get("target"), reason.get("check"), reason.get("text"))
            for reason in report.get("reasons", [])
        ]
        show_table(("", "target", "check", "why"), rows, title=f"gate: {report['verdict']}")
        for target, found in report.get("targets", {}).items():
            proven = "edge proven" if found.get("edge_proven") else "no proven edge: served as information only"
            print(f"{target}: {proven}")
    if report["verdict"] != "pass":
        raise typer.Exit(1)


def features(
    everything: Annotated[bool, typer.Option("--all", help="All registered features, not only this market's.")] = False,
    as_json: Json = False,
) -> None:
    """List the features: name, family, lookback in bars and definition."""
    from tradeloop.features import describe, registered, specs_for

    _, params = project()
    if not as_json:
        print(describe(None if everything else params))
        return
    specs = registered(context=["series"]) if everything else specs_for(params)
    show_json([{"name": s.name, "family": s.family, "lookback": s.lookback, "definition": s.doc} for s in specs])


def version(as_json: Json = False) -> None:
    """Show the installed version."""
    from importlib.metadata import version as installed

    number = installed("tradeloop")
    if as_json:
        show_json({"version": number})
    else:
        print(f"tradeloop {number}")


def online_state(layout: Layout, params: Params, schema: Schema) -> OnlineState:
    """Return what the online store holds of `schema`.

    Feast's SQLite file is read by SQL, which saves the five seconds that importing Feast takes.

    Raises
    ------
    StoreError
        Redis does not answer.
    """
    if params.serving.online_store == "sqlite":
        return _sqlite_state(layout.live / "feast" / "online.db", schema)
    from tradeloop.state.online import OnlineStore

    store = OnlineStore(layout, params)
    try:
        rows = store.read(params.active.symbols, schema)
    finally:
        store.close()
    times = [moment.replace(tzinfo=UTC) for moment in rows.feature_time[rows.found].astype(datetime)]
    return OnlineState(len(times), min(times, default=None), max(times, default=None))


def _sqlite_state(path: Path, schema: Schema) -> OnlineState:
    if not path.is_file():
        return OnlineState(0, None, None)
    query = (
        f'SELECT count(*), min(event_ts), max(event_ts) FROM "{PROJECT}_{schema.vector_view}" WHERE feature_name = ?'
    )
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        count, oldest, newest = connection.execute(query, (FEATURE_TIME,)).fetchone()
    except sqlite3.Error:  # no table yet, or no database at all: nothing that could be served
        return OnlineState(0, None, None)
    finally:
        connection.close()
    return OnlineState(count, _moment(oldest), _moment(newest))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _online_text(online: OnlineState | None, params: Params) -> str:
    kind, expected = params.serving.online_store, len(params.active.symbols)
    if online is None or not online.symbols:
        return f"{kind}: empty; `tradeloop publish` fills it"
    assert online.oldest is not None and online.newest is not None
    text = f"{kind}: {online.symbols} of {expected} symbols, newest {day_and_time(online.newest)} UTC"
    now = datetime.now(UTC) if params.active.clock == "live" else online.newest
    return (
        f"{text}, oldest features {(now - online.oldest).total_seconds():.0f} s old on the {params.active.clock} clock"
    )


def _predictions(database: Database, market: str) -> dict[str, Any]:
    """Return how many predictions were logged, and the verdicts of the newest ones: a count of all would read all."""
    table = PredictionRow.__table__
    newest = select(table.c.market, table.c.verdict).order_by(table.c.id.desc()).limit(_NEWEST).subquery()
    recent = select(newest.c.verdict).where(newest.c.market == market)
    with database.read() as connection:
        total = connection.execute(select(func.count()).where(table.c.market == market)).scalar() or 0
        verdicts = Counter(connection.execute(recent).scalars())
    return {"total": int(total), "newest": dict(verdicts)}


def _schema(layout: Layout) -> Schema | None:
    path = layout.store / "schema.json"
    return Schema.load(path) if path.is_file() else None


def _read_gate(layout: Layout) -> dict[str, Any] | None:
    path = layout.reports / "gate.json"
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(report, dict) or "verdict" not in report:
        raise DataError(f"{path} has no verdict")
    return report
