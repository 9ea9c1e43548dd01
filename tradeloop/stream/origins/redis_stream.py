"""A Redis Stream: ``redis://host:port/db?stream=NAME``, with ``&group=NAME`` as a consumer group.

Each entry has a field ``data`` with one JSON object. Without a group the journal alone knows where to go on. With one,
entries are acknowledged once they are in the journal; what was delivered and not acknowledged comes first, without what
was given before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tradeloop.errors import ConfigError, StoreError
from tradeloop.stream.consumer import Message
from tradeloop.stream.origins.base import IDLE_SECONDS, Origin

_MOST = 512
_CONSUMER = "tradeloop"


class RedisOrigin(Origin):
    """Reads one stream; a position is an entry's id.

    Raises
    ------
    ConfigError
        The URL names no stream.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if "stream" not in query or set(query) - {"stream", "group", "consumer"}:
            form = "redis://host:port/db?stream=NAME[&group=NAME[&consumer=NAME]]"
            raise ConfigError(f"a Redis Stream is {form}, got {url}")
        self._stream, self._group = query["stream"], query.get("group")
        self._consumer = query.get("consumer", _CONSUMER)
        self._url = parts._replace(query="").geturl()
        self._client: Any = None
        self._delivered: deque[str] = deque()
        self.name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}?stream={self._stream}"

    def messages(self, after: str | None, stop: threading.Event) -> Iterator[Message | None]:
        """Yield one message an entry; see `Origin.messages`."""
        with self._errors():
            self._open()
            self._delivered.clear()
            if self._group is not None:
                yield from self._pending(after, stop)
            done = after or "0-0"
            while not stop.is_set():
                entries = self._read(done)
                if not entries:
                    yield None
                for entry, fields in entries:
                    done = entry
                    yield self._message(entry, fields)

    def committed(self, position: str) -> None:
        """Acknowledge what was delivered up to a position."""
        if self._group is None:
            return
        done = []
        while self._delivered and _order(self._delivered[0]) <= _order(position):
            done.append(self._delivered.popleft())
        if done:
            with self._errors():
                self._client.xack(self._stream, self._group, *done)

    def _pending(self, after: str | None, stop: threading.Event) -> Iterator[Message]:
        """Yield what was delivered before and never acknowledged, but for what was given already."""
        start = "0-0"
        while not stop.is_set():
            entries = self._ask_group(start, block=None)
            if not entries:
                return
            for entry, fields in entries:
                start = entry
                message = self._message(entry, fields)
                if after is None or _order(entry) > _order(after):
                    yield message

    def _read(self, after: str) -> list[tuple[str, dict[str, str]]]:
        if self._group is None:
            found = self._client.xread({self._stream: after}, count=_MOST, block=int(IDLE_SECONDS * 1e3))
            return list(found[0][1]) if found else []
        entries = self._ask_group(">", block=int(IDLE_SECONDS * 1e3))
        known = [entry for entry, _ in entries if _order(entry) <= _order(after)]
        self._delivered.extend(known)  # a group that was made anew begins at the beginning
        return entries[len(known) :]

    def _ask_group(self, start: str, block: int | None) -> list[tuple[str, dict[str, str]]]:
        streams = {self._stream: start}
        found = self._client.xreadgroup(self._group, self._consumer, streams, count=_MOST, block=block)
        return [(entry, fields or {}) for entry, fields in found[0][1]] if found else []

    def _message(self, entry: str, fields: dict[str, str]) -> Message:
        if self._group is not None:
            self._delivered.append(entry)
        return Message(fields.get("data", ""), self.name, entry)

    def _open(self) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        if self._client is None:
            # Not tried again behind our back: what a lost answer held is asked for as pending, or it would come last.
            retry = Retry(NoBackoff(), 0)
            self._client = redis.Redis.from_url(self._url, decode_responses=True, socket_timeout=10, retry=retry)
        if self._group is not None:
            try:
                self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            raise StoreError(f"{self.name} does not answer: {error}") from error


def _order(entry: str) -> tuple[int, int]:
    time, _, number = entry.partition("-")
    return int(time), int(number or 0)
