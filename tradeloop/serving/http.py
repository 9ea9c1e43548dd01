"""What all routes share: the engine behind them, bodies, the token, JSON."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

from tradeloop.serving.requests import MAX_BODY, RequestError

if TYPE_CHECKING:  # BentoML's supervisor imports the routes too, and has no use for models and databases
    from tradeloop.serving.engine import Engine

TOKEN_VARIABLE = "TRADELOOP_TOKEN"


def engine_of(request: Request) -> Engine:
    """Return the engine that answers a request."""
    engine: Engine = request.app.state.engine
    return engine


async def read(request: Request) -> bytes:
    """Return the body, or stop reading once it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise RequestError(413, f"the body may have at most {MAX_BODY} bytes")
    return bytes(body)


def authorize(request: Request, *, open_without_token: bool = False) -> None:
    """Let a request pass that carries the token.

    Parameters
    ----------
    open_without_token
        Whether everybody may pass where no token is configured; otherwise nobody may.

    Raises
    ------
    RequestError
        401 for a missing or wrong token, 403 where none is configured.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        if open_without_token:
            return
        raise RequestError(403, f"this endpoint is closed: start the service with {TOKEN_VARIABLE} set to open it")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestError(401, f"send the header 'Authorization: Bearer <the value of {TOKEN_VARIABLE}>'")


def answer(content: Any, status: int = 200) -> Response:
    """Return `content` as JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI says of a route's body."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
