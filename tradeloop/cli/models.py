"""Commands on the registry: what there is, what happened, what served; promote, roll back, stage and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.inspect import online_state
from tradeloop.cli.output import Json, actor, day_and_time, moment, opened, project, show_json, show_table
from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.lifecycle import SERVING, Lifecycle, ModelRecord
from tradeloop.registry import Change, Registry
from tradeloop.schema import Schema

if TYPE_CHECKING:
    from tradeloop.bundle import Bundle


class Mode(Enum):
    """How a challenger takes part (`tradeloop.routes.Mode`, as the command line needs it)."""

    shadow = "shadow"
    canary = "canary"
    ab = "ab"


Version = Annotated[str, typer.Argument(help="A version, a hash or at least four digits of it.")]
Reason = Annotated[str, typer.Option(help="Goes into the registry's event.")]


def models(as_json: Json = False) -> None:
    """List the registered models, where each stands, and which of the questions it answers."""
    layout, params = project()
    with opened(layout, params) as (_, registry):
        state = registry.state()
    if as_json:
        show_json([record.to_dict() | {"route": _route(state, record)} for record in state.records.values()])
        return
    rows = [
        (r.version, r.state, _part(state, r), day_and_time(r.since), r.actor, r.reason) for r in state.records.values()
    ]
    show_table(("version", "state", "part", "since (UTC)", "by", "reason"), rows, title=f"models of {params.market}")


def served(
    symbol: Annotated[str, typer.Argument(help="A symbol of the market.")],
    time: Annotated[str, typer.Argument(help="A time with its UTC offset, as 2013-02-28T21:00:00Z.")],
    market: Annotated[bool, typer.Option("--market", help="TIME is the market's, not the wall's.")] = False,
    bar: Annotated[str | None, typer.Option(help="Time of the bar asked about: A/B arms are drawn by it.")] = None,
    as_json: Json = False,
) -> None:
    """Show which model answered for a symbol at a time; exit status 1 if none did."""
    layout, params = project()
    at, feature_time = moment(time, "TIME"), moment(bar, "--bar") if bar else None
    with opened(layout, params) as (_, registry):
        record = registry.served(symbol, at, market=market, feature_time=feature_time)
    if as_json:
        show_json(record.to_dict() if record else None)
    elif record is None:
        print(f"nothing served {symbol} at {at.isoformat()}")
    else:
        print(f"{record.version} ({record.state}) since {day_and_time(record.since)} UTC: {record.reason}")
    if record is None:
        raise typer.Exit(1)


def events(as_json: Json = False) -> None:
    """List everything that happened to the models, oldest first."""
    layout, params = project()
    with opened(layout, params) as (_, registry):
        history = registry.events()
    if as_json:
        show_json([event.to_dict() for event in history])
        return
    rows = [
        (e.seq, day_and_time(e.time), e.kind, e.version, (e.previous or "–")[:12], e.actor, e.reason) for e in history
    ]
    show_table(
        ("#", "time (UTC)", "event", "version", "left", "by", "reason"), rows, title=f"events of {params.market}"
    )


def promote(
    version: Version,
    reason: Reason = "by hand",
    force: Annotated[bool, typer.Option(help="Promote even a version that was rolled back.")] = False,
    as_json: Json = False,
) -> None:
    """Make a registered model the champion, once its bundle is verified; running services swap to it by themselves."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.serving.champion import promote_verified

    layout, params = project()
    with opened(layout, params) as (_, registry):
        load, check = BundleStore(layout, params).get, _held(layout, params)
        change, _ = promote_verified(registry, load, version, actor=actor(), reason=reason, force=force, check=check)
    _show(change, as_json, "is the champion")


