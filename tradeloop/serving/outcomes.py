"""POST /outcomes: the bot reports its fills; each gets a status of its own, and what is accepted is on disk first."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tradeloop.errors import FillError
from tradeloop.serving.answers import Failure
from tradeloop.serving.http import answer, authorize, body_of, engine_of, read
from tradeloop.serving.requests import RequestError, explain, parse

if TYPE_CHECKING:
    from tradeloop.monitoring.fills import Fill
    from tradeloop.state.database import Database

MOST = 1000
_TAKEN = ("accepted", "duplicate")


class FillReport(BaseModel):
    """One execution; `fill_id` is the bot's own, and the same again changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fill_id: Annotated[str, Field(min_length=1, max_length=64)]
    prediction_id: Annotated[str, Field(min_length=1, max_length=36)]
    side: Literal["buy", "sell"]
    quantity: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    price: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    filled_at: Annotated[AwareDatetime, Field(description="The market's time.")]
    expected_price: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="The arrival price.")] = None
    fee: Annotated[float, Field(allow_inf_nan=False, description="Quote currency; below zero for a rebate.")] = 0.0
    pnl: Annotated[float | None, Field(allow_inf_nan=False, description="Before fees, quote currency.")] = None


class OutcomesRequest(BaseModel):
    """The fills to report."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fills: Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class FillAnswer(BaseModel):
    """What became of one fill; `slippage_bps` is how much worse than expected its price was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fill_id: str | None
    status: Literal[
        "accepted",
        "duplicate",
        "contradicts",
        "unknown_prediction",
        "not_answered",
        "before_prediction",
        "future",
        "invalid",
    ]
    reason: str | None
    slippage_bps: float | None


class OutcomesAnswer(BaseModel):
    """What became of each fill, in the order of the report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    market: str
    fills: list[FillAnswer]


class RefusedOutcomes(OutcomesAnswer):
    """The same where not one fill was taken: `error` says why the first was not."""

    error: str


def add_route(app: FastAPI) -> None:
    """Add the route to the app."""
    responses: dict[int | str, dict[str, Any]] = {code: {"model": Failure} for code in (400, 401, 413, 503)}
    responses[422] = {"model": RefusedOutcomes}
    app.post("/outcomes", response_model=OutcomesAnswer, responses=responses, openapi_extra=_body())(_outcomes)


async def _outcomes(request: Request) -> Response:
    """Record the bot's fills; needs the token where one is configured."""
    from tradeloop.monitoring.fills import FillBook

    authorize(request, open_without_token=True)
    reported = parse(OutcomesRequest, await read(request)).fills
    engine = engine_of(request)
    market, now = engine.params.market, engine.now()
    results: list[dict[str, Any]] = []
    fills: dict[int, Fill] = {}
    for place, item in enumerate(reported):
        try:
            fills[place] = _fill(item)
        except (RequestError, FillError) as error:
            results.append(_result(_id_of(item), "invalid", str(error)))
        else:
            results.append({})

    def record(database: Database) -> list[Any]:
        return FillBook(database, market).report(list(fills.values()), now=now)

    for place, found in zip(fills, await engine.query(record) if fills else [], strict=True):
        results[place] = _result(found.fill_id, found.status, found.reason, found.slippage_bps)
    for status, count in Counter(result["status"] for result in results).items():
        engine.telemetry.filled(status, count)
    content = {"market": market, "fills": results}
    if any(result["status"] in _TAKEN for result in results):
        return answer(content)
    first = results[0]
    why = f"none of {len(results)} fills was taken; the first, {first['fill_id']}: {first['reason']}"
    return answer({"error": why, **content}, 422)


def _fill(item: Any) -> Fill:
    """Return the fill that a reported item is; RequestError or FillError, one line, where it is none."""
    from tradeloop.monitoring.fills import Fill

    try:
        report = FillReport.model_validate_json(json.dumps(item))
    except ValidationError as error:
        raise RequestError(422, explain(FillReport, error.errors(include_url=False)[0])) from None
    return Fill(**report.model_dump())


def _id_of(item: Any) -> str | None:
    name = item.get("fill_id") if isinstance(item, dict) else None
    return name[:64] if isinstance(name, str) else None


def _result(fill_id: str | None, status: str, reason: str | None, slippage: float | None = None) -> dict[str, Any]:
    return {"fill_id": fill_id, "status": status, "reason": reason, "slippage_bps": slippage}


def _body() -> dict[str, Any]:
    described = body_of(OutcomesRequest)
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    schema["properties"]["fills"]["items"] = FillReport.model_json_schema()
    return described
