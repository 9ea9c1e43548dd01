"""The routes below /api/ml: what the loop knows, decided and did, and a person's wish to retrain.

All of them ask the database, in threads of their own: a heavy query never holds up a forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from tradeloop.serving.answers import Failure
from tradeloop.serving.http import answer, authorize, body_of, engine_of, read
from tradeloop.serving.loop_answers import (
    AdaptationsAnswer,
    EventsAnswer,
    ExperimentsAnswer,
    JobAnswer,
    MLModelsAnswer,
    OutcomesAnswer,
    PerformanceAnswer,
    RetrainAnswer,
    RetrainingAnswer,
    StatusAnswer,
)
from tradeloop.serving.requests import (
    AcknowledgeRequest,
    AdaptationsQuery,
    CancelRequest,
    EventsQuery,
    ExperimentsQuery,
    NoQuery,
    OutcomesQuery,
    PerformanceQuery,
    RequestError,
    RetrainQuery,
    RetrainRequest,
    parse,
    parse_query,
)

if TYPE_CHECKING:
    from tradeloop.state.database import Database

_Codes = dict[int | str, dict[str, Any]]


def add_routes(app: FastAPI) -> None:
    """Add the routes to the app."""
    failures: _Codes = {code: {"model": Failure} for code in (422, 503)}
    closed: _Codes = {code: {"model": Failure} for code in (400, 401, 403, 413, 422, 503)}
    for name, endpoint, query, model in (
        ("performance", _performance, PerformanceQuery, PerformanceAnswer),
        ("experiments", _experiments, ExperimentsQuery, ExperimentsAnswer),
        ("models", _models, NoQuery, MLModelsAnswer),
        ("retrain", _retraining, RetrainQuery, RetrainingAnswer),
        ("status", _status, NoQuery, StatusAnswer),
        ("outcomes", _outcomes, OutcomesQuery, OutcomesAnswer),
        ("adaptations", _adaptations, AdaptationsQuery, AdaptationsAnswer),
        ("events", _events, EventsQuery, EventsAnswer),
    ):
        described = _parameters(query)
        app.get(f"/api/ml/{name}", response_model=model, responses=failures, openapi_extra=described)(endpoint)
    closed[409] = {"model": Failure}
    for name, act, wanted, told in (
        ("retrain", _retrain, RetrainRequest, RetrainAnswer),
        ("cancel", _cancel, CancelRequest, JobAnswer),
        ("acknowledge", _acknowledge, AcknowledgeRequest, JobAnswer),
    ):
        body = body_of(wanted)
        app.post(f"/api/ml/{name}", response_model=told, responses=closed, openapi_extra=body)(act)


async def _performance(request: Request) -> Response:
    """Show the newest windows of live performance, and what to expect of predictions without outcome."""
    from tradeloop.monitoring.cbpe import expected_of_open
    from tradeloop.monitoring.queries import performance

    query = parse_query(PerformanceQuery, request.query_params.multi_items())
    engine = engine_of(request)
    market, filters = engine.params.market, query.model_dump(exclude_none=True)

    def ask(database: Database) -> dict[str, Any]:
        serving = engine.bundle
        expected = serving and expected_of_open(database, market, serving.hash, serving.reference)
        return {"market": market, "expected": expected, "windows": performance(database, market, **filters)}

    return answer(await engine.query(ask))


async def _experiments(request: Request) -> Response:
    """List the newest attempts at training: code, data, parameters, cost, and what came of them."""
    from tradeloop.monitoring.overview import experiments

    query = parse_query(ExperimentsQuery, request.query_params.multi_items())
    engine = engine_of(request)
    market = engine.params.market
    return answer(await engine.query(lambda database: experiments(database, market, limit=query.limit, job=query.job)))


async def _models(request: Request) -> Response:
    """List every version with its state, its part as a challenger, and its holdout metrics."""
    from tradeloop.monitoring.overview import models

    parse_query(NoQuery, request.query_params.multi_items())
    engine = engine_of(request)
    return answer(await engine.query(lambda database: models(database, engine.params.market)))


async def _retraining(request: Request) -> Response:
    """List the retrainings that wait, that run, and the newest that ended."""
    from tradeloop.monitoring.overview import retraining

    query = parse_query(RetrainQuery, request.query_params.multi_items())
    engine = engine_of(request)
    return answer(await engine.query(lambda database: retraining(database, engine.params.market, limit=query.limit)))


async def _retrain(request: Request) -> Response:
    """Ask for a retraining: it waits in the queue until the loop takes it; needs the token."""
    from tradeloop.monitoring.asked import ask_retraining

    authorize(request)
    wanted = parse(RetrainRequest, await read(request))
    engine = engine_of(request)

    def ask(database: Database) -> dict[str, Any]:
        job, created = ask_retraining(
            database, engine.params, actor="http", reason=wanted.reason, market_time=engine.now(), key=wanted.key
        )
        return {"job": job.to_dict(), "created": created}

    return answer(await engine.query(ask))


async def _cancel(request: Request) -> Response:
    """Withdraw a retraining that waits or runs; needs the token."""
    from tradeloop.monitoring.asked import cancel

    authorize(request)
    wanted = parse(CancelRequest, await read(request))
    engine = engine_of(request)
    market = engine.params.market
    job, changed = await engine.query(
        lambda database: cancel(database, market, wanted.job, actor="http", reason=wanted.reason)
    )
    return answer({"job": job.to_dict(), "changed": changed})


async def _acknowledge(request: Request) -> Response:
    """Note that a failed retraining is known of: it alarms no more; needs the token."""
    from tradeloop.monitoring.asked import acknowledge

    authorize(request)
    wanted = parse(AcknowledgeRequest, await read(request))
    engine = engine_of(request)
    market = engine.params.market
    job, changed = await engine.query(lambda database: acknowledge(database, market, wanted.job, actor="http"))
    return answer({"job": job.to_dict(), "changed": changed})


async def _outcomes(request: Request) -> Response:
    """List how predictions ended, beside what they said."""
    from tradeloop.monitoring.overview import outcomes

    query = parse_query(OutcomesQuery, request.query_params.multi_items())
    engine = engine_of(request)
    market, filters = engine.params.market, query.model_dump()
    return answer(await engine.query(lambda database: outcomes(database, market, **filters)))


async def _adaptations(request: Request) -> Response:
    """List what was learned of a model between retrainings, and which of it applies."""
    from tradeloop.monitoring.overview import adaptations
    from tradeloop.registry import Registry

    query = parse_query(AdaptationsQuery, request.query_params.multi_items())
    engine = engine_of(request)
    market, serving = engine.params.market, engine.bundle
    if query.model is None and serving is None:
        raise RequestError(409, "no model serves: name one with the parameter model")

    def ask(database: Database) -> dict[str, Any]:
        model = Registry(database, market).find(query.model).hash if query.model else serving and serving.hash
        return adaptations(database, market, str(model), limit=query.limit)

    return answer(await engine.query(ask))


async def _status(request: Request) -> Response:
    """Show clock, champion, challengers, outcomes, jobs, alarms, heartbeats, errors and the last decisions."""
    from tradeloop.monitoring.overview import status

    parse_query(NoQuery, request.query_params.multi_items())
    engine = engine_of(request)
    mode, now = engine.clock()
    return answer(await engine.query(lambda database: status(database, engine.params.market, clock=mode, now=now)))


async def _events(request: Request) -> Response:
    """List what happened to the models and what the loop decided, page by page."""
    from tradeloop.monitoring.overview import events

    query = parse_query(EventsQuery, request.query_params.multi_items())
    engine = engine_of(request)
    market = engine.params.market
    return answer(await engine.query(lambda database: events(database, market, limit=query.limit, after=query.after)))


def _parameters(query: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI says of a query's parameters."""
    properties = query.model_json_schema().get("properties", {})
    return {"parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]}
