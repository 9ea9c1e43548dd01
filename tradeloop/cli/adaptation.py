"""Commands on the adaptation between retrainings: what was learned, what applies, and taking it back by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from tradeloop.cli.output import Json, actor, day_and_time, opened, project, show_json, show_table
from tradeloop.errors import RegistryError
from tradeloop.registry import Registry

Model = Annotated[str | None, typer.Option(help="A version or a hash; by default the champion.")]


def adaptations(
    model: Model = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many entries.")] = 20,
    as_json: Json = False,
) -> None:
    """List what the loop learned of a model between retrainings, the newest first, and which of it applies."""
    from tradeloop.monitoring.overview import adaptations as ask

    layout, params = project()
    with opened(layout, params) as (database, registry):
        found = ask(database, params.market, _hash(registry, model), limit=limit)
    if as_json:
        show_json(found)
        return
    rows = [
        ("*" if e["id"] == found["applied"] else "", e["id"], e["kind"], day_and_time(e["market_time"]), e["reason"])
        for e in found["entries"]
    ]
    title = f"adaptations of {found['model'][:12]}" + (", held by hand: as packaged" if found["held"] else "")
    show_table(("applies", "id", "kind", "market time (UTC)", "reason"), rows, title=title)


def adapt(
    model: Model = None,
    to: Annotated[str | None, typer.Option(help="Go back to this snapshot, by its id.")] = None,
    packaged: Annotated[bool, typer.Option("--packaged", help="Go back to the model as it was packaged.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it as packaged, whatever the loop learns.")] = False,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    reason: Annotated[str, typer.Option(help="Goes on the record.")] = "by hand",
    as_json: Json = False,
) -> None:
    """Take back what was learned of a model, hold it as packaged, or release it; running services follow."""
    from tradeloop.state.adaptations import AdaptationStore

    if [to is not None, packaged, hold, release].count(True) != 1:
        raise typer.BadParameter("give one of --to ID, --packaged, --hold and --release")
    layout, params = project()
    with opened(layout, params) as (database, registry):
        store, chosen, why = AdaptationStore(database, params.market), _hash(registry, model), f"{actor()}: {reason}"
        if hold:
            changed = store.hold(chosen, reason=why)
        elif release:
            changed = store.release(chosen, reason=why)
        else:
            changed = store.rollback(chosen, to, reason=why)
        applied = store.newest(chosen)
    now = applied[0] if applied else None
    if as_json:
        show_json({"model": chosen, "changed": changed, "applied": now})
    else:
        state = f"adaptation {now} applies" if now else "it serves as packaged"
        print(f"{chosen[:12]}: {state}" + ("" if changed else "; nothing changed"))


def _hash(registry: Registry, name: str | None) -> str:
    if name is not None:
        return registry.find(name).hash
    champion = registry.champion()
    if champion is None:
        raise RegistryError("no model is champion: name one with --model")
    return champion.hash
