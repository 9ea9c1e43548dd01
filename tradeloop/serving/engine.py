"""The engine behind the routes: features, forecast, durable log, answer; and the watch over registry and store.

The event loop's thread answers small requests itself: a hand-over to another thread costs more than they do. A thread
of its own (`_control`) does what may take long: start, swaps, refills of the online store. Another one (`_bulk`) takes
the requests for many symbols, so that they don't hold up the others; two more (`_queries`) what asks the database.
Models that only watch come after the answer, see `watchers`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tradeloop.bundle import Bundle
from tradeloop.config import Params
from tradeloop.errors import SchemaMismatch, StoreError, TradeloopError
from tradeloop.layout import Layout
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction
from tradeloop.registry import Change
from tradeloop.serving.answers import whole
from tradeloop.serving.gauges import Gauges
from tradeloop.serving.incidents import Incidents
from tradeloop.serving.lineup import Lineup
from tradeloop.serving.parts import Parts
from tradeloop.serving.questions import Question
from tradeloop.serving.requests import PredictRequest, RequestError, parse_predict
from tradeloop.serving.telemetry import Telemetry
from tradeloop.serving.upkeep import EVERY_SECONDS, Upkeep
from tradeloop.state.database import Database

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
"""How often the registry is asked whether there is anything new."""
_RETRY_SECONDS = 1.0
_INLINE = 32
"""Up to this many symbols are answered on the event loop's own thread."""

T = TypeVar("T")


