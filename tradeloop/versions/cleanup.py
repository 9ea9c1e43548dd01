"""Deleting what nobody needs: bundles and Bentos of versions that are neither good, nor new, nor ever answered.

Kept are the champion, challengers, every version that ever answered (as champion, canary or A/B arm: its predictions
must stay replayable), the best by a metric and the newest. The rest is archived, then deleted; after a crash in between
the next cleanup deletes what was archived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tradeloop.bundle_store import BundleStore
from tradeloop.errors import RegistryError
from tradeloop.lifecycle import SERVING, Lifecycle, ModelEvent, ModelRecord
from tradeloop.registry import Registry
from tradeloop.version_facts import VersionFacts
from tradeloop.versions.compare import direction, metric_of, names_of


@dataclass(frozen=True)
class Item:
    """What becomes of one version and why; `size` is what lies in the store, in bytes."""

    hash: str
    version: str
    state: str
    keep: bool
    reason: str
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def plan(registry: Registry, store: BundleStore, *, metric: str, best: int, newest: int) -> list[Item]:
    """Return what would become of every version, in order of registration, but for those deleted already.

    Parameters
    ----------
    metric
        Dotted name, as ``direction.auc``; its own direction says what is best.
    best, newest
        How many to keep for the one and for the other reason; quarantined versions count for neither.

    Raises
    ------
    RegistryError
        No version has the metric, or it has no direction.
    """
    events = registry.events()
    state = Lifecycle.of(events)
    facts = registry.facts()
    sound = [record for record in state.records.values() if record.state not in ("quarantined", "archived")]
    leaders = _best(sound, facts, metric, best)
    latest = {record.hash for record in sound[max(0, len(sound) - newest) :]} if newest else set()
    answered = _answered(events)
    items = []
    for record in state.records.values():
        size = store.size(record.hash)
        if not size and record.state in ("archived", "quarantined"):
            continue
        reasons = {
            "the champion": record.state in SERVING,
            "a challenger": record.state == "staging",
            "it has answered": record.hash in answered,
            f"among the best {best} by {metric}": record.hash in leaders,
            f"among the newest {newest}": record.hash in latest,
        }
        kept = [reason for reason, holds in reasons.items() if holds]
        why = "; ".join(kept) if kept else _unneeded(record)
        items.append(Item(record.hash, record.version, record.state, bool(kept), why, size))
    return items


def clean(registry: Registry, store: BundleStore, items: list[Item], *, actor: str) -> list[Item]:
    """Archive and delete what `plan` would not keep; return what was deleted.

    A version that became champion or challenger since the plan was made is left alone.
    """
    deleted = []
    for item in items:
        if item.keep:
            continue
        try:
            registry.archive(item.hash, actor=actor, reason=f"cleanup: {item.reason}")
        except RegistryError:
            continue
        store.delete(item.hash)
        deleted.append(item)
    return deleted


def _best(records: list[ModelRecord], facts: Mapping[str, VersionFacts], metric: str, count: int) -> set[str]:
    if not count:
        return set()
    measured = {record.hash: facts[record.hash].metrics for record in records if record.hash in facts}
    sign = direction(metric)
    scores = {model: score for model, found in measured.items() if (score := metric_of(found, metric)) is not None}
    if records and (not sign or not scores):
        known = ", ".join(names_of(list(measured.values()))) or "none"
        raise RegistryError(f"no version can be the best by {metric!r} (known: {known})")
    return set(sorted(scores, key=lambda model: -sign * scores[model])[:count])


def _answered(events: list[ModelEvent]) -> set[str]:
    """Return the versions whose answers a bot has had."""
    crowned = {event.model for event in events if event.kind in ("promoted", "rolled_back")}
    return crowned | {event.model for event in events if event.kind == "staged" and event.mode in ("canary", "ab")}


def _unneeded(record: ModelRecord) -> str:
    if record.state == "archived":
        return "archived already"
    return "withdrawn" if record.state == "quarantined" else "neither good, nor new, nor ever asked"
