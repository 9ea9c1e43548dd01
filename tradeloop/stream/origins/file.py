"""A file of JSON lines, replayed from its beginning; with `follow`, for as long as it grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from tradeloop.errors import DataError
from tradeloop.stream.consumer import Message
from tradeloop.stream.origins.base import IDLE_SECONDS, Origin


class FileOrigin(Origin):
    """Reads lines; a position is the number of bytes up to the end of a line.

    Parameters
    ----------
    follow
        Wait for more at the end. A last line without its end is then still being written.
    """

    def __init__(self, path: Path, *, follow: bool = False) -> None:
        self._path = path.resolve()
        self._follow = follow
        self.name = f"file:{self._path}"

    def messages(self, after: str | None, stop: threading.Event) -> Iterator[Message | None]:
        """Yield one message a line, blank ones left out; see `Origin.messages`."""
        try:
            handle = self._path.open("rb")
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}") from None
        with handle:
            done = int(after or 0)
            size = os.fstat(handle.fileno()).st_size
            if done > size:
                raise DataError(f"{self._path} has {size} bytes, {done} of which were read before: it is another file")
            handle.seek(done)
            while not stop.is_set():
                line = handle.readline()
                if not line or (self._follow and not line.endswith(b"\n")):
                    if not self._follow:
                        return
                    handle.seek(done)
                    yield None
                    stop.wait(IDLE_SECONDS)
                    continue
                done += len(line)
                if text := line.strip():
                    yield Message(text, self.name, str(done))
