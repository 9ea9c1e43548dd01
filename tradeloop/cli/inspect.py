"""Commands that look: status, the gate's verdict, the features, the version."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import select

from tradeloop.cli.output import Json, day_and_time, opened, project, read_report, show_facts, show_json, show_table
from tradeloop.config import Params
from tradeloop.errors import DataError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.database import REVISION, Database
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
    """Show market, clock, models, features, database, predictions, jobs, alarms, heartbeats and the last decisions."""
    from tradeloop.monitoring.overview import status as overview

    layout, params = project()
    schema = _schema(layout)
    online = online_state(layout, params, schema) if schema else None
    gate_report = read_report(layout.reports / "gate.json", key="verdict")
    with opened(layout, params) as (database, _):
        found = overview(database, params.market, clock=params.active.clock, now=_now(params, online))
        found["verdicts"] = _verdicts(database, params.market)
        found |= {"database": database.name, "revision": REVISION}
    found["gate"] = str(gate_report["verdict"]) if gate_report else None
    found["schema"] = {"hash": schema.hash, "features": len(schema)} if schema else None
    found["online_store"] = {"type": params.serving.online_store, **(asdict(online) if online else {})}
    if as_json:
        show_json(found)
    else:
        market = f"{params.market}, {len(params.active.symbols)} symbols, {params.active.clock} clock"
        show_facts([("market", market), *_of_models(found), *_of_data(found, online, params), *_of_the_loop(found)])


def _of_models(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    champion = found["champion"]
    if champion is None:
        facts: list[tuple[str, Any]] = [("champion", "none: run `make repro`, or `tradeloop promote VERSION`")]
    else:
        flag = " (degraded)" if champion["state"] == "degraded" else ""
        since = f"{champion['version']}{flag} since {day_and_time(champion['since'])} UTC: {champion['reason']}"
        facts = [("champion", since), ("", champion["hash"])]
    for route in found["challengers"]:
        share = f", {route['share']:.0%} of the questions" if route["share"] else ""
        text = f"{route['version']}, {route['mode']}{share}, since {day_and_time(route['since'])} UTC"
        facts.append(("challenger", text))
    gate_text = f"{found['gate']}: see `tradeloop gate`" if found["gate"] else "not run yet"
    return [*facts, ("gate", gate_text)]


def _of_data(found: Mapping[str, Any], online: OnlineState | None, params: Params) -> list[tuple[str, Any]]:
    schema, predictions = found["schema"], found["predictions"]
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found["verdicts"].items()))
    ended = ", ".join(f"{predictions[name]} {name}" for name in ("resolved", "pending", "expired", "void"))
    return [
        ("schema", f"{schema['hash'][:12]}, {schema['features']} features" if schema else "none: run `make repro`"),
        ("online store", _online_text(online, params)),
        ("database", f"{found['database']}, revision {found['revision']}"),
        ("predictions", f"{predictions['total']}: {ended}" + (f"; the newest: {verdicts}" if verdicts else "")),
    ]


def _of_the_loop(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what the loop has to say, nothing as long as it never ran."""
    facts: list[tuple[str, Any]] = [("alarm", f"{alarm['watch']}: {alarm['text']}") for alarm in found["alarms"]]
    if found["diagnosis"]:
        facts.append(("diagnosis", f"{found['diagnosis']['remedy']}: {found['diagnosis']['reason']}"))
    if any(found["jobs"].values()):
        facts.append(("jobs", ", ".join(f"{count} {state}" for state, count in found["jobs"].items() if count)))
    for beat in found["heartbeats"]:
        seen = f"{beat['component']} {beat['state']}, seen {beat['age_seconds']:.0f} s ago: {beat['detail']}"
        facts.append(("heartbeat", seen))
    for one in found["decisions"]:
        facts.append(
            ("decision", f"{day_and_time(one['market_time'])} {one['kind']}, {one['decision']}: {one['reason']}")
        )
    for error in found["errors"]:
        times = f" ({error['count']} times)" if error["count"] > 1 else ""
        facts.append(("error", f"{day_and_time(error['last_at'])} {error['component']}: {error['message']}{times}"))
    return facts


def gate(as_json: Json = False) -> None:
    """Show the gate's verdict on the last model with every check; exit status 1 unless it passed."""
    layout, _ = project()
    report = read_report(layout.reports / "gate.json", key="verdict")
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
    """List the features, a definition a row: columns, lookback in bars, formula with its source, and where NaN."""
    from tradeloop.features.catalogue import definitions, entry, listed

    _, params = project()
    specs = listed(None if everything else params)
    if as_json:
        show_json([entry(spec) for spec in specs])
        return
    for family, rows in groupby(definitions(specs), key=lambda one: one.family):
        table = [(", ".join(one.columns), one.values, one.lookback, one.text, one.unknown) for one in rows]
        count = sum(spec.family == family for spec in specs)
        show_table(
            ("columns", "of", "lookback", "definition", "NaN after the warm-up"), table, title=f"{family}: {count}"
        )
    print(f"{len(specs)} columns; each is NaN in its first lookback - 1 bars")


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


def market_now(layout: Layout, params: Params) -> datetime | None:
    """Return the market's time: the wall's, or a replayed market's newest bar, None as long as there is none."""
    schema = _schema(layout)
    return _now(params, online_state(layout, params, schema) if schema else None)


def _now(params: Params, online: OnlineState | None) -> datetime | None:
    if params.active.clock == "live":
        return datetime.now(UTC)
    return None if online is None else online.newest


def _verdicts(database: Database, market: str) -> dict[str, int]:
    """Return the verdicts of the newest answers; a count of all would read all."""
    table = PredictionRow.__table__
    columns = (table.c.market, table.c.verdict, table.c.answered)
    newest = select(*columns).order_by(table.c.id.desc()).limit(_NEWEST).subquery()
    recent = select(newest.c.verdict).where(newest.c.market == market, newest.c.answered)
    with database.read() as connection:
        return dict(Counter(connection.execute(recent).scalars()))


def _schema(layout: Layout) -> Schema | None:
    path = layout.store / "schema.json"
    return Schema.load(path) if path.is_file() else None