def rollback(
    to: Annotated[str | None, typer.Option(help="The former champion to go back to; by default the last one.")] = None,
    reason: Reason = "by hand",
    as_json: Json = False,
) -> None:
    """Go back to a former champion, once its bundle is verified; running services swap to it by themselves."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.serving.champion import roll_back_verified

    layout, params = project()
    with opened(layout, params) as (_, registry):
        change, _ = roll_back_verified(registry, BundleStore(layout, params).get, to, actor=actor(), reason=reason)
    _show(change, as_json, "is the champion again")


def stage(
    version: Version,
    mode: Annotated[Mode, typer.Option(help="shadow watches, canary answers for symbols, ab for bars.")] = Mode.shadow,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of all questions; 0 for a shadow.")] = 0.0,
    reason: Reason = "by hand",
    as_json: Json = False,
) -> None:
    """Make a model a challenger, or change how it takes part, once its bundle is verified."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.promotion import promotion_evidence

    layout, params = project()
    with opened(layout, params) as (_, registry):
        bundle = BundleStore(layout, params).get(registry.find(version).hash)
        _held(layout, params)(bundle)
        evidence = promotion_evidence(bundle)
        change = registry.stage(
            bundle.hash, mode=mode.value, share=share, actor=actor(), reason=reason, evidence=evidence
        )
    _say(change, as_json, f"is a challenger, {mode.value}" + (f" of {share:.0%}" if share else ""))


def unstage(version: Version, reason: Reason = "by hand", as_json: Json = False) -> None:
    """End a challenger's part."""
    with _registry() as registry:
        change = registry.unstage(version, actor=actor(), reason=reason)
    _say(change, as_json, "is no challenger any more")


def demote(version: Version, reason: Reason = "by hand", as_json: Json = False) -> None:
    """Take a challenger, or the champion, out of its part; the champion before it serves again."""
    with _registry() as registry:
        change = registry.demote(version, actor=actor(), reason=reason)
    _say(change, as_json, "is demoted")


def quarantine(version: Version, reason: Reason = "by hand", as_json: Json = False) -> None:
    """Withdraw a model for good: it never serves again."""
    with _registry() as registry:
        change = registry.quarantine(version, actor=actor(), reason=reason)
    _say(change, as_json, "is quarantined")


def archive(
    version: Version,
    undo: Annotated[bool, typer.Option("--undo", help="Take it out of the archive; its bundle must be there.")] = False,
    reason: Reason = "by hand",
    as_json: Json = False,
) -> None:
    """Put a model away that takes no part, or take it out again."""
    from tradeloop.bundle_store import BundleStore

    layout, params = project()
    with opened(layout, params) as (_, registry):
        if undo:
            BundleStore(layout, params).get(registry.find(version).hash)
            change = registry.unarchive(version, actor=actor(), reason=reason)
        else:
            change = registry.archive(version, actor=actor(), reason=reason)
    _say(change, as_json, "is out of the archive" if undo else "is archived")


def _held(layout: Layout, params: Params) -> Callable[[Bundle], None]:
    """Return what refuses a bundle whose features the online store does not hold."""
    from tradeloop.promotion import require_schema

    path = layout.store / "schema.json"
    current = Schema.load(path) if path.is_file() else None

    def check(bundle: Bundle) -> None:
        require_schema(bundle, current=current, holds=lambda s: online_state(layout, params, s).symbols > 0)

    return check


@contextmanager
def _registry() -> Iterator[Registry]:
    layout, params = project()
    with opened(layout, params) as (_, registry):
        yield registry


def _route(state: Lifecycle, record: ModelRecord) -> dict[str, Any] | None:
    route = state.route(record.hash)
    return route.to_dict() if route else None


def _part(state: Lifecycle, record: ModelRecord) -> str | None:
    """Return how a version takes part, in words."""
    if record.state in SERVING:
        left = 1.0 - sum(route.share for route in state.routes)
        return "champion" + (f", {left:.0%}" if left < 1 else "")
    route = state.route(record.hash)
    if route is None:
        return None
    return route.mode + (f", {route.share:.0%}" if route.share else "")


def _say(change: Change, as_json: bool, what: str) -> None:
    """Print where the version that a command named stands now."""
    record, champion = change.record, change.champion
    if as_json:
        content = {"model": record.to_dict(), "champion": champion.to_dict() if champion else None}
        show_json(content | {"changed": change.changed})
    elif not change.changed:
        print(f"{record.version}: nothing to do, it is {record.state}")
    else:
        new = f"; {champion.version} is the champion again" if change.previous and champion else ""
        print(f"{record.version} {what}{new}")


def _show(change: Change, as_json: bool, what: str) -> None:
    record, previous = change.record, change.previous
    if as_json:
        content: dict[str, Any] = {"champion": record.to_dict(), "changed": change.changed}
        show_json({**content, "previous": previous.to_dict() if previous else None})
    elif not change.changed:
        print(f"{record.version} is the champion already")
    else:
        print(f"{record.version} {what}" + (f", in place of {previous.version}" if previous else ""))
