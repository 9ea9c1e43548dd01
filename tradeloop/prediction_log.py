"""The durable log of predictions: what was answered is on disk before the answer leaves.

Requests that arrive while a commit is being flushed share the next one (group commit), so the disk's flushes bound
latency, not throughput.
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
from sqlalchemy import PoolProxiedConnection, insert, select

from tradeloop.errors import StoreError
from tradeloop.predictor import Prediction
from tradeloop.state.database import Database
from tradeloop.state.tables import PredictionRow

_TABLE = PredictionRow.__table__
_MOST_WAITING = 200_000
_SAME_NAMES = (
    *("id", "market", "symbol", "asked_at", "feature_time", "max_age", "model", "schema_hash", "clock", "verdict"),
    *("p_up", "ret", "ret_low", "ret_high", "range", "range_low", "range_high"),
    *("side", "edge", "arm", "answered", "parent", "latency", "adaptation"),
)

Batch = tuple[Sequence[Prediction], "Future[None]"]


def pack(features: NDArray[np.float32]) -> bytes:
    """Return a feature row (d,) as little-endian float32."""
    return features.astype("<f4", copy=False).tobytes()


def unpack(features: bytes) -> NDArray[np.float32]:
    """Return what `pack` was given."""
    return np.frombuffer(features, dtype="<f4").astype(np.float32)


class PredictionLog:
    """Appends predictions from any number of threads or event loops; one thread of its own writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.native(insert(PredictionRow))
        self._waiting: deque[Batch] = deque()
        self._rows = 0
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
        done: Future[None] = Future()
        rows = [prediction for prediction in predictions if prediction.id is not None]
        if not rows:
            done.set_result(None)
            return done
        done.set_running_or_notify_cancel()  # a request that gives up does not take its rows out of the batch
        with self._wake:
            if self._closed:
                raise StoreError("the prediction log is closed")
            if self._rows + len(rows) > _MOST_WAITING:
                raise StoreError(f"the prediction log is {self._rows} rows behind: the database does not keep up")
            self._waiting.append((rows, done))
            self._rows += len(rows)
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
        while batches := self._take():
            try:
                self._write([prediction for rows, _ in batches for prediction in rows])
            except BaseException as error:  # whatever it is, those who wait must hear of it
                failure = error if isinstance(error, StoreError) else StoreError(f"prediction log: {error}")
                for _, done in batches:
                    done.set_exception(failure)
            else:
                for _, done in batches:
                    done.set_result(None)

    def _take(self) -> list[Batch]:
        """Wait, and return all that is waiting; nothing once the log is closed and empty."""
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            batches = list(self._waiting)
            self._waiting.clear()
            self._rows = 0
            return batches

    def _write(self, predictions: Sequence[Prediction]) -> None:
        now = datetime.now(UTC)
        rows = [self._insert.row(_values(prediction, now)) for prediction in predictions]
        with self._database.driver() as connection:
            try:
                self._insert_all(connection, rows)
            except BaseException:
                connection.rollback()
                raise

    def _insert_all(self, connection: PoolProxiedConnection, rows: Sequence[Any]) -> None:
        cursor = connection.cursor()
        if self._database.engine.dialect.name == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(self._insert.text, rows)
        connection.commit()


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
