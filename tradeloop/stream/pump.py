"""Reads an origin in a thread of its own, connects again when it is lost, and never runs far ahead of the disk."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time

from tradeloop.config import Stream
from tradeloop.errors import StoreError, TradeloopError
from tradeloop.stream.consumer import Message
from tradeloop.stream.origins.base import Origin

log = logging.getLogger(__name__)

_PUT_SECONDS = 0.1


class Pump:
    """Fills a bounded queue; where it is full the origin is not read.

    Parameters
    ----------
    after
        Position to begin behind.

    Attributes
    ----------
    reconnects
        How often the origin was lost.
    trouble
        Why it is lost now; None while it is there.
    """

    def __init__(self, origin: Origin, after: str | None, config: Stream) -> None:
        self._origin = origin
        self._after = after
        self._config = config
        self._queue: queue.Queue[Message] = queue.Queue(config.queue)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.reconnects = 0
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="stream-origin", daemon=True)
        self._thread.start()

    def batch(self, timeout: float) -> list[Message] | None:
        """Return what waits, up to ``stream.batch`` messages; none after `timeout` seconds, None where all has come.

        Raises
        ------
        TradeloopError
            The origin cannot be read any further.
        """
        messages: list[Message] = []
        until = time.monotonic() + timeout
        while not messages:
            ended = not self._thread.is_alive()
            try:
                messages.append(self._queue.get(timeout=0 if ended else min(_PUT_SECONDS, timeout)))
            except queue.Empty:
                if ended:
                    if self._failure is not None:
                        raise self._failure from None
                    return None
                if time.monotonic() >= until:
                    return []
        while len(messages) < self._config.batch:
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return messages

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                for message in self._origin.messages(self._after, self._stop):
                    attempt, self.trouble = 0, None
                    if message is not None and not self._put(message):
                        return
                return
            except StoreError as error:
                self._lost(error)
                # Half of the wait is drawn: many that lost one server do not come back all at once.
                wait = min(self._config.backoff * 2**attempt, self._config.max_backoff)
                self._stop.wait(wait * random.uniform(0.5, 1.0))
                attempt = min(attempt + 1, 30)
            except TradeloopError as error:
                self._failure = error
                return
            except Exception as error:  # a broken client library may raise anything, and a thread has no caller
                log.exception("the origin %s failed", self._origin.name)
                self._failure = StoreError(f"{self._origin.name} cannot be read: {error}")
                return

    def _put(self, message: Message) -> bool:
        """Wait for room; return False if the pump was closed meanwhile."""
        while not self._stop.is_set():
            try:
                self._queue.put(message, timeout=_PUT_SECONDS)
            except queue.Full:
                continue
            self._after = message.position or self._after
            return True
        return False

    def _lost(self, error: StoreError) -> None:
        self.reconnects += 1
        self.trouble = str(error)
        log.warning("%s", error)
