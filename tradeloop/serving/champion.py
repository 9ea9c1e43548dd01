"""The champion in memory: loaded from the registry, verified, and swapped by changing one reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tradeloop.bundle import Bundle
from tradeloop.errors import BundleError, RegistryError
from tradeloop.lifecycle import Lifecycle
from tradeloop.predictor import Predictor
from tradeloop.registry import Change, Registry
from tradeloop.schema import Schema

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""A champion that was refused is tried again after this long."""

Source = Literal["registry", "bento"]


@dataclass(frozen=True)
class Champion:
    """A model that can answer; requests hold on to the one they began with."""

    predictor: Predictor
    schema: Schema
    version: str
    hash: str
    source: Source

    def to_dict(self) -> dict[str, Any]:
        """Return what an answer says of its model."""
        return {"version": self.version, "hash": self.hash, "source": self.source}


@dataclass(frozen=True)
class Refusal:
    """A champion of the registry that could not be loaded."""

    version: str
    hash: str
    reason: str
    at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return what GET /models says of it."""
        return {**vars(self), "at": self.at.isoformat()}


class ChampionHolder:
    """Keeps `current` at the registry's champion; one thread calls its methods, any number read `current`.

    Parameters
    ----------
    load
        Returns the verified bundle of a hash, or raises BundleError.
    baked
        Folder of the bundle that the Bento carries: it serves while the registry has no champion.
    on_swap
        Called with each new champion before it serves.
    on_refusal
        Called when a champion cannot be loaded.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[str], Bundle],
        *,
        baked: Path | None,
        on_swap: Callable[[Champion], None],
        on_refusal: Callable[[], None],
    ) -> None:
        self.current: Champion | None = None
        self.refused: Refusal | None = None
        self._registry = registry
        self._load = load
        self._baked = baked
        self._on_swap = on_swap
        self._on_refusal = on_refusal
        self._seen = -1
        self._retry_at = 0.0
        self._verified: Bundle | None = None

    def refresh(self) -> bool:
        """Swap if the registry has events that were not seen yet; return whether the model that serves changed.

        A champion that was refused is tried again now and then: its files may have been put right.

        Raises
        ------
        StoreError
            The registry does not answer; what serves goes on serving.
        """
        newest = self._registry.champion_version()
        if newest == self._seen and (self.refused is None or time.monotonic() < self._retry_at):
            return False
        before = self.current
        record = self._registry.champion()
        if record is None:
            self._serve_baked()
        elif before is None or (record.hash, "registry") != (before.hash, before.source):
            self._swap(record.hash, record.version)
        else:
            self.refused = None
        self._seen = newest
        return self.current is not before

    def promote(self, name: str, *, actor: str, reason: str) -> Change:
        """Make a model champion as `promote_verified` does, then serve it."""
        change, bundle = promote_verified(self._registry, self._load, name, actor=actor, reason=reason)
        self._take(bundle)
        return change

    def rollback(self, to: str | None, *, actor: str, reason: str) -> Change:
        """Go back as `roll_back_verified` does, then serve what was gone back to."""
        change, bundle = roll_back_verified(self._registry, self._load, to, actor=actor, reason=reason)
        self._take(bundle)
        return change

    def _take(self, bundle: Bundle) -> None:
        """Follow the registry, without loading `bundle` a second time."""
        self._verified = bundle
        try:
            self.refresh()
        finally:
            self._verified = None

    def _swap(self, bundle_hash: str, version: str) -> None:
        ready = self._verified
        try:
            bundle = ready if ready is not None and ready.hash == bundle_hash else self._load(bundle_hash)
        except BundleError as error:
            self._refuse(bundle_hash, version, str(error))
        else:
            self._install(bundle, version, "registry")

    def _serve_baked(self) -> None:
        """Serve the Bento's own bundle; never instead of a champion that serves already."""
        if self.current is not None or self._baked is None:
            return
        try:
            bundle = Bundle.load(self._baked)
        except BundleError as error:
            self._refuse("", self._baked.name, str(error))
        else:
            log.warning("the registry has no champion: the Bento's own model %s serves", bundle.version)
            self._install(bundle, bundle.version, "bento")

    def _install(self, bundle: Bundle, version: str, source: Source) -> None:
        champion = Champion(Predictor(bundle), bundle.schema, version, bundle.hash, source)
        self._on_swap(champion)
        before, self.current, self.refused = self.current, champion, None
        log.info("champion %s serves%s", version, f" in place of {before.version}" if before else "")

    def _refuse(self, bundle_hash: str, version: str, reason: str) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if self.refused is not None and (self.refused.hash, self.refused.reason) == (bundle_hash, reason):
            return
        self._on_refusal()
        serving = f"{self.current.version} keeps serving" if self.current else "nothing serves"
        log.error("champion %s is refused, %s: %s", version, serving, reason)
        self.refused = Refusal(version, bundle_hash, reason, datetime.now(UTC))


def promote_verified(
    registry: Registry,
    load: Callable[[str], Bundle],
    name: str,
    *,
    actor: str,
    reason: str,
    force: bool = False,
) -> tuple[Change, Bundle]:
    """Verify the bundle that `name` means, then make it champion.

    Raises
    ------
    BundleError, RegistryError
        The bundle is broken, or the registry refuses: no event was written.
    """
    bundle = load(registry.find(name).hash)
    return registry.promote(bundle.hash, actor=actor, reason=reason, force=force), bundle


def roll_back_verified(
    registry: Registry, load: Callable[[str], Bundle], to: str | None, *, actor: str, reason: str
) -> tuple[Change, Bundle]:
    """Verify the bundle to go back to, then make it champion; raises as `promote_verified`."""
    state = Lifecycle.of(registry.events())
    if state.champion is None:
        raise RegistryError("there is no champion: there is nothing to roll back")
    bundle = load(state.before(state.champion, to).hash)
    return registry.rollback(to=bundle.hash, actor=actor, reason=reason), bundle
