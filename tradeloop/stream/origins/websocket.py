"""A WebSocket: ``ws://…`` or ``wss://…``, one JSON object a frame.

A frame's ``"id"``, where it has one, is its position. `subscribe` is sent after each connection, with ``{after}``
replaced by the last position that is in the journal (empty at first): so a server that can replay goes on from there.
Of a server that cannot, what it sends while nobody listens is lost; the refetch of gaps is the stage check's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson

from tradeloop.errors import StoreError
from tradeloop.stream.consumer import Message
from tradeloop.stream.origins.base import IDLE_SECONDS, Origin

_OPEN_SECONDS = 10.0
_LARGEST = 1 << 20  # bytes of a frame
_FRAMES = 64  # that may wait here; then the server is not read


class WebSocketOrigin(Origin):
    """Listens to one server."""

    def __init__(self, url: str, *, subscribe: str | None = None) -> None:
        parts = urlsplit(url)
        self._url = url
        self._subscribe = subscribe
        port = f":{parts.port}" if parts.port else ""
        self.name = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def messages(self, after: str | None, stop: threading.Event) -> Iterator[Message | None]:
        """Yield one message a frame; a server that hangs up is lost, see `Origin.messages`."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            with connect(self._url, open_timeout=_OPEN_SECONDS, max_size=_LARGEST, max_queue=_FRAMES) as socket:
                if self._subscribe is not None:
                    socket.send(self._subscribe.replace("{after}", after or ""))
                while not stop.is_set():
                    try:
                        frame = socket.recv(IDLE_SECONDS)
                    except TimeoutError:
                        yield None
                        continue
                    yield Message(frame, self.name, _position(frame))
        except (WebSocketException, OSError) as error:
            raise StoreError(f"{self.name} is not there: {error}") from error


def _position(frame: bytes | str) -> str | None:
    try:
        content = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    given = content.get("id") if isinstance(content, dict) else None
    return str(given) if isinstance(given, str | int) else None
