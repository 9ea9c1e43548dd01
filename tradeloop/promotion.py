"""What is asked of a bundle before it is promoted, by hand, over HTTP or by the loop, and what the event then says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tradeloop.bundle import Bundle
from tradeloop.errors import SchemaMismatch
from tradeloop.schema import Schema

_SHOWN = 5


def require_schema(bundle: Bundle, *, current: Schema | None, holds: Callable[[Schema], bool]) -> None:
    """Refuse a bundle whose features the online store does not hold.

    Parameters
    ----------
    current
        The schema that the features stage writes now, or None where that is not known.
    holds
        Whether the online store has rows of a schema; asked only about one that is not `current`.

    Raises
    ------
    SchemaMismatch
        Names the features by which the bundle differs from `current`.
    """
    schema = bundle.schema
    if (current is not None and current.hash == schema.hash) or holds(schema):
        return
    what = f"bundle {bundle.version} has feature schema {schema.hash[:12]}, of which the online store holds no rows"
    raise SchemaMismatch(what if current is None else f"{what}: {difference(schema, current)}")


def difference(schema: Schema, current: Schema) -> str:
    """Return by which features a schema differs from the current one, in words."""
    added = [name for name in schema.names if name not in current.names]
    removed = [name for name in current.names if name not in schema.names]
    parts = [f"it needs {_few(added)}" if added else "", f"it does not know {_few(removed)}" if removed else ""]
    return " and ".join(filter(None, parts)) or "the names are the same, their order or definitions are not"


def promotion_evidence(bundle: Bundle) -> dict[str, Any]:
    """Return what a promotion's event says of the bundle: the SHA-256 of its gate report, and the verdict."""
    return {"gate_report": bundle.manifest.files["gate.json"].sha256, "verdict": bundle.gate.get("verdict")}


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
