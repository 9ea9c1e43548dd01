"""Commands on the loop: performance, experiments, jobs, decisions, and the wish to retrain; twins of /api/ml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.inspect import market_now
from tradeloop.cli.output import Json, actor, day_and_time, moment, opened, project, show_json, show_table
from tradeloop.config import Params
from tradeloop.errors import BundleError, StoreError
from tradeloop.layout import Layout

if TYPE_CHECKING:
    from tradeloop.state.job import Job

Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many entries.")]

_METRICS = ("accuracy", "auc", "brier", "ic", "range_r2", "range_coverage", "sharpe")


def performance(
    symbol: Annotated[str | None, typer.Option(help="One symbol.")] = None,
    model: Annotated[str | None, typer.Option(help="A version or a hash.")] = None,
    arm: Annotated[str | None, typer.Option(help="champion, shadow, canary, ab or *.")] = None,
    regime: Annotated[str | None, typer.Option(help="low, normal, high, unknown or *.")] = None,
    window: Annotated[str | None, typer.Option(help="n:200, t:30d, ...")] = None,
    since: Annotated[str | None, typer.Option(help="Every window from an ISO time (UTC offset) on.")] = None,
    limit: Limit = 1000,
    as_json: Json = False,
) -> None:
    """Show live performance: the newest windows, ``*`` standing for all, and what to expect before outcomes come."""
    from tradeloop.monitoring.queries import performance as ask

    layout, params = project()
    filters: dict[str, Any] = {"symbol": symbol, "model": model, "arm": arm, "regime": regime, "window": window}
    filters |= {"since": moment(since, "--since") if since else None, "limit": limit}
    with opened(layout, params) as (database, _):
        windows = ask(database, params.market, **filters)
    expected = _expected(layout, params)
    found = {"market": params.market, "expected": expected, "windows": windows}
    if as_json:
        show_json(found)
        return
    rows = [
        (
            *(w["model"][:12], w["symbol"], w["regime"], w["arm"], w["window"], day_and_time(w["as_of"]), w["count"]),
            *(_number(w["metrics"].get(name)) for name in _METRICS),
        )
        for w in windows
    ]
    columns = ("model", "symbol", "regime", "arm", "window", "as of (UTC)", "n", *_METRICS)
    show_table(columns, rows, title=f"live performance on {params.market}")
    if expected:
        print(_expectation(expected))


def _expected(layout: Layout, params: Params) -> dict[str, Any] | None:
    """Return what to expect of the champion's open predictions; None without a champion, or with a broken one."""
    from tradeloop.champion import champion_bundle
    from tradeloop.monitoring.cbpe import expected_of_open

    try:
        bundle = champion_bundle(layout, params)
    except BundleError:
        return None
    if bundle is None:
        return None
    with opened(layout, params) as (database, _):
        return expected_of_open(database, params.market, bundle.hash, bundle.reference)


def _expectation(expected: Mapping[str, Any]) -> str:
    parts = []
    for name in ("accuracy", "log_loss", "auc"):
        if found := expected[name]:
            holdout = f" (holdout {found['expected']:.3f})" if found["expected"] is not None else ""
            text = f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]{holdout}"
            parts.append(f"{name.replace('_', ' ')} {text}")
    said = "; ".join(parts) or "none is open"
    return f"to expect of predictions without outcome, {expected['predictions']}: {said}\n({expected['assumption']})"


def experiments(
    limit: Limit = 20,
    job: Annotated[str | None, typer.Option(help="A job's id.")] = None,
    as_json: Json = False,
) -> None:
    """List the newest attempts at training, the last first."""
    from tradeloop.monitoring.overview import experiments as ask

    layout, params = project()
    with opened(layout, params) as (database, _):
        found = ask(database, params.market, limit=limit, job=job)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            *(day_and_time(e["started_at"]), e["state"], e["attempt"], e["job_id"], (e["model"] or "–")[:12]),
            *(e["verdict"], _number(e["cpu_seconds"]), _number(e["peak_mib"]), e["error"]),
        )
        for e in found["experiments"]
    ]
    columns = ("started (UTC)", "state", "attempt", "job", "model", "gate", "CPU s", "peak MiB", "error")
    show_table(columns, rows, title=f"experiments of {params.market}")


