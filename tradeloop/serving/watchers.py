"""Models that only watch: they forecast from the very rows of an answer, after it, and are logged beside it.

Each has a thread and a bounded queue of its own, so that one that hangs, fails or is slow loses its own forecasts and
touches neither an answer nor the others. A full queue drops the newest question; what waits keeps its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from tradeloop.errors import StoreError, TradeloopError
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Arm, Prediction
from tradeloop.schema import Schema
from tradeloop.serving.breaker import Breaker
from tradeloop.serving.champion import Loaded
from tradeloop.serving.lineup import Lineup
from tradeloop.serving.pace import Pace
from tradeloop.serving.questions import Question, Tally
from tradeloop.state.feature_rows import OnlineRows

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.05
"""For so long a watcher waits for more questions: a batch costs much less than the same questions one by one."""
BATCH_ROWS = 16
"""A larger batch would hold the interpreter for longer than an answer should have to wait."""
_CLOSE_SECONDS = 5.0


ReadRows = Callable[[Sequence[str], Schema, datetime | None], OnlineRows]


@dataclass(frozen=True)
class _Piece:
    """A question as one watcher sees it: some of the places that another model answered."""

    question: Question
    places: list[int]


class Watcher:
    """One model that watches, in a thread of its own.

    Parameters
    ----------
    most
        Rows that may wait.
    read
        Returns the model's own rows where its schema is another than the champion's.
    """

    def __init__(
        self,
        model: Loaded,
        arm: Arm,
        breaker: Breaker,
        *,
        writer: PredictionLog,
        read: ReadRows,
        tally: Tally,
        pace: Pace,
        max_age: timedelta,
        most: int,
    ) -> None:
        self._part = (model, arm, breaker)
        self._writer = writer
        self._read = read
        self._tally = tally
        self._pace = pace
        self._max_age = max_age
        self._most = most
        self._queue: deque[_Piece] = deque()
        self._rows = 0
        self._closed = False
        self._wake = threading.Condition()
        name = f"watcher-{model.version}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def model(self) -> Loaded:
        """The model that watches."""
        return self._part[0]

    def play(self, model: Loaded, arm: Arm, breaker: Breaker) -> None:
        """Go on with the same bundle in another part, or with another adaptation."""
        self._part = (model, arm, breaker)

    def offer(self, question: Question) -> None:
        """Queue what others answered; never waits."""
        model, _, breaker = self._part
        answers = enumerate(question.answered)
        places = [i for i, answer in answers if answer.id is not None and answer.model != model.hash]
        if not places:
            return
        if not breaker.allows():
            self._tally.dropped(model.version, "breaker", len(places))
            return
        with self._wake:
            room = self._rows + len(places) <= self._most or not self._queue
            if room and not self._closed:
                for start in range(0, len(places), BATCH_ROWS):
                    self._queue.append(_Piece(question, places[start : start + BATCH_ROWS]))
                self._rows += len(places)
                self._wake.notify()
        if not room:
            self._tally.dropped(model.version, "queue", len(places))

    def close(self) -> None:
        """Stop after the batch at hand; what still waits is dropped."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        """Wait for the end, but not for ever: a model that hangs is left to die with the process."""
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while pieces := self._take():
            try:
                with self._pace.turn():
                    self._watch(pieces)
            except Exception as error:  # whatever it is, it is this model's own affair
                self._fail(pieces, error)

    def _take(self) -> list[_Piece]:
        """Wait for questions, gather for a moment, and return a batch; nothing once closed."""
        with self._wake:
            while not self._queue and not self._closed:
                self._wake.wait()
            if self._rows < BATCH_ROWS:
                self._wake.wait_for(lambda: self._closed or self._rows >= BATCH_ROWS, GATHER_SECONDS)
            pieces: list[_Piece] = []
            count = 0
            while self._queue and not self._closed and count + len(self._queue[0].places) <= BATCH_ROWS:
                pieces.append(self._queue.popleft())
                count += len(pieces[-1].places)
            self._rows -= count
        return pieces

    def _watch(self, pieces: Sequence[_Piece]) -> None:
        model, arm, breaker = self._part
        answered = [piece.question.answered[i] for piece in pieces for i in piece.places]
        rows = _joined([self._rows_of(model, piece) for piece in pieces])
        reading = sum(piece.question.reading for piece in pieces) / len(pieces)
        started = time.perf_counter()
        predictions = model.predictor.predict(
            [answer.symbol for answer in answered],
            rows,
            now=[answer.asked_at for answer in answered],
            max_age=self._max_age,
            clock=answered[0].clock,
            arm=arm,
            parents=[str(answer.id) for answer in answered],
            since=started - reading,
        )
        seconds = time.perf_counter() - started
        if breaker.succeeded(seconds):
            self._tally.failed(model.version, str(breaker.reason))
        known = [made for made in predictions if made.id is not None]
        paired = [made for made, of in zip(predictions, answered, strict=True) if made.id and _same_bar(made, of)]
        if other := len(known) - len(paired):
            self._tally.dropped(model.version, "other_bar", other)
        self._tally.watched(model.version, arm, len(paired), seconds)
        self._log(model.version, paired)

    def _rows_of(self, model: Loaded, piece: _Piece) -> OnlineRows:
        """Return the very rows of the answer, or under another schema the model's own rows of the same moment."""
        question, places = piece.question, piece.places
        if question.schema_hash == model.schema.hash:
            return question.rows.at(places)
        return self._read([question.answered[i].symbol for i in places], model.schema, question.as_of)

    def _log(self, version: str, predictions: Sequence[Prediction]) -> None:
        def settled(done: Future[None]) -> None:
            if done.exception() is not None:
                self._tally.dropped(version, "log", len(predictions))

        try:
            self._writer.follow(predictions).add_done_callback(settled)
        except StoreError:
            self._tally.dropped(version, "log", len(predictions))

    def _fail(self, pieces: Sequence[_Piece], error: Exception) -> None:
        model, _, breaker = self._part
        count = sum(len(piece.places) for piece in pieces)
        if isinstance(error, TradeloopError):  # its rows are not there, which says nothing about the model
            self._tally.dropped(model.version, "no_rows", count)
            return
        reason = f"{type(error).__name__}: {error}"
        self._tally.dropped(model.version, "failure", count)
        self._tally.failed(model.version, reason)
        if breaker.failed(reason):
            log.error("challenger %s is left alone for a while: %s", model.version, reason)


