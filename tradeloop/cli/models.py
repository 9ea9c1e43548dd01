"""Commands on the registry: what there is, what happened, promote, roll back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tradeloop.cli.output import Json, actor, day_and_time, opened, project, show_json, show_table
from tradeloop.registry import Change

Reason = Annotated[str, typer.Option(help="Goes into the registry's event.")]


def models(as_json: Json = False) -> None:
    """List the registered models and where each stands."""
    layout, params = project()
    with opened(layout, params) as (_, registry):
        records = registry.models()
    if as_json:
        show_json([record.to_dict() for record in records])
        return
    rows = [(r.version, r.state, day_and_time(r.since), r.actor, r.reason) for r in records]
    show_table(("version", "state", "since (UTC)", "by", "reason"), rows, title=f"models of {params.market}")


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
    version: Annotated[str, typer.Argument(help="A version, a hash or at least four digits of it.")],
    reason: Reason = "by hand",
    force: Annotated[bool, typer.Option(help="Promote even a version that was rolled back.")] = False,
    as_json: Json = False,
) -> None:
    """Make a registered model the champion, once its bundle is verified; running services swap to it by themselves."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.serving.champion import promote_verified

    layout, params = project()
    with opened(layout, params) as (_, registry):
        change, _ = promote_verified(
            registry, BundleStore(layout, params).get, version, actor=actor(), reason=reason, force=force
        )
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


def _show(change: Change, as_json: bool, what: str) -> None:
    record, previous = change.record, change.previous
    if as_json:
        content: dict[str, Any] = {"champion": record.to_dict(), "changed": change.changed}
        show_json({**content, "previous": previous.to_dict() if previous else None})
    elif not change.changed:
        print(f"{record.version} is the champion already")
    else:
        print(f"{record.version} {what}" + (f", in place of {previous.version}" if previous else ""))
