"""What goes wrong beside the answers: counted at once, written to the table ``errors`` by the watch, in one go."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tradeloop.serving.telemetry import Telemetry

_MOST_KINDS = 100

Write = Callable[[str, str, int], None]


class Incidents:
    """A `Tally` that counts in the metrics and remembers what a person should read; called by any thread."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], int] = {}

    def note(self, kind: str, message: str, count: int = 1) -> None:
        """Remember an error until the next `flush`; the same again only counts."""
        with self._lock:
            if (kind, message) in self._found or len(self._found) < _MOST_KINDS:
                self._found[kind, message] = self._found.get((kind, message), 0) + count

    def flush(self, write: Write) -> None:
        """Hand each error with its count to `write`; what that fails with comes out, and the rest is kept."""
        with self._lock:
            found, self._found = self._found, {}
        while found:
            (kind, message), count = next(iter(found.items()))
            try:
                write(kind, message, count)
            except BaseException:
                for (kept, text), times in found.items():
                    self.note(kept, text, times)
                raise
            del found[kind, message]

    def watched(self, version: str, arm: str, count: int, seconds: float) -> None:
        """Note that so many forecasts were made, in one batch, and handed to the log."""
        self._telemetry.watched(version, arm, count, seconds)

    def dropped(self, version: str, why: str, count: int) -> None:
        """Note that so many forecasts were not made, or not logged."""
        self._telemetry.dropped(version, why, count)
        self.note("challenger_dropped", f"challenger {version}: forecasts dropped ({why})", count)

    def failed(self, version: str, reason: str) -> None:
        """Note that a model failed, or took too long."""
        self._telemetry.failed(version)
        self.note("challenger_failed", f"challenger {version}: {reason}")

    def fell_back(self, version: str, arm: str, count: int) -> None:
        """Note that the champion answered so many questions of this arm (0: none)."""
        if count:
            self._telemetry.fell_back(version, arm, count)
            self.note("arm_fell_back", f"{arm} {version} could not answer, the champion did", count)
