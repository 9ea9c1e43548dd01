"""The registry's champion and challengers in memory: loaded, verified, and swapped by changing one reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tradeloop.adaptation import Adaptation
from tradeloop.bundle import Bundle
from tradeloop.errors import AdaptationError, BundleError, StoreError
from tradeloop.predictor import Predictor
from tradeloop.registry import Change, Registry
from tradeloop.routes import Route
from tradeloop.serving.breaker import Breaker
from tradeloop.serving.champion import Loaded, Refusal, Source, promote_verified, roll_back_verified
from tradeloop.serving.lineup import Challenger, Lineup
from tradeloop.state.adaptations import AdaptationStore

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""A model that was refused is tried again after this long."""


class Listener(Protocol):
    """What has a say in changes, or wants to know of them."""

    def require(self, bundle: Bundle) -> None:
        """Raise a TradeloopError for a bundle that must not become champion here."""

    def takes_over(self, champion: Loaded) -> None:
        """Hear of a new champion before it serves."""

    def joins(self, challenger: Loaded) -> None:
        """Hear of a challenger before it takes part; a StoreError keeps it out."""

    def refused(self, refusal: Refusal, *, challenger: bool) -> None:
        """Hear of a model of the registry that cannot be loaded."""


class LineupHolder:
    """Keeps `current` at what the registry says; one thread calls its methods, any number read `current`.

    Parameters
    ----------
    load
        Returns the verified bundle of a hash, or raises BundleError.
    baked
        Folder of the bundle that the Bento carries: it serves while the registry has no champion.
    budget
        Seconds that a challenger's forecast may take.
    adaptations
        Where the snapshots of online adaptation are; None for bundles as they were packaged.
    learned
        Whether snapshots may change forecasts; if not, only those apply that do no more than raise the cost.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[str], Bundle],
        listener: Listener,
        *,
        market: str,
        baked: Path | None = None,
        budget: float = 0.25,
        adaptations: AdaptationStore | None = None,
        learned: bool = True,
    ) -> None:
        self.current: Lineup | None = None
        self.refused: Refusal | None = None
        self.refused_challengers: dict[str, Refusal] = {}
        self._registry = registry
        self._load = load
        self._listener = listener
        self._market = market
        self._baked = baked
        self._budget = budget
        self._adaptations = adaptations
        self._learned = learned
        self._seen = (-1, -1)
        self._retry_at = 0.0
        self._unloaded: list[Route] = []
        self._verified: Bundle | None = None

    def refresh(self) -> bool:
        """Follow the registry if it has events that were not seen yet; return whether the lineup changed.

        The champion first, then one challenger a call, so that a rollback need not wait for all of them. What was
        refused is tried again now and then: its files may have been put right.

        Raises
        ------
        StoreError
            The registry does not answer; what serves goes on serving.
        """
        newest = self._registry.champion_version(), 0 if self._adaptations is None else self._adaptations.version()
        refused = bool(self.refused or self.refused_challengers)
        due = refused and not self._unloaded and time.monotonic() >= self._retry_at
        before = self.current
        if newest != self._seen or due:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._follow(adapted=newest[1] != self._seen[1])
            self._seen = newest
        elif self._unloaded:
            self._add(self._unloaded.pop(0))
        return self.current is not before

    def challengers(self) -> list[dict[str, Any]]:
        """Return the registry's challengers in the order of staging, and what keeps one from taking part."""
        lineup = self.current
        loaded = {} if lineup is None else {one.model.hash: one for one in lineup.challengers}
        found = []
        for route in () if lineup is None else lineup.routes:
            one, refused = loaded.get(route.model), self.refused_challengers.get(route.model)
            reason = refused.reason if refused else None if one is None or one.breaker.closed else one.breaker.reason
            state = (
                "refused" if refused else "loading" if one is None else "taking part" if reason is None else "paused"
            )
            found.append({**route.to_dict(), "state": state, "reason": reason})
        return found

    def promote(self, name: str, *, actor: str, reason: str) -> Change:
        """Make a model champion as `promote_verified` does, then serve it."""
        check = self._listener.require
        change, bundle = promote_verified(self._registry, self._load, name, actor=actor, reason=reason, check=check)
        self._take(bundle)
        return change

    def rollback(self, to: str | None, *, actor: str, reason: str) -> Change:
        """Go back as `roll_back_verified` does, then serve what was gone back to."""
        check = self._listener.require
        change, bundle = roll_back_verified(self._registry, self._load, to, actor=actor, reason=reason, check=check)
        self._take(bundle)
        return change

    def _take(self, bundle: Bundle) -> None:
        """Follow the registry, without loading `bundle` a second time."""
        self._verified = bundle
        try:
            self.refresh()
        finally:
            self._verified = None

    def _follow(self, *, adapted: bool) -> None:
        """Take over the registry's state: champion and routes now, challengers that are not in memory one by one."""
        state = self._registry.state()
        if adapted and self.current is not None:
            self._adapt(self.current)
        record = state.champion
        if record is None:
            self._serve_baked()
        elif self.current is None or (record.hash, "registry") != (
            self.current.champion.hash,
            self.current.champion.source,
        ):
            self._swap(record.hash, record.version)
        else:
            self.refused = None
        if self.current is not None:
            self._route(self.current, [] if record is None else state.routes)

    def _route(self, lineup: Lineup, routes: Sequence[Route]) -> None:
        """Keep the challengers that still are, in their new parts; the others have to be loaded."""
        known = {one.model.hash: one for one in lineup.challengers}
        kept = [replace(known[route.model], route=route) for route in routes if route.model in known]
        self._unloaded = [route for route in routes if route.model not in known]
        named = {route.model for route in routes}
        self.refused_challengers = {k: v for k, v in self.refused_challengers.items() if k in named}
        changed = replace(lineup, routes=tuple(routes), challengers=tuple(kept))
        if changed != lineup:
            self.current = changed

    def _add(self, route: Route) -> None:
        """Load a challenger and let it take part."""
        lineup = self.current
        if lineup is None:
            return
        try:
            model = self._loaded(route.model, route.version)
            self._listener.joins(model)
        except (BundleError, StoreError) as error:
            self._refuse_challenger(route, str(error))
            return
        self.refused_challengers.pop(route.model, None)
        challenger = Challenger(model, route, Breaker(self._budget))
        self.current = replace(lineup, challengers=(*lineup.challengers, challenger))
        log.info("%s takes part as %s", route.version, route.mode)

    def _swap(self, bundle_hash: str, version: str) -> None:
        try:
            champion = self._loaded(bundle_hash, version)
        except BundleError as error:
            self._refuse(bundle_hash, version, str(error))
        else:
            self._install(champion)

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
            self._install(self._ready(bundle, bundle.version, "bento"))

    def _install(self, champion: Loaded) -> None:
        self._listener.takes_over(champion)
        before = self.current
        self.current = Lineup(self._market, champion) if before is None else replace(before, champion=champion)
        self.refused = None
        if before is not None:
            log.info("%s serves in place of %s", champion.version, before.champion.version)

    def _loaded(self, bundle_hash: str, version: str) -> Loaded:
        """Return a model that is in memory already, or load its bundle."""
        lineup, ready = self.current, self._verified
        if ready is None or ready.hash != bundle_hash:
            models = [] if lineup is None else [lineup.champion, *(one.model for one in lineup.challengers)]
            ready = next((model.bundle for model in models if model.hash == bundle_hash), None)
        return self._ready(ready or self._load(bundle_hash), version)

    def _ready(self, bundle: Bundle, version: str, source: Source = "registry") -> Loaded:
        """Return the model with the snapshot of online adaptation that applies to it; without one that does not fit."""
        found = None if self._adaptations is None else self._adaptations.newest(bundle.hash)
        if found is None:
            return Loaded(Predictor(bundle), version, source)
        snapshot, content = found
        try:
            adaptation = Adaptation.parse(content, spec=bundle.ensemble.spec)
        except AdaptationError as error:
            log.error("model %s answers as it was packaged, snapshot %s: %s", version, snapshot, error)
            return Loaded(Predictor(bundle), version, source)
        if not (self._learned or adaptation.neutral):
            return Loaded(Predictor(bundle), version, source)
        return Loaded(Predictor(bundle, adaptation, snapshot), version, source)

    def _adapt(self, lineup: Lineup) -> None:
        """Take over newer snapshots; the bundles stay."""

        def again(model: Loaded) -> Loaded:
            return self._ready(model.bundle, model.version, model.source)

        challengers = tuple(replace(one, model=again(one.model)) for one in lineup.challengers)
        self.current = replace(lineup, champion=again(lineup.champion), challengers=challengers)

    def _refuse(self, bundle_hash: str, version: str, reason: str) -> None:
        if self.refused is not None and (self.refused.hash, self.refused.reason) == (bundle_hash, reason):
            return
        serving = f"{self.current.champion.version} keeps serving" if self.current else "nothing serves"
        log.error("champion %s is refused, %s: %s", version, serving, reason)
        self.refused = Refusal(version, bundle_hash, reason, datetime.now(UTC))
        self._listener.refused(self.refused, challenger=False)

    def _refuse_challenger(self, route: Route, reason: str) -> None:
        before = self.refused_challengers.get(route.model)
        if before is not None and before.reason == reason:
            return
        log.error("challenger %s is refused, it takes no part: %s", route.version, reason)
        self.refused_challengers[route.model] = Refusal(route.version, route.model, reason, datetime.now(UTC))
        self._listener.refused(self.refused_challengers[route.model], challenger=True)
