"""JSON lines from standard input. They come once: after a crash, whoever writes them must send again what was lost."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from collections.abc import Iterator

from tradeloop.stream.consumer import Message
from tradeloop.stream.origins.base import IDLE_SECONDS, Origin

_CHUNK = 1 << 16


class StdinOrigin(Origin):
    """Reads lines without positions; what is sent twice is a duplicate, and nothing."""

    name = "stdin"

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor

    def messages(self, after: str | None, stop: threading.Event) -> Iterator[Message | None]:
        """Yield one message a line until the input is closed; see `Origin.messages`."""
        del after
        rest = b""
        with selectors.DefaultSelector() as selector:
            waits = _can_wait(selector, self._descriptor)
            while not stop.is_set():
                if waits and not selector.select(IDLE_SECONDS):
                    yield None
                    continue
                chunk = os.read(self._descriptor, _CHUNK)
                *lines, rest = (rest + chunk).split(b"\n") if chunk else (rest, b"")
                yield from (Message(text, self.name) for line in lines if (text := line.strip()))
                if not chunk:
                    return


def _can_wait(selector: selectors.BaseSelector, descriptor: int) -> bool:
    """Return whether the input can be waited for: a file that stands in for it cannot, and need not."""
    try:
        selector.register(descriptor, selectors.EVENT_READ)
    except PermissionError:
        return False
    return True
