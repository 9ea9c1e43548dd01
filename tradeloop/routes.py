r"""Which challenger, if any, answers a question: canaries by symbol, A/B arms by symbol and bar.

A question is hashed to a number in [0, 1): the first eight bytes of a SHA-256, big-endian, divided by 2^64. For a
canary the hashed text is ``market \n symbol``, so that a symbol stays with its model; for an A/B arm it is
``market \n symbol \n feature time in microseconds since 1970``, so that every bar is drawn anew. Nothing else enters:
every process, at any time, draws the same.

1. the canaries take [0, s₁), [s₁, s₁ + s₂), … of the symbols, in the order in which they were staged;
2. what the canaries leave (1 - C of the symbols) is shared out between A/B arms the same way, each with s / (1 - C) of
   it: a share always means a share of all questions;
3. the champion answers the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tradeloop.errors import RegistryError

Mode = Literal["shadow", "canary", "ab"]
MODES: tuple[Mode, ...] = ("shadow", "canary", "ab")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROUNDING = 1e-9
"""Shares that a person writes as decimals may add up to a little more than 1."""


@dataclass(frozen=True)
class Route:
    """How a challenger takes part: `share` is that of all questions which it answers, 0 for a shadow.

    `since` is when it began to do so, wall time.
    """

    model: str
    version: str
    mode: Mode
    share: float
    since: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "since": self.since.isoformat()}


def draw(*parts: str) -> float:
    """Return the number in [0, 1) that the parts are hashed to.

    Examples
    --------
    >>> round(draw("us_daily", "AAPL"), 6)
    0.923712
    """
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    # A float has 53 bits: dividing all 64 could round up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def pick(routes: Sequence[Route], market: str, symbol: str, feature_time: datetime | None) -> Route | None:
    """Return the challenger that answers for a symbol's bar, or None: the champion does.

    Without a `feature_time` no A/B arm is drawn.
    """
    canaries = [route for route in routes if route.mode == "canary"]
    if canaries and (found := _within(canaries, draw(market, symbol), 1.0)) is not None:
        return found
    arms = [route for route in routes if route.mode == "ab"]
    if not arms or feature_time is None:
        return None
    left = 1.0 - sum(route.share for route in canaries)
    return _within(arms, draw(market, symbol, str((feature_time - _EPOCH) // _MICROSECOND)), left)


def require_room(routes: Sequence[Route], model: str, mode: Mode, share: float) -> None:
    """Raise RegistryError unless a challenger may have this share beside the others' in `routes`."""
    if mode not in MODES:
        raise RegistryError(f"a challenger's mode is one of {', '.join(MODES)}, got {mode!r}")
    if mode == "shadow":
        if share:
            raise RegistryError(f"a shadow never answers: its share must be 0, got {share:g}")
        return
    if not 0 < share <= 1:
        raise RegistryError(f"the share of a challenger that answers must be above 0 and at most 1, got {share:g}")
    taken = sum(route.share for route in routes if route.model != model)
    if taken + share > 1 + _ROUNDING:
        raise RegistryError(
            f"the challengers' shares must add up to at most 1: {taken:g} is taken, {share:g} was asked"
        )


def _within(routes: Sequence[Route], point: float, whole: float) -> Route | None:
    """Return the route in whose range `point` × `whole` falls."""
    end = 0.0
    for route in routes:
        end += route.share
        if point * whole < end:
            return route
    return None
