"""The engine behind the routes: features, forecast, durable log, answer; and the watch over champion and store.

The event loop's thread answers small requests itself: a hand-over to another thread costs more than they do. A thread
of its own (`_control`) does what may take long: start, swaps, refills of the online store. Another one (`_bulk`) takes
the requests for many symbols, so that they don't hold up the others.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, parse_interval
from tradeloop.errors import SchemaMismatch, StoreError, TradeloopError
from tradeloop.layout import Layout
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction
from tradeloop.registry import Change, Registry
from tradeloop.serving.answers import entry
from tradeloop.serving.champion import Champion, ChampionHolder
from tradeloop.serving.features import FeatureReader
from tradeloop.serving.requests import PredictRequest, RequestError, parse_predict
from tradeloop.serving.telemetry import Telemetry
from tradeloop.state.database import Database, database_url

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
"""How often the registry is asked whether there is a new champion."""
_RETRY_SECONDS = 1.0
_BUSY_SECONDS = 1.0
"""A database that another process holds for longer is an answer 503, before BentoML's own timeout of two seconds."""
_INLINE = 32
"""Up to this many symbols are answered on the event loop's own thread."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Parts:
    """What is there once the service has started."""

    database: Database
    log: PredictionLog
    registry: Registry
    holder: ChampionHolder
    features: FeatureReader


class Engine:
    """One worker's service. Build it in the worker; `run` must be running on the worker's event loop.

    Parameters
    ----------
    baked
        The Bento's own bundle, or None; it serves until the registry has a champion.
    telemetry
        Where to count; by default in the worker's metrics.
    """

    def __init__(
        self, layout: Layout, params: Params, *, baked: Path | None = None, telemetry: Telemetry | None = None
    ) -> None:
        self._layout = layout
        self._params = params
        self._baked = baked
        self._max_age = parse_interval(params.active.max_age)
        self._telemetry = telemetry or Telemetry()
        self._control = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._bulk = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self._parts: _Parts | None = None
        self._unready = "the service is starting"
        self._began = False

    @property
    def ready(self) -> bool:
        """Whether a champion is loaded, the online store is filled and the database answers."""
        return not self._unready

    async def run(self) -> None:
        """Start, then watch the registry until cancelled; what fails is tried again."""
        while True:
            try:
                await _on(self._control, self._turn)
                await asyncio.sleep(WATCH_SECONDS)
            except TradeloopError as error:
                self._complain(str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                log.exception("the watch over the registry failed")
                await asyncio.sleep(_RETRY_SECONDS)

    async def predict(self, body: bytes) -> dict[str, Any]:
        """Answer a predict request; every prediction in the answer is on disk.

        Raises
        ------
        RequestError
            400 or 422 for a bad request, 409 if `as_of` asks for features of another schema, 503 where there is no
            model, no feature store, or the log fails: then nothing is answered.
        """
        request = parse_predict(body, max_symbols=self._params.serving.max_symbols)
        parts, champion = self._serving()
        if request.as_of is not None and parts.features.clock.mode != "replay":
            raise RequestError(422, f"as_of needs the replay clock, this market's is {parts.features.clock.mode}")
        try:
            predictions = await self._forecast(parts, champion, request)
            await self._durable(parts.log, predictions)
        except SchemaMismatch as error:
            raise RequestError(409, str(error)) from None
        except StoreError as error:
            log.error("a request was not answered: %s", error)
            raise RequestError(503, str(error)) from None
        return self._answer(champion, predictions)

    async def models(self) -> dict[str, Any]:
        """Return what serves, what was refused, and what is registered."""
        parts = self._started()
        models = await _on(self._control, parts.registry.models)
        current, refused = parts.holder.current, parts.holder.refused
        return {
            "serving": current.to_dict() if current else None,
            "refused": refused.to_dict() if refused else None,
            "models": [model.to_dict() for model in models],
        }

    async def promote(self, version: str) -> dict[str, Any]:
        """Verify and promote a registered model; it serves here when this returns."""
        holder = self._started().holder
        return await self._change(lambda: holder.promote(version, actor="http", reason="POST /promote"))

    async def rollback(self, to: str | None) -> dict[str, Any]:
        """Verify and go back to a former champion; it serves here when this returns."""
        holder = self._started().holder
        return await self._change(lambda: holder.rollback(to, actor="http", reason="POST /rollback"))

    def close(self) -> None:
        """Finish what is being written and let go of everything."""
        self._control.shutdown()
        self._bulk.shutdown()
        if self._parts is not None:
            self._parts.log.close()
            self._parts.features.close()
            self._parts.database.close()

    def _turn(self) -> None:
        """Start if that is still to be done; else look for a new champion and newer bars."""
        if self._parts is None:
            self._parts = self._open()
        parts = self._parts
        swapped = parts.holder.refresh()
        champion = parts.holder.current
        if champion is None:
            refused = parts.holder.refused
            raise StoreError(refused.reason if refused else "no model is promoted, and the Bento carries none")
        if self._unready:
            parts.features.prepare(champion.schema)
        parts.features.tick(champion.schema)
        if swapped or self._unready:
            # What is loaded now stays: the collector need not walk it, which is where the slowest requests came from.
            gc.collect()
            gc.freeze()
        if self._unready:
            log.info("ready: market %s, model %s", self._params.market, champion.version)
            self._unready, self._began = "", True

    def _open(self) -> _Parts:
        database = Database.open(database_url(self._layout, self._params), busy_timeout=_BUSY_SECONDS)
        try:
            features = FeatureReader(self._layout, self._params)
            registry = Registry(database, self._params.market)
            holder = ChampionHolder(
                registry,
                BundleStore(self._layout, self._params).get,
                baked=self._baked,
                on_swap=lambda champion: self._on_swap(features, champion),
                on_refusal=self._telemetry.refused,
            )
            return _Parts(database, PredictionLog(database), registry, holder, features)
        except BaseException:
            database.close()
            raise

    def _on_swap(self, features: FeatureReader, champion: Champion) -> None:
        """Make the new champion's features ready. One without features abstains: better than the one replaced."""
        if not self._unready:
            try:
                features.prepare(champion.schema)
            except StoreError as error:
                log.error("champion %s will abstain: %s", champion.version, error)
        self._telemetry.serves(champion.version, champion.source)

    def _complain(self, reason: str) -> None:
        if reason != self._unready:
            log.error("not ready: %s", reason)
            self._unready = reason

    def _started(self) -> _Parts:
        if self._parts is None:
            raise RequestError(503, self._unready)
        return self._parts

    def _serving(self) -> tuple[_Parts, Champion]:
        parts = self._started()
        champion = parts.holder.current
        if champion is None or not self._began:
            raise RequestError(503, self._unready)
        return parts, champion

    async def _forecast(self, parts: _Parts, champion: Champion, request: PredictRequest) -> list[Prediction]:
        """Return a prediction for each symbol; where rows lack that could be there, fill them in and ask again."""
        predictions = await self._compute(parts.features, champion, request)
        if request.as_of is None and parts.features.may_repair(champion.schema) and any(map(_lacks_row, predictions)):
            await _on(self._control, lambda: parts.features.repair(champion.schema))
            predictions = await self._compute(parts.features, champion, request)
        return predictions

    async def _compute(self, features: FeatureReader, champion: Champion, request: PredictRequest) -> list[Prediction]:
        def compute() -> list[Prediction]:
            if request.as_of is None:
                asked = features.read(request.symbols, champion.schema)
            else:
                asked = features.as_of(request.symbols, champion.schema, request.as_of)
            return champion.predictor.predict(
                request.symbols, asked.rows, now=asked.now, max_age=self._max_age, clock=features.clock.mode
            )

        if request.as_of is None and len(request.symbols) <= _INLINE:
            return compute()
        return await _on(self._bulk, compute)

    async def _durable(self, writer: PredictionLog, predictions: list[Prediction]) -> None:
        started = time.perf_counter()
        try:
            await asyncio.wrap_future(writer.append(predictions))
        except StoreError:
            self._telemetry.log_failed()
            raise
        self._telemetry.logged(time.perf_counter() - started)

    def _answer(self, champion: Champion, predictions: list[Prediction]) -> dict[str, Any]:
        known = [prediction for prediction in predictions if prediction.id is not None]
        self._telemetry.answered(champion.version, known)
        self._telemetry.unknown(len(predictions) - len(known))
        first = predictions[0]
        return {
            "market": first.market,
            "clock": {"mode": first.clock, "now": first.asked_at},
            "model": champion.to_dict(),
            "predictions": [entry(prediction) for prediction in predictions],
        }

    async def _change(self, act: Callable[[], Change]) -> dict[str, Any]:
        change = await _on(self._control, act)
        _, champion = self._serving()
        return {
            "champion": {"version": change.record.version, "hash": change.record.hash},
            "previous": change.previous.version if change.previous else None,
            "changed": change.changed,
            "serving": champion.to_dict(),
        }


def _lacks_row(prediction: Prediction) -> bool:
    return prediction.id is not None and prediction.feature_time is None


async def _on(executor: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