def retrain(
    reason: Annotated[str, typer.Option(help="Goes on the record.")] = "by hand",
    key: Annotated[str | None, typer.Option(help="The same key again is the same wish.")] = None,
    as_json: Json = False,
) -> None:
    """Ask for a retraining: it waits in the queue until the loop takes it."""
    from tradeloop.monitoring.asked import ask_retraining

    layout, params = project()
    now = market_now(layout, params)
    if now is None:
        raise StoreError("a replayed market's clock stands at its last bar, and the online store holds no bar")
    with opened(layout, params) as (database, _):
        job, created = ask_retraining(database, params, actor=actor(), reason=reason, market_time=now, key=key)
    if as_json:
        show_json({"job": job.to_dict(), "created": created})
    else:
        print(f"job {job.id} is queued" if created else f"this wish is job {job.id} already, {job.state}")


def jobs(limit: Limit = 20, as_json: Json = False) -> None:
    """List the retrainings that wait, that run, and the newest that ended."""
    from tradeloop.monitoring.overview import retraining

    layout, params = project()
    with opened(layout, params) as (database, _):
        found = retraining(database, params.market, limit=limit)
    if as_json:
        show_json(found)
        return
    listed: Sequence[Mapping[str, Any]] = [*found["running"], *found["queued"], *found["ended"]]
    rows = [
        (
            *(j["id"], j["state"], j["trigger"], j["priority"], f"{j['attempts']}/{j['max_attempts']}"),
            *(day_and_time(j["created_at"]), day_and_time(j["ended_at"]), j["error"] or j["reason"]),
        )
        for j in listed
    ]
    columns = ("job", "state", "trigger", "priority", "attempts", "asked (UTC)", "ended (UTC)", "why")
    show_table(columns, rows, title=f"jobs of {params.market}")


def cancel(
    job: Annotated[str, typer.Argument(help="A job's id, or the beginning of it.")],
    reason: Annotated[str, typer.Option(help="Goes on the record.")] = "by hand",
    as_json: Json = False,
) -> None:
    """Withdraw a retraining that waits or runs."""
    from tradeloop.monitoring.asked import cancel as ask

    layout, params = project()
    with opened(layout, params) as (database, _):
        found, changed = ask(database, params.market, job, actor=actor(), reason=reason)
    _show_job(found, changed, "cancelled", as_json=as_json)


def acknowledge(
    job: Annotated[str, typer.Argument(help="A failed job's id, or the beginning of it.")], as_json: Json = False
) -> None:
    """Note that a failed retraining is known of: it alarms no more, and the loop may try again."""
    from tradeloop.monitoring.asked import acknowledge as ask

    layout, params = project()
    with opened(layout, params) as (database, _):
        found, changed = ask(database, params.market, job, actor=actor())
    _show_job(found, changed, "acknowledged", as_json=as_json)


def _show_job(job: Job, changed: bool, done: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"job": job.to_dict(), "changed": changed})
    else:
        print(f"job {job.id} is {done}" if changed else f"job {job.id} was {done} already")


def decisions(
    limit: Limit = 20,
    kind: Annotated[str | None, typer.Option(help="A trigger's name, diagnosis, turn, ...")] = None,
    before: Annotated[int | None, typer.Option(help="The `next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List the newest decisions of the loop, those to do nothing too, the last first."""
    from tradeloop.monitoring.overview import decisions as ask

    layout, params = project()
    with opened(layout, params) as (database, _):
        found = ask(database, params.market, limit=limit, kind=kind, before=before)
    if as_json:
        show_json(found)
        return
    rows = [
        (d["seq"], day_and_time(d["market_time"]), d["kind"], d["decision"], d["reason"], d["job_id"])
        for d in found["decisions"]
    ]
    show_table(
        ("#", "market time (UTC)", "kind", "decision", "reason", "job"), rows, title=f"decisions on {params.market}"
    )


def _number(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None
