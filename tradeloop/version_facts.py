"""What does not change about a version: the schema, size, metrics and manifest of its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, insert, select

from tradeloop.state.tables import ModelVersionRow

if TYPE_CHECKING:
    from tradeloop.bundle import Bundle

_TABLE = ModelVersionRow.__table__


@dataclass(frozen=True)
class VersionFacts:
    """Facts of one bundle; `size` is that of its files together, in bytes."""

    schema_hash: str
    train_end: datetime
    size: int
    metrics: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return the facts of a bundle."""
        manifest = bundle.manifest
        return cls(
            schema_hash=bundle.schema.hash,
            train_end=manifest.train_end,
            size=sum(entry.size for entry in manifest.files.values()),
            metrics=dict(bundle.metrics),
            manifest=manifest.model_dump(mode="json"),
        )

    @property
    def gate_report(self) -> str | None:
        """SHA-256 of the gate's report, the evidence of a promotion."""
        entry = self.manifest.get("files", {}).get("gate.json", {})
        return str(entry["sha256"]) if "sha256" in entry else None


def write_facts(connection: Connection, market: str, model: str, *, version: str, facts: VersionFacts) -> None:
    """Write the facts of a version unless they are there; the caller holds the market's lock."""
    known = select(_TABLE.c.model).where(_TABLE.c.market == market, _TABLE.c.model == model)
    if connection.execute(known).first() is None:
        row = {**vars(facts), "metrics": dict(facts.metrics), "manifest": dict(facts.manifest)}
        row |= {"market": market, "model": model, "version": version, "recorded_at": datetime.now(UTC)}
        connection.execute(insert(ModelVersionRow).values(row))


def read_facts(connection: Connection, market: str) -> dict[str, VersionFacts]:
    """Return the facts of each version of a market, by bundle hash."""
    columns = (_TABLE.c.model, *(_TABLE.c[name] for name in VersionFacts.__dataclass_fields__))
    rows = connection.execute(select(*columns).where(_TABLE.c.market == market)).all()
    return {model: VersionFacts(*facts) for model, *facts in rows}
