"""Commands on whole versions: compare, clean up, export and import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeloop.cli.output import Json, actor, opened, project, show_json, show_table

if TYPE_CHECKING:
    from tradeloop.versions.compare import Comparison, Value

Version = Annotated[str, typer.Argument(help="A version, a hash or at least four digits of it.")]

_MIB = 1 << 20


def compare(a: Version, b: Version, as_json: Json = False) -> None:
    """Show two models side by side: metrics with intervals, features, parameters, size and latency, measured now."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.versions.compare import compare as ask

    layout, params = project()
    with opened(layout, params) as (database, registry):
        found = ask(registry, database, BundleStore(layout, params), a=a, b=b)
    if as_json:
        show_json(found.to_dict())
    else:
        _show_comparison(found)


def cleanup(
    metric: Annotated[str, typer.Option(help="What is best: a metric by its dotted name.")] = "direction.auc",
    best: Annotated[int, typer.Option(min=0, help="Keep so many of the best.")] = 3,
    newest: Annotated[int, typer.Option(min=0, help="Keep so many of the newest.")] = 5,
    yes: Annotated[bool, typer.Option("--yes", help="Really archive and delete.")] = False,
    as_json: Json = False,
) -> None:
    """Show which models would be archived and deleted, and with --yes do it; whatever ever answered is kept."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.versions.cleanup import clean, plan

    layout, params = project()
    store = BundleStore(layout, params)
    with opened(layout, params) as (_, registry):
        items = plan(registry, store, metric=metric, best=best, newest=newest)
        deleted = clean(registry, store, items, actor=actor()) if yes else []
    if as_json:
        show_json({"plan": [item.to_dict() for item in items], "deleted": [item.hash for item in deleted]})
        return
    rows = [
        (item.version, item.state, "keep" if item.keep else "delete", f"{item.size / _MIB:.1f}", item.reason)
        for item in items
    ]
    show_table(("version", "state", "", "MiB", "why"), rows, title=f"models of {params.market}")
    size = sum(item.size for item in (deleted if yes else items) if not item.keep) / _MIB
    if yes:
        print(f"{len(deleted)} deleted, {size:.1f} MiB")
    else:
        print(f"{sum(not item.keep for item in items)} would be deleted, {size:.1f} MiB: --yes does it")


def export(
    version: Version,
    file: Annotated[Path, typer.Argument(help="The file to write, a tar.")],
    as_json: Json = False,
) -> None:
    """Write a model to one file: its bundle, its Bento and what the registry says of it."""
    from tradeloop.bundle_store import BundleStore
    from tradeloop.versions.transfer import export as write

    layout, params = project()
    with opened(layout, params) as (_, registry):
        digest = write(registry, BundleStore(layout, params), version, file)
    if as_json:
        show_json({"file": str(file), "sha256": digest})
    else:
        print(f"{file} written, SHA-256 {digest}")


def bring_in(
    file: Annotated[Path, typer.Argument(help="A file that `tradeloop export` wrote.")],
    sha256: Annotated[str | None, typer.Option(help="What the file must hash to.")] = None,
    as_json: Json = False,
) -> None:
    """Store and register the model in a file; what was quarantined stays so."""
    from tradeloop.versions.transfer import bring_in as read

    layout, params = project()
    with opened(layout, params) as (_, registry):
        found = read(registry, layout, params, file, actor=actor(), sha256=sha256)
    if as_json:
        show_json({"model": found.record.to_dict(), "bento": found.bento})
    else:
        print(f"{found.record.version} is here, in {found.record.state}" + (", with its Bento" if found.bento else ""))


def _show_comparison(found: Comparison) -> None:
    a, b = found.a.version, found.b.version
    mark = {"a": a, "b": b}
    metrics = [(pair.name, _value(pair.a), _value(pair.b), mark.get(pair.better or "")) for pair in found.metrics]
    show_table(("metric", a, b, "better"), metrics, title=f"{a} ({found.a.state}) and {b} ({found.b.state})")
    rows: list[tuple[Any, ...]] = [("size, MiB", *(_mib(size) for size in found.size))]
    for name in ("p50", "p99"):
        rows.append((f"latency {name}, µs a row", *(_micros(side, name) for side in found.latency)))
    rows.append(("features only here", ", ".join(found.removed) or None, ", ".join(found.added) or None))
    rows += [(name, *values) for name, values in found.differences.items()]
    show_table(("", a, b), rows, title="what else differs")


def _value(value: Value) -> str | None:
    if value.value is None:
        return None
    text = f"{value.value:.4g}"
    return text if value.low is None or value.high is None else f"{text} [{value.low:.4g}, {value.high:.4g}]"


def _mib(size: int | None) -> str | None:
    return None if size is None else f"{size / _MIB:.2f}"


def _micros(side: Any, name: str) -> str | None:
    return None if side is None else f"{getattr(side, name):.0f}"
