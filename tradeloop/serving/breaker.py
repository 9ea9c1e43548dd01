"""A circuit breaker: what fails again and again is left alone for a while, then tried once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FAILURES = 3
"""So many failures in a row open it."""
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds until the first trial, and at most between two of them: each trial that fails doubles the pause."""


class Breaker:
    """Counts one model's failures; any number of threads may share it.

    Parameters
    ----------
    budget
        Seconds that a forecast may take; one that takes longer is a failure, although its result is used.
    clock
        Seconds that never run backwards.
    """

    def __init__(self, budget: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.reason: str | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._trial_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether the model is trusted."""
        return self._failures < FAILURES

    def allows(self) -> bool:
        """Return whether to ask the model: always while closed, else once after each pause."""
        if self.closed:
            return True
        with self._lock:
            now = self._clock()
            if now < self._trial_at:
                return False
            self._trial_at = now + self._pause
            return True

    def succeeded(self, seconds: float) -> bool:
        """Note a forecast and how long it took; return whether that opened the breaker."""
        if seconds > self.budget:
            return self.failed(f"a forecast took {seconds:.3g} s, the budget is {self.budget:g} s")
        if self._failures:
            with self._lock:
                self._failures, self._pause, self.reason = 0, FIRST_PAUSE, None
        return False

    def failed(self, reason: str) -> bool:
        """Note a failure; return whether that opened the breaker."""
        with self._lock:
            was_closed = self.closed
            self._failures += 1
            self.reason = reason
            if self.closed:
                return False
            if not was_closed:
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._trial_at = self._clock() + self._pause
            return was_closed
