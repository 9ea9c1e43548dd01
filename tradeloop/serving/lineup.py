"""Who answers and who watches at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tradeloop.routes import Route, pick
from tradeloop.serving.breaker import Breaker
from tradeloop.serving.champion import Loaded


@dataclass(frozen=True)
class Challenger:
    """A model beside the champion; `breaker` says whether it can be relied on at present."""

    model: Loaded
    route: Route
    breaker: Breaker


@dataclass(frozen=True)
class Lineup:
    """The models of one moment; a request keeps to the one that it began with.

    Attributes
    ----------
    routes
        Every challenger of the registry in the order of staging, the refused ones too: they keep their share of the
        questions, and the champion answers for them.
    challengers
        Those that are loaded, by hash.
    """

    market: str
    champion: Loaded
    routes: tuple[Route, ...] = ()
    challengers: tuple[Challenger, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether a challenger may have to answer."""
        return any(route.mode != "shadow" for route in self.routes)

    def answering(self, symbol: str, feature_time: datetime | None) -> Challenger | None:
        """Return the challenger that answers a question; None for the champion, or for a challenger that cannot."""
        route = pick(self.routes, self.market, symbol, feature_time)
        if route is None:
            return None
        found = next((one for one in self.challengers if one.model.hash == route.model), None)
        return found if found is not None and found.breaker.closed else None