class Watchers:
    """All models that watch; `offer` and `follow` are called by different threads.

    Parameters
    ----------
    make
        Returns a started watcher for a model, the arm that it is on, and its breaker.
    budget
        Seconds that a forecast of the champion may take where an arm answered in its place.
    """

    def __init__(self, make: Callable[[Loaded, Arm, Breaker], Watcher], budget: float) -> None:
        self._make = make
        self._champion_breaker = Breaker(budget)
        self._watchers: tuple[Watcher, ...] = ()

    def follow(self, lineup: Lineup) -> None:
        """Let exactly the challengers of `lineup` watch, and the champion beside an arm that answers."""
        wanted: list[tuple[Loaded, Arm, Breaker]] = [(c.model, c.route.mode, c.breaker) for c in lineup.challengers]
        if lineup.shared:
            wanted.append((lineup.champion, "champion", self._champion_breaker))
        old = {watcher.model.hash: watcher for watcher in self._watchers}
        watchers = []
        for model, arm, breaker in wanted:
            watcher = old.pop(model.hash, None) or self._make(model, arm, breaker)
            watcher.play(model, arm, breaker)
            watchers.append(watcher)
        self._watchers = tuple(watchers)
        for watcher in old.values():
            watcher.close()

    def offer(self, question: Question) -> None:
        """Show everybody what was answered."""
        for watcher in self._watchers:
            watcher.offer(question)

    def close(self) -> None:
        """Stop them all."""
        for watcher in self._watchers:
            watcher.close()
        for watcher in self._watchers:
            watcher.join()


def _same_bar(made: Prediction, answered: Prediction) -> bool:
    """Return whether both are of one bar: what is compared must have one outcome. A row that is missing is of none."""
    return made.feature_time is None or made.feature_time == answered.feature_time


def _joined(parts: Sequence[OnlineRows]) -> OnlineRows:
    if len(parts) == 1:
        return parts[0]
    return OnlineRows(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.feature_time for part in parts]),
        np.concatenate([part.found for part in parts]),
    )
