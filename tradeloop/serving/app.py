"""The HTTP routes: parse, ask the engine, answer; mounted into the BentoML service.

BentoML's own API methods answer a bad body with pydantic's dump and know POST only. A mounted FastAPI app keeps the
OpenAPI page, and `_Plain` routes cost what bare Starlette routes cost.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tradeloop.errors import StoreError, TradeloopError
from tradeloop.serving.answers import Answer, Failure, ModelsAnswer, SwapAnswer
from tradeloop.serving.requests import (
    MAX_BODY,
    PredictRequest,
    PromoteRequest,
    RequestError,
    RollbackRequest,
    parse,
)

if TYPE_CHECKING:  # BentoML's supervisor imports this module too, and has no use for models and databases
    from tradeloop.serving.engine import Engine

TOKEN_VARIABLE = "TRADELOOP_TOKEN"


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
    app.post("/predict", response_model=Answer, responses=failures, openapi_extra=_body(PredictRequest))(_predict)
    app.get("/models", response_model=ModelsAnswer)(_models)
    app.post("/promote", response_model=SwapAnswer, responses=closed, openapi_extra=_body(PromoteRequest))(_promote)
    app.post("/rollback", response_model=SwapAnswer, responses=closed, openapi_extra=_body(RollbackRequest))(_rollback)
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(TradeloopError, _on_tradeloop_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_any)
    return app


async def _predict(request: Request) -> Response:
    """Forecast each symbol: probability up, expected return and range with intervals, and a verdict."""
    return _json(await _engine(request).predict(await _read(request)))


async def _models(request: Request) -> Response:
    """List the registered models with their state, what serves now, and the last swap that was refused."""
    return _json(await _engine(request).models())


async def _promote(request: Request) -> Response:
    """Make a registered model the champion, once its bundle has been verified; needs the token."""
    _authorize(request)
    wanted = parse(PromoteRequest, await _read(request))
    return _json(await _engine(request).promote(wanted.version))


async def _rollback(request: Request) -> Response:
    """Go back to the champion before this one, or to the one named; needs the token."""
    _authorize(request)
    wanted = parse(RollbackRequest, await _read(request) or b"{}")
    return _json(await _engine(request).rollback(wanted.to))


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _read(request: Request) -> bytes:
    """Return the body, or stop reading once it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise RequestError(413, f"the body may have at most {MAX_BODY} bytes")
    return bytes(body)


def _authorize(request: Request) -> None:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise RequestError(403, f"this endpoint is closed: start the service with {TOKEN_VARIABLE} set to open it")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestError(401, f"send the header 'Authorization: Bearer <the value of {TOKEN_VARIABLE}>'")


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = _json({"error": str(error)}, error.status)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _on_tradeloop_error(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503 if isinstance(error, StoreError) else 409)


def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


def _on_any(_: Request, __: Exception) -> Response:
    return _json({"error": "the service failed to answer; its log says why"}, 500)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
