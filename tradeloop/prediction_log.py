"""The durable log of predictions: what was answered is on disk before the answer leaves.

Requests that arrive while a commit is being flushed share the next one (group commit), so the disk's flushes bound
latency, not throughput. What challengers said follows: it rides along with the next commit or, when none comes, gets
one of its own a moment later; when it cannot be written, the answers beside it still are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select
from sqlalchemy.engine.interfaces import DBAPICursor

from tradeloop.errors import StoreError
from tradeloop.predictor import Prediction
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow

_TABLE = PredictionRow.__table__
_MOST_WAITING = 200_000
_MOST_FOLLOWING = 20_000
_FOLLOW_SECONDS = 0.05
"""For so long, predictions that nobody waits for may wait for a commit that they can share."""
_SAME_NAMES = (
    *("id", "market", "symbol", "asked_at", "feature_time", "max_age", "model", "schema_hash", "clock", "verdict"),
    *("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high"),
    *("side", "edge", "arm", "answered", "parent", "latency", "adaptation"),
)

Batch = tuple[Sequence[Any], "Future[None]"]
"""Predictions, or rows in the form that the driver wants, and who waits for them."""


def pack(features: NDArray[np.float32]) -> bytes:
    """Return a feature row (d,) as little-endian float32."""
    return features.astype("<f4", copy=False).tobytes()


def unpack(features: bytes) -> NDArray[np.float32]:
    """Return what `pack` was given."""
    return np.frombuffer(features, dtype="<f4").astype(np.float32)


class _Queue:
    """Batches that wait to be written, up to a number of rows."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batch: Batch) -> None:
        """Add a batch; StoreError where there is no room."""
        if self._rows + len(batch[0]) > self._most:
            raise StoreError(f"the prediction log is {self._rows} rows behind: the database does not keep up")
        self._batches.append(batch)
        self._rows += len(batch[0])

    def take(self) -> list[Batch]:
        """Empty the queue."""
        taken = list(self._batches)
        self._batches.clear()
        self._rows = 0
        return taken


class PredictionLog:
    """Appends predictions from any number of threads or event loops; one thread of its own writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.native(insert(PredictionRow))
        self._waiting = _Queue(_MOST_WAITING)
        self._following = _Queue(_MOST_FOLLOWING)
        self._closed = False
        self._wake = threading.Condition()
        self._writer = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._writer.start()

    def append(self, predictions: Sequence[Prediction]) -> Future[None]:
        """Queue predictions; the future is done once all of them are on disk, or holds why none of them is.

        Predictions without an id (unknown symbols) are skipped.

        Raises
        ------
        StoreError
            The log is closed, or 200,000 predictions are waiting: the disk does not keep up.
        """
        known = [prediction for prediction in predictions if prediction.id is not None]
        return self._queue(known, self._waiting)

    def follow(self, predictions: Sequence[Prediction]) -> Future[None]:
        """Queue predictions that nobody waits for, as `append`; what is lost in a crash is never written twice.

        Raises
        ------
        StoreError
            The log is closed, or 20,000 of them are waiting.
        """
        known = [prediction for prediction in predictions if prediction.id is not None]
        try:  # here, not in the writer's thread: an answer may be waiting there
            rows = self._rows_of(known)
        except Exception as error:
            done: Future[None] = Future()
            _settle([((), done)], error)
            return done
        return self._queue(rows, self._following)

    def _queue(self, rows: Sequence[Any], queue: _Queue) -> Future[None]:
        done: Future[None] = Future()
        if not rows:
            done.set_result(None)
            return done
        done.set_running_or_notify_cancel()  # a request that gives up does not take its rows out of the batch
        with self._wake:
            if self._closed:
                raise StoreError("the prediction log is closed")
            first = not queue
            queue.put((rows, done))
            if first:  # more of the same must not put off those who only follow
                self._wake.notify()
        return done

    def close(self) -> None:
        """Write what is waiting, then stop; appending afterwards is an error."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._writer.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while taken := self._take():
            batches, followers = taken
            try:
                missed = self._write(batches, followers)
            except BaseException as error:  # whatever it is, those who wait must hear of it
                _settle(batches + followers, error)
            else:
                _settle(batches)
                _settle(followers, missed)

    def _take(self) -> tuple[list[Batch], list[Batch]] | None:
        """Wait, and return all that is waiting and all that follows; None once the log is closed and empty."""
        with self._wake:
            while not self._waiting and not self._closed:
                following = bool(self._following)
                if not self._wake.wait(_FOLLOW_SECONDS if following else None) and following:
                    break
            batches, followers = self._waiting.take(), self._following.take()
        return (batches, followers) if batches or followers else None

    def _write(self, batches: Sequence[Batch], followers: Sequence[Batch]) -> Exception | None:
        """Write everything in one transaction; return why the followers are not part of it, if they are not."""
        rows = self._rows_of([prediction for known, _ in batches for prediction in known])
        with self._database.driver() as connection:
            try:
                cursor = connection.cursor()
                if self._database.engine.dialect.name == "sqlite":
                    cursor.execute("BEGIN IMMEDIATE")
                if rows:
                    cursor.executemany(self._insert.text, rows)
                missed = self._add(cursor, followers) if followers else None
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        return missed

    def _add(self, cursor: DBAPICursor, followers: Sequence[Batch]) -> Exception | None:
        """Write the followers within the transaction; whatever is wrong with them, the rest of it stays whole."""
        cursor.execute("SAVEPOINT followers")
        try:
            cursor.executemany(self._insert.text, [row for rows, _ in followers for row in rows])
        except Exception as error:
            cursor.execute("ROLLBACK TO SAVEPOINT followers")
            return error
        return None

    def _rows_of(self, predictions: Sequence[Prediction]) -> list[Any]:
        now = datetime.now(UTC)
        return [self._insert.row(_values(prediction, now)) for prediction in predictions]


def _settle(batches: Sequence[Batch], error: BaseException | None = None) -> None:
    """Tell those who wait that their predictions are on disk, or why they are not."""
    failure = error if error is None or isinstance(error, StoreError) else StoreError(f"prediction log: {error}")
    for _, done in batches:
        if failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)


def _values(prediction: Prediction, now: datetime) -> dict[str, Any]:
    values = {name: getattr(prediction, name) for name in _SAME_NAMES}
    values |= {"logged_at": now, "features": pack(prediction.features), "reasons": list(prediction.reasons)}
    return values


def read_prediction(database: Database, prediction_id: str) -> dict[str, Any]:
    """Return a logged prediction by column name, its features as float32 (d,).

    Raises
    ------
    StoreError
        No prediction has that id.
    """
    with database.read() as connection:
        row = connection.execute(select(_TABLE).where(_TABLE.c.id == prediction_id)).mappings().one_or_none()
    if row is None:
        raise StoreError(f"no prediction has the id {prediction_id!r}")
    return {**row, "features": unpack(row["features"])}