class Engine:
    """One worker's service. Build it in the worker; `run` must be running on the worker's event loop.

    Parameters
    ----------
    baked
        The Bento's own bundle, or None; it serves until the registry has a champion.
    counted
        Where to count; by default in the worker's metrics.
    """

    def __init__(
        self,
        layout: Layout,
        params: Params,
        *,
        baked: Path | None = None,
        counted: CollectorRegistry | None = None,
    ) -> None:
        self._layout = layout
        self._params = params
        self._baked = baked
        self._telemetry = Telemetry(counted)
        self._incidents = Incidents(self._telemetry)
        self._upkeep = Upkeep(params, self._incidents, Gauges(counted))
        self._control = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._bulk = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self._queries = ThreadPoolExecutor(2, thread_name_prefix="queries")
        self._parts: Parts | None = None
        self._unready = "the service is starting"
        self._began = False

    @property
    def ready(self) -> bool:
        """Whether a champion is loaded, the online store is filled and the database answers."""
        return not self._unready

    async def run(self) -> None:
        """Start, then watch the registry until cancelled; what fails is tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._keep_up())

    async def predict(self, body: bytes) -> dict[str, Any]:
        """Answer a predict request; every prediction in the answer is on disk.

        Raises
        ------
        RequestError
            400 or 422 for a bad request, 409 if `as_of` asks for features of another schema, 503 where there is no
            model, no feature store, or the log fails: then nothing is answered.
        """
        since = time.perf_counter()
        request = parse_predict(body, max_symbols=self._params.serving.max_symbols)
        parts, lineup = self._serving()
        if request.as_of is not None and parts.features.clock.mode != "replay":
            raise RequestError(422, f"as_of needs the replay clock, this market's is {parts.features.clock.mode}")
        parts.pace.begin()
        try:
            question = await self._forecast(parts, lineup, request, since)
            await self._durable(parts.log, question.answered)
        except SchemaMismatch as error:
            raise RequestError(409, str(error)) from None
        except StoreError as error:
            log.error("a request was not answered: %s", error)
            raise RequestError(503, str(error)) from None
        finally:
            parts.pace.end()
        # Not before the answer has left: it is written before the loop comes to its next turn.
        asyncio.get_running_loop().call_soon(parts.watchers.offer, question)
        self._count(question.answered)
        return whole(lineup.champion.to_dict(), question.answered)

    async def models(self) -> dict[str, Any]:
        """Return what serves, who else takes part, what was refused, and what is registered."""
        parts = self._started()
        models = await _on(self._queries, parts.registry.models)
        holder = parts.holder
        lineup, refused = holder.current, holder.refused
        return {
            "serving": lineup.champion.to_dict() if lineup else None,
            "refused": refused.to_dict() if refused else None,
            "challengers": holder.challengers(),
            "models": [model.to_dict() for model in models],
        }

    async def query(self, ask: Callable[[Database], T]) -> T:
        """Ask the database something, or write to it, without holding up the event loop."""
        database = self._started().database
        return await _on(self._queries, lambda: ask(database))

    @property
    def params(self) -> Params:
        """The parameters that the service started with."""
        return self._params

    @property
    def layout(self) -> Layout:
        """Where the project lies."""
        return self._layout

    @property
    def bundle(self) -> Bundle | None:
        """The bundle of the model that serves; None while there is none."""
        lineup = self._parts.holder.current if self._parts else None
        return lineup.champion.bundle if lineup else None

    @property
    def telemetry(self) -> Telemetry:
        """Where the service counts."""
        return self._telemetry

    def clock(self) -> tuple[str, datetime | None]:
        """Return the market's clock: its mode, and its time, None where a replayed market has no bar yet."""
        clock = self._started().features.clock
        try:
            return clock.mode, clock.now()
        except StoreError:
            return clock.mode, None

    def now(self) -> datetime:
        """Return the market's time; StoreError where a replayed market has no bar yet."""
        return self._started().features.clock.now()

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
        for executor in (self._control, self._bulk, self._queries):
            executor.shutdown()
        if self._parts is not None:
            self._parts.close()

    async def _watch(self) -> None:
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

    async def _keep_up(self) -> None:
        """Do the upkeep every few seconds; without it the service answers all the same."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            if self._parts is not None:
                database, (mode, now) = self._parts.database, self.clock()
                work = partial(
                    self._upkeep.do, database, mode=mode, now=now, unready=self._unready, serving=self.bundle
                )
                try:
                    await _on(self._queries, work)
                except Exception as error:
                    log.warning("heartbeat, errors and gauges have to wait: %s", error)

    def _turn(self) -> None:
        """Start if that is still to be done; else look for a change of models and for newer bars."""
        if self._parts is None:
            self._parts = Parts.open(self._layout, self._params, self._telemetry, self._incidents, baked=self._baked)
        parts = self._parts
        changed = parts.holder.refresh()
        lineup = parts.holder.current
        if lineup is None:
            refused = parts.holder.refused
            raise StoreError(refused.reason if refused else "no model is promoted, and the Bento carries none")
        champion = lineup.champion
        if self._unready:
            parts.features.prepare(champion.schema)
        parts.features.tick(champion.schema)
        if changed or self._unready:
            parts.watchers.follow(lineup)
            # What is loaded now stays: the collector need not walk it, which is where the slowest requests came from.
            gc.collect()
            gc.freeze()
        if self._unready:
            log.info("ready: market %s, model %s", self._params.market, champion.version)
            self._unready, self._began = "", True

    def _complain(self, reason: str) -> None:
        if reason != self._unready:
            log.error("not ready: %s", reason)
            self._unready = reason

    def _started(self) -> Parts:
        if self._parts is None:
            raise RequestError(503, self._unready)
        return self._parts

    def _serving(self) -> tuple[Parts, Lineup]:
        parts = self._started()
        lineup = parts.holder.current
        if lineup is None or not self._began:
            raise RequestError(503, self._unready)
        return parts, lineup

    async def _forecast(self, parts: Parts, lineup: Lineup, request: PredictRequest, since: float) -> Question:
        """Answer each symbol; where rows lack that could be there, fill them in and ask again."""

        def compute() -> Question:
            return parts.forecaster.answer(lineup, request.symbols, request.as_of, since)

        inline = request.as_of is None and len(request.symbols) <= _INLINE
        question = compute() if inline else await _on(self._bulk, compute)
        schema, features = lineup.champion.schema, parts.features
        if request.as_of is None and features.may_repair(schema) and any(map(_lacks_row, question.answered)):
            await _on(self._control, lambda: features.repair(schema))
            question = compute() if inline else await _on(self._bulk, compute)
        return question

    async def _durable(self, writer: PredictionLog, predictions: Sequence[Prediction]) -> None:
        started = time.perf_counter()
        try:
            await asyncio.wrap_future(writer.append(predictions))
        except StoreError:
            self._telemetry.log_failed()
            raise
        self._telemetry.logged(time.perf_counter() - started)

    def _count(self, predictions: Sequence[Prediction]) -> None:
        known = [prediction for prediction in predictions if prediction.id is not None]
        self._telemetry.answered(known)
        self._telemetry.unknown(len(predictions) - len(known))

    async def _change(self, act: Callable[[], Change]) -> dict[str, Any]:
        change = await _on(self._control, act)
        _, lineup = self._serving()
        return {
            "champion": {"version": change.record.version, "hash": change.record.hash},
            "previous": change.previous.version if change.previous else None,
            "changed": change.changed,
            "serving": lineup.champion.to_dict(),
        }


def _lacks_row(prediction: Prediction) -> bool:
    return prediction.id is not None and prediction.feature_time is None


async def _on(executor: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
