"""POST /observe: a bot that has the bars hands them in, and what `tradeloop stream` does with them is done here.

The features' code is loaded at the first request, in a thread of its own: until it is there the answer is 503, to be
tried again. One thread takes all bars; others may write to the same journal meanwhile, see `tradeloop.stream`.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tradeloop.config import Params
from tradeloop.errors import SchemaMismatch, StoreError, TradeloopError
from tradeloop.layout import Layout
from tradeloop.serving.answers import Failure
from tradeloop.serving.http import answer, authorize, body_of, engine_of, read
from tradeloop.serving.requests import RequestError, parse

if TYPE_CHECKING:
    from tradeloop.schema import Schema
    from tradeloop.stream.consumer import Consumer, Taken

MOST = 1000
WAIT_SECONDS = 1.5
"""Before BentoML's own timeout of two seconds."""
_SOURCES = ("tradeloop.sources.bundled", "tradeloop.sources.files", "tradeloop.sources.synthetic")
"""What `open_source` imports by name: a Bento carries the modules that are named somewhere."""


class ObserveRequest(BaseModel):
    """Closed bars, and values of context series, as `tradeloop.stream.messages` has them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bars: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MOST,
            examples=[
                [{"symbol": "AAPL", "timestamp": "2013-03-01T21:00:00Z", "open": 438.0, "high": 438.2, "low": 430.0,
                  "close": 430.5, "volume": 19730000}]
            ],
        ),
    ]  # fmt: skip


class Observed(BaseModel):
    """What became of one bar or context value; `feature_time` is that of the symbol's newest row, now online."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: str | None
    status: Literal["new", "late", "restated", "duplicate", "too_old", "context", "refused"]
    feature_time: datetime | None
    reason: str | None


class ObserveAnswer(BaseModel):
    """What became of each, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    market: str
    bars: list[Observed]


class RefusedBars(ObserveAnswer):
    """The same where not one was taken: `error` says why the first was not."""

    error: str


class Observer:
    """Takes bars for the service; made at the first of them.

    Parameters
    ----------
    layout, params
        The project's.
    """

    def __init__(self, layout: Layout, params: Params) -> None:
        self._layout = layout
        self._params = params
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="observe")
        self._starting: Future[Consumer] | None = None

    async def take(self, said: list[Any], served: Schema | None) -> list[dict[str, Any]]:
        """Return what became of bars and context values, as `Observed`.

        Parameters
        ----------
        served
            Schema of the champion's features; None where there is no champion.

        Raises
        ------
        SchemaMismatch
            This code makes other features than the champion reads; nothing was taken.
        StoreError
            The journal, the online store or the features are not there (yet). What is in the journal by then is a
            duplicate the next time, and its row is written then.
        """
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = self._thread.submit(self._start)
        try:
            consumer = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._starting)), WAIT_SECONDS)
        except TimeoutError:
            raise StoreError("the features are being loaded: try again in a few seconds") from None
        if served is not None:
            served.require(consumer.schema.hash, what="what this service computes")
        work = self._thread.submit(_take, consumer, said)
        return await asyncio.shield(asyncio.wrap_future(work))

    def _start(self) -> Consumer:
        try:
            from tradeloop.stream.consumer import Consumer
        except ImportError as error:
            raise StoreError(f"no features can be computed here ({error}): run `tradeloop stream` instead") from error
        consumer = Consumer(self._layout, self._params)
        consumer.start()
        return consumer


def add_route(app: FastAPI) -> None:
    """Add the route to the app."""
    responses: dict[int | str, dict[str, Any]] = {code: {"model": Failure} for code in (400, 401, 409, 413, 503)}
    responses[422] = {"model": RefusedBars}
    body = body_of(ObserveRequest)
    app.post("/observe", response_model=ObserveAnswer, responses=responses, openapi_extra=body)(_observe)


async def _observe(request: Request) -> Response:
    """Take closed bars: on the disk for the next training, their features online; needs the token if there is one."""
    authorize(request, open_without_token=True)
    said = parse(ObserveRequest, await read(request)).bars
    engine = engine_of(request)
    observer: Observer | None = getattr(request.app.state, "observer", None)
    if observer is None:
        observer = request.app.state.observer = Observer(engine.layout, engine.params)
    try:
        served = engine.bundle
        bars = await observer.take(said, served.schema if served else None)
    except SchemaMismatch as error:
        raise RequestError(409, str(error)) from None
    except TradeloopError as error:
        raise RequestError(503, str(error)) from None
    content = {"market": engine.params.market, "bars": bars}
    if any(bar["status"] != "refused" for bar in bars):
        return answer(content)
    return answer({"error": f"none of {len(bars)} bars was taken; the first: {bars[0]['reason']}", **content}, 422)


def _take(consumer: Consumer, said: list[Any]) -> list[dict[str, Any]]:
    """Take bars in the observer's thread."""
    from tradeloop.stream.consumer import Message

    taken = consumer.take([Message(json.dumps(one), "observe") for one in said])
    if consumer.problem is not None:
        raise StoreError(f"the bars are on the disk, but not online: {consumer.problem}")
    return [_observed(one, consumer) for one in taken]


def _observed(taken: Taken, consumer: Consumer) -> dict[str, Any]:
    newest = None
    if taken.symbol is not None and taken.status not in ("context", "refused"):
        moment = consumer.newest(taken.symbol)
        newest = None if moment is None else datetime.fromtimestamp(moment / 1e6, UTC).isoformat()
    return {"symbol": taken.symbol, "status": taken.status, "feature_time": newest, "reason": taken.reason}
