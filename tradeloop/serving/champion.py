"""Models in memory, and promotion and rollback that verify the bundle before the event is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tradeloop.bundle import Bundle
from tradeloop.errors import RegistryError
from tradeloop.predictor import Predictor
from tradeloop.promotion import promotion_evidence
from tradeloop.registry import Change, Registry
from tradeloop.schema import Schema

Source = Literal["registry", "bento"]


@dataclass(frozen=True)
class Loaded:
    """A model that can answer; requests hold on to the ones that they began with."""

    predictor: Predictor
    version: str
    source: Source = "registry"

    @property
    def bundle(self) -> Bundle:
        """The bundle behind it."""
        return self.predictor.bundle

    @property
    def hash(self) -> str:
        """The bundle's hash."""
        return self.bundle.hash

    @property
    def schema(self) -> Schema:
        """What the bundle's features are."""
        return self.bundle.schema

    def to_dict(self) -> dict[str, Any]:
        """Return what an answer says of its model."""
        return {"version": self.version, "hash": self.hash, "source": self.source}


@dataclass(frozen=True)
class Refusal:
    """A model that the registry names and that could not be loaded."""

    version: str
    hash: str
    reason: str
    at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return what GET /models says of it."""
        return {**vars(self), "at": self.at.isoformat()}


def promote_verified(
    registry: Registry,
    load: Callable[[str], Bundle],
    name: str,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    check: Callable[[Bundle], None] | None = None,
) -> tuple[Change, Bundle]:
    """Verify the bundle that `name` means, then make it champion; the event names its gate report.

    Parameters
    ----------
    check
        What else is asked of the bundle: it raises a TradeloopError.

    Raises
    ------
    BundleError, SchemaMismatch, RegistryError
        The bundle is broken, `check` or the registry refuses: no event was written.
    """
    bundle = load(registry.find(name).hash)
    if check is not None:
        check(bundle)
    evidence = promotion_evidence(bundle)
    return registry.promote(bundle.hash, actor=actor, reason=reason, force=force, evidence=evidence), bundle


def roll_back_verified(
    registry: Registry,
    load: Callable[[str], Bundle],
    to: str | None,
    *,
    actor: str,
    reason: str,
    check: Callable[[Bundle], None] | None = None,
) -> tuple[Change, Bundle]:
    """Verify the bundle to go back to, then make it champion; as `promote_verified`."""
    state = registry.state()
    if state.champion is None:
        raise RegistryError("there is no champion: there is nothing to roll back")
    bundle = load(state.before(state.champion, to).hash)
    if check is not None:
        check(bundle)
    return registry.rollback(to=bundle.hash, actor=actor, reason=reason), bundle
