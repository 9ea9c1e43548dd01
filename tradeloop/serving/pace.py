"""Whose turn it is: answers go first, and of those who watch one at a time works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

IDLE_SECONDS = 0.02
"""For so long one who watches waits for a moment without an answer under way; under full load there is none."""
TURN_SECONDS = 0.05
"""For so long a turn is respected: one who hangs in it holds up nobody after that."""


class Pace:
    """Keeps watching out of the answers' way: both share the interpreter, and often the core.

    The event loop's thread calls `begin` and `end` around each answer, watchers' threads take a `turn` a batch.
    """

    def __init__(self) -> None:
        self._answering = 0
        self._idle = threading.Event()
        self._idle.set()
        self._turn = threading.Lock()
        self._taken_at = 0.0

    def begin(self) -> None:
        """Note that an answer is under way."""
        self._answering += 1
        self._idle.clear()

    def end(self) -> None:
        """Note that it has been given."""
        self._answering -= 1
        if not self._answering:
            self._idle.set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a good moment, though never long, then let the caller work."""
        left = self._taken_at + TURN_SECONDS - time.monotonic()
        mine = self._turn.acquire(timeout=min(max(left, 0.0), TURN_SECONDS))
        if mine:
            self._taken_at = time.monotonic()
        try:
            self._idle.wait(IDLE_SECONDS)
            yield
        finally:
            if mine:
                self._turn.release()
