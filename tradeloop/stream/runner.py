"""`tradeloop stream` as a process: pump → consumer, until the origin ends or somebody stops it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tradeloop.config import Params
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.state.database import Database, database_url
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.stream.consumer import Consumer, Message, Taken
from tradeloop.stream.origins.base import Origin
from tradeloop.stream.pump import Pump

COMPONENT = "stream"
PROGRESS_SECONDS = 5.0

_WAIT_SECONDS = 0.5


@dataclass
class Progress:
    """What a stream has done since it began.

    Attributes
    ----------
    counts
        Messages by what became of them: `Outcome`, ``context``, ``refused``.
    newest
        Close of the newest bar that was taken, microseconds since 1970.
    last_refused
        Why the last refused message was.
    """

    counts: Counter[str] = field(default_factory=Counter)
    newest: int | None = None
    reconnects: int = 0
    seconds: float = 0.0
    position: str | None = None
    last_refused: str | None = None
    trouble: str | None = None

    def add(self, taken: Sequence[Taken]) -> None:
        """Count what became of messages."""
        self.counts.update(one.status for one in taken)
        for one in taken:
            if one.status == "refused":
                self.last_refused = one.reason
            elif one.status != "context" and one.time is not None:
                self.newest = max(self.newest or one.time, one.time)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        messages = self.counts.total()
        return {
            "messages": messages,
            "counts": dict(sorted(self.counts.items())),
            "newest": _text(self.newest),
            "position": self.position,
            "reconnects": self.reconnects,
            "seconds": round(self.seconds, 3),
            "per_second": round(messages / self.seconds, 1) if self.seconds else None,
            "last_refused": self.last_refused,
            "trouble": self.trouble,
        }

    def line(self) -> str:
        """Return one line for a person."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.most_common())
        rate = f"{self.counts.total() / self.seconds:,.0f} a second" if self.seconds else ""
        parts = [f"{self.counts.total():,} messages ({counts})" if counts else "no message yet", rate]
        parts.append(f"newest {_text(self.newest)}" if self.newest is not None else "")
        parts.append(f"connected again {self.reconnects} times" if self.reconnects else "")
        parts.append(f"last refused: {self.last_refused}" if self.last_refused else "")
        parts.append(f"waiting: {self.trouble}" if self.trouble else "")
        return ", ".join(part for part in parts if part)


class StreamRunner:
    """Consumes one origin.

    Parameters
    ----------
    show
        Takes the progress every few seconds, and at the end.
    """

    def __init__(
        self, layout: Layout, params: Params, origin: Origin, *, show: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._layout = layout
        self._params = params
        self._origin = origin
        self._show = show
        self._progress = Progress()
        self._database: Database | None = None
        self._shown = 0.0

    def run(self, stop: threading.Event) -> Progress:
        """Consume until the origin ends or `stop` is set; what was taken by then is in the journal.

        Raises
        ------
        TradeloopError
            The market cannot be read at the start, or the origin cannot go on from where it was left.
        """
        consumer = Consumer(self._layout, self._params)
        pump: Pump | None = None
        began = self._shown = time.monotonic()
        try:
            consumer.start()
            pump = Pump(self._origin, consumer.position(self._origin.name), self._params.stream)
            self._beat("running")
            while not stop.is_set():
                batch = pump.batch(_WAIT_SECONDS)
                if batch is None:
                    break
                if batch:
                    self._take(consumer, batch, stop)
                self._progress.seconds = time.monotonic() - began
                self._progress.reconnects, self._progress.trouble = pump.reconnects, pump.trouble
                self._tell()
        finally:
            if pump is not None:
                pump.close()
            consumer.close()
            self._beat("stopped")
            if self._database is not None:
                self._database.close()
        self._progress.seconds = time.monotonic() - began
        self._progress.position = consumer.position(self._origin.name)
        return self._progress

    def _take(self, consumer: Consumer, batch: Sequence[Message], stop: threading.Event) -> None:
        """Take a batch, however long disk and online store need for it."""
        taken = self._insist(lambda: consumer.take(batch), stop)
        if taken is None:
            return
        self._progress.add(taken)
        self._insist(lambda: _flushed(consumer), stop)
        position = consumer.position(self._origin.name)
        if position is not None:
            with suppress(StoreError):  # the journal has it: what is acknowledged late is left out the next time
                self._origin.committed(position)

    def _insist(self, act: Callable[[], list[Taken]], stop: threading.Event) -> list[Taken] | None:
        """Try until it works, waiting longer and longer; None if it was stopped first."""
        wait = self._params.stream.backoff
        while True:
            try:
                return act()
            except StoreError as error:
                self._progress.trouble = str(error)
                self._tell()
            if stop.wait(wait):
                return None
            wait = min(2 * wait, self._params.stream.max_backoff)

    def _tell(self) -> None:
        if time.monotonic() - self._shown >= PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._show(self._progress)
            self._beat("running")

    def _beat(self, state: str) -> None:
        """Give a sign of life; a stream goes on without the database."""
        with suppress(StoreError):
            if self._database is None:
                self._database = Database.open(database_url(self._layout, self._params))
            newest = self._progress.newest
            market_time = None if newest is None else datetime.fromtimestamp(newest / 1e6, UTC)
            beats = Heartbeats(self._database, self._params.market)
            beats.beat(COMPONENT, state, self._progress.line(), market_time)


def _flushed(consumer: Consumer) -> list[Taken]:
    """Write what the online store lacks, or raise why it does not take it."""
    if consumer.problem is not None:
        consumer.flush()
        if consumer.problem is not None:
            raise StoreError(consumer.problem)
    return []


def _text(time_us: int | None) -> str | None:
    return None if time_us is None else datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()
