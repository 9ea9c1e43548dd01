"""The HTTP routes: parse, ask the engine, answer; mounted into the BentoML service.

BentoML's own API methods answer a bad body with pydantic's dump and know POST only. A mounted FastAPI app keeps the
OpenAPI page, and `_Plain` routes cost what bare Starlette routes cost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from tradeloop.errors import StoreError, TradeloopError
from tradeloop.serving import ml, observe, outcomes
from tradeloop.serving.answers import Answer, Failure, ModelsAnswer, SwapAnswer
from tradeloop.serving.http import answer, authorize, body_of, engine_of, read
from tradeloop.serving.requests import PredictRequest, PromoteRequest, RequestError, RollbackRequest, parse


class _Plain(APIRoute):
    """A route that hands the request to its endpoint as it is: documented by FastAPI, not slowed by it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def build_app() -> FastAPI:
    """Return the app; whoever serves it puts an `Engine` into ``app.state.engine`` first."""
    app = FastAPI(openapi_url=None)  # the OpenAPI page is BentoML's, which merges ours into its own
    app.router.route_class = _Plain
    failures: dict[int | str, dict[str, Any]] = {code: {"model": Failure} for code in (400, 409, 413, 422, 503)}
    closed: dict[int | str, dict[str, Any]] = {code: {"model": Failure} for code in (400, 401, 403, 409, 422, 503)}
    app.post("/predict", response_model=Answer, responses=failures, openapi_extra=body_of(PredictRequest))(_predict)
    app.get("/models", response_model=ModelsAnswer)(_models)
    app.post("/promote", response_model=SwapAnswer, responses=closed, openapi_extra=body_of(PromoteRequest))(_promote)
    app.post("/rollback", response_model=SwapAnswer, responses=closed, openapi_extra=body_of(RollbackRequest))(
        _rollback
    )
    outcomes.add_route(app)
    observe.add_route(app)
    ml.add_routes(app)
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(TradeloopError, _on_tradeloop_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_any)
    return app


async def _predict(request: Request) -> Response:
    """Forecast each symbol: probability up, expected return and range with intervals, and a verdict."""
    return answer(await engine_of(request).predict(await read(request)))


async def _models(request: Request) -> Response:
    """List the registered models with their state, what serves now, and the last swap that was refused."""
    return answer(await engine_of(request).models())


async def _promote(request: Request) -> Response:
    """Make a registered model the champion, once its bundle has been verified; needs the token."""
    authorize(request)
    wanted = parse(PromoteRequest, await read(request))
    return answer(await engine_of(request).promote(wanted.version))


async def _rollback(request: Request) -> Response:
    """Go back to the champion before this one, or to the one named; needs the token."""
    authorize(request)
    wanted = parse(RollbackRequest, await read(request) or b"{}")
    return answer(await engine_of(request).rollback(wanted.to))


def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = answer({"error": str(error)}, error.status)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _on_tradeloop_error(_: Request, error: Exception) -> Response:
    return answer({"error": str(error)}, 503 if isinstance(error, StoreError) else 409)


def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer({"error": error.detail}, error.status_code)


def _on_any(_: Request, __: Exception) -> Response:
    return answer({"error": "the service failed to answer; its log says why"}, 500)
