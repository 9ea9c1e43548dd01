"""What is done with streamed bars: edge → features' windows → journal → online store, a batch at a time.

1. Under the journal's lock, take in what other writers have appended; so any number of processes may consume.
2. Hold each message to the rules; what breaks one goes to the refused file, and is counted.
3. Let the windows say what each bar is: new, late, restated, too old for any row, or the same again.
4. Append bars, context values and the origins' positions to the journal as one commit, flushed to the disk.
5. Write the newest row of each symbol that changed to the online store, which is guarded by event time.

A crash before 4 has done nothing; one after 4 is made good by `start`, which writes the newest row of each symbol.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from tradeloop.bars import Bars
from tradeloop.clock import Clock, LiveClock
from tradeloop.config import Params
from tradeloop.errors import DataError, StoreError
from tradeloop.features import schema_for
from tradeloop.features.streaming import Outcome, Streaming
from tradeloop.inputs.contract import input_columns
from tradeloop.inputs.reading import InputFeed
from tradeloop.integrity import check_context
from tradeloop.journal import BEGINNING, Bar, Commit, Journal, Level, wall_microseconds
from tradeloop.layout import Layout
from tradeloop.monitoring.feed import SourceFeed
from tradeloop.sources import open_source
from tradeloop.state.online import OnlineRows, OnlineStore
from tradeloop.stream.messages import Edge, Said


@dataclass(frozen=True)
class Message:
    """What an origin gave; `position` is where to read on behind it, None where the origin cannot be read again."""

    text: bytes | str
    origin: str = ""
    position: str | None = None


@dataclass(frozen=True)
class Taken:
    """What became of a message: an `Outcome`, ``context`` or ``refused``, with the reason; `time` in microseconds."""

    status: str
    symbol: str | None = None
    time: int | None = None
    reason: str | None = None


class Consumer:
    """Takes the messages of one market; for one thread at a time.

    Parameters
    ----------
    store
        The online store; by default the one that `params` names.
    clock
        The wall's.
    """

    def __init__(
        self, layout: Layout, params: Params, *, store: OnlineStore | None = None, clock: Clock | None = None
    ) -> None:
        self._layout = layout
        self._params = params
        self._clock = clock or LiveClock()
        self.schema = schema_for(params)
        self._store = store or OnlineStore(layout, params)
        self._edge = Edge(params, self._clock)
        live = layout.live / "stream"
        self._journal = Journal(layout.streamed(params.market), live / f"{params.market}.lock")
        self._refused_file = live / f"{params.market}.refused.jsonl"
        self._inputs = InputFeed(params.active, layout.root) if params.active.inputs else None
        self._engine: Streaming | None = None
        self._history: dict[str, Bars] = {}
        self._mark, self._refused = BEGINNING, 0
        self._positions: dict[str, str] = {}
        self._unwritten: set[str] = set()
        self.problem: str | None = None
        """Why the online store lacks rows of bars that are in the journal; None if it has them all."""

    def start(self) -> None:
        """Read history and journal, and put the online store right.

        Raises
        ------
        DataError
            The market's context cannot be read.
        StoreError
            The journal is damaged.
        """
        with self._journal.sole_writer():
            self._load()
            self._write()

    def position(self, origin: str) -> str | None:
        """Return up to where an origin's messages are in the journal; None if none is."""
        return self._positions.get(origin)

    def newest(self, symbol: str) -> int | None:
        """Return the close of a symbol's newest bar, in microseconds since 1970; None where it has none."""
        if self._engine is None:
            return None
        times = self._engine.bars(symbol).timestamp
        return int(times[-1].astype(np.int64)) if len(times) else None

    def take(self, messages: Sequence[Message]) -> list[Taken]:
        """Take messages, in their order; when this returns, all that was accepted is on the disk.

        `problem` says whether it is in the online store, too.

        Raises
        ------
        StoreError
            The journal cannot be written: nothing was taken.
        """
        with self._journal.sole_writer():
            engine = self._caught_up()
            taken: list[Taken] = []
            bars: list[Bar] = []
            levels: list[Level] = []
            letters: list[bytes] = []
            for message in messages:
                try:
                    said = self._edge.read(message.text)
                except DataError as error:
                    taken.append(Taken("refused", reason=str(error)))
                    letters.append(_letter(message, str(error)))
                else:
                    taken.append(self._apply(engine, said, bars, levels))
            self._commit(messages, bars, levels, letters)
            self._write()
        return taken

    def flush(self) -> None:
        """Try again to write what the online store lacks; `problem` says whether it worked."""
        with self._journal.sole_writer():
            self._caught_up()
            self._write()

    def close(self) -> None:
        """Let go of the online store."""
        self._store.close()

    def _apply(self, engine: Streaming, said: Said, bars: list[Bar], levels: list[Level]) -> Taken:
        """Let the engine take what a message says; note what is news."""
        for level in said.levels:
            touched = engine.observe(level, rows=False)
            if touched.news:
                levels.append(level)
                self._unwritten |= touched.symbols
        bar = said.bar
        if bar is None:
            level = said.levels[0]
            return Taken("context", level.series, level.time)
        outcome = engine.update(bar, rows=False).outcome
        if outcome is Outcome.TOO_OLD and _among(self._history.get(bar.symbol), bar):
            outcome = Outcome.DUPLICATE
        if outcome is not Outcome.DUPLICATE:
            bars.append(bar)
        if outcome in (Outcome.NEW, Outcome.LATE, Outcome.RESTATED):
            self._unwritten.add(bar.symbol)
        return Taken(outcome.value, bar.symbol, bar.time)

    def _commit(self, messages: Iterable[Message], bars: list[Bar], levels: list[Level], letters: list[bytes]) -> None:
        positions = {m.origin: m.position for m in messages if m.position is not None}
        if not (bars or levels or letters or positions):
            return
        try:
            refused = self._refused + self._write_letters(letters)
            commit = Commit(bars, levels, positions, refused, wall_microseconds())
            self._mark = self._journal.append(commit, self._mark)
        except (StoreError, OSError) as error:
            self._engine = None  # it knows bars that are not on the disk
            raise StoreError(str(error)) from error
        self._refused = refused
        self._positions |= positions

    def _write_letters(self, letters: list[bytes]) -> int:
        """Append to the refused file behind what was committed; return how many bytes."""
        if not letters:
            return 0
        content = b"".join(letters)
        self._refused_file.parent.mkdir(parents=True, exist_ok=True)
        with self._refused_file.open("ab") as handle:
            handle.truncate(self._refused)
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        return len(content)

    def _write(self) -> None:
        """Write the newest row of each symbol that needs it; what fails is tried again with the next batch."""
        assert self._engine is not None
        if not self._unwritten:
            return
        if self._inputs is not None:
            self._join_inputs(self._engine, self._unwritten)
        rows = self._engine.newest(sorted(self._unwritten))
        if rows:
            times = np.array([row.time for row in rows], dtype="datetime64[us]")
            try:
                vectors = OnlineRows.of(np.stack([row.values for row in rows]), times)
                self._store.write([row.symbol for row in rows], vectors, self.schema)
            except StoreError as error:
                self.problem = str(error)
                return
        self._unwritten.clear()
        self.problem = None

    def _caught_up(self) -> Streaming:
        """Return the engine with all in it that is in the journal."""
        if self._engine is None:
            return self._load()
        if self._journal.size() != self._mark:
            commits, self._mark = self._journal.read(self._mark)
            for commit in commits:
                for level in commit.levels:
                    self._engine.observe(level, rows=False)
                for bar in commit.bars:
                    self._engine.update(bar, rows=False)
                self._note(commit)
        return self._engine

    def _note(self, commit: Commit) -> None:
        self._positions |= commit.positions
        self._refused = commit.refused

    def _load(self) -> Streaming:
        """Make the engine from the market's source, which has the journal's bars in it."""
        commits, self._mark = self._journal.read()
        for commit in commits:
            self._note(commit)
        market, layout = self._params.active, self._layout
        source = open_source(
            market, root=layout.root, seed=self._params.seed, streamed=layout.streamed(self._params.market)
        )
        columns = tuple(sorted(input_columns(market))) if self._inputs else ()
        engine = Streaming(self.schema, context=market.context, inputs=columns, late=self._params.stream.late_bars)
        for name in market.context:
            engine.seed_context(name, check_context(source.read_context(name), file=f"context {name}"))
        feed = SourceFeed(layout, self._params, self._clock)
        self._history = {symbol: feed.bars(symbol) for symbol in market.symbols}
        for symbol, bars in self._history.items():
            if len(bars):
                engine.seed(bars)
                self._unwritten.add(symbol)
        self._engine = engine
        return engine

    def _join_inputs(self, engine: Streaming, symbols: Iterable[str]) -> None:
        """Give the kept bars what the market's files beyond bars say of them now."""
        assert self._inputs is not None
        for problem in self._inputs.refresh().values():
            self.problem = problem
        for symbol in symbols:
            engine.join_inputs(symbol, self._inputs.known(symbol, engine.bars(symbol).timestamp))


def _letter(message: Message, reason: str) -> bytes:
    text = message.text if isinstance(message.text, str) else message.text.decode("utf-8", "replace")
    content: dict[str, Any] = {"reason": reason, "message": text, "origin": message.origin}
    return orjson.dumps(content | {"position": message.position}) + b"\n"


def _among(history: Bars | None, bar: Bar) -> bool:
    """Return whether a history has this very bar."""
    if history is None or not len(history):
        return False
    at = int(history.timestamp.searchsorted(np.datetime64(bar.time, "us")))
    if at == len(history) or history.timestamp[at] != np.datetime64(bar.time, "us"):
        return False
    columns = (history.open, history.high, history.low, history.close, history.volume)
    return all(column[at] == value for column, value in zip(columns, bar[2:7], strict=True))
