"""The market's clock: whoever asks the time asks this, so that live, replay and simulation run the same code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Says what time it is on the market, in UTC."""

    @property
    def mode(self) -> str:
        """Return ``live``, ``replay`` or ``virtual``."""

    def now(self) -> datetime:
        """Return the market's present, aware, in UTC."""


class LiveClock:
    """The wall clock."""

    mode = "live"

    def now(self) -> datetime:
        """Return the wall's time, in UTC."""
        return datetime.now(UTC)


class ReplayClock:
    """A historic market's clock: it stands at the last bar, whatever that is when asked.

    Parameters
    ----------
    last_bar
        Returns the close of the newest bar known, in UTC.
    """

    mode = "replay"

    def __init__(self, last_bar: Callable[[], datetime]) -> None:
        self._last_bar = last_bar

    def now(self) -> datetime:
        """Return the close of the newest bar."""
        return self._last_bar()


class VirtualClock:
    """A clock that a simulation sets by hand; it never runs backwards.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> clock = VirtualClock(datetime(2020, 1, 1, tzinfo=UTC))
    >>> clock.advance(datetime(2020, 1, 2, tzinfo=UTC))
    >>> clock.now().day
    2
    """

    mode = "virtual"

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the time last set."""
        return self._now

    def advance(self, to: datetime) -> None:
        """Set the time; raise ValueError if that is in the clock's past."""
        if to < self._now:
            raise ValueError(f"a virtual clock never runs backwards: {to} is before {self._now}")
        self._now = to
