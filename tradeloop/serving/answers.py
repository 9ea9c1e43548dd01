"""What the service answers, as the OpenAPI page shows it; the tests hold the real answers to these models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from tradeloop.predictor import Prediction


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Failure(_Answer):
    """Why there is no answer, in one line."""

    error: str


class ClockState(_Answer):
    """The market's clock: the wall, or a historic market's last bar (or the time asked for)."""

    mode: Literal["live", "replay", "virtual"]
    now: datetime


class ServingModel(_Answer):
    """The bundle that computed the answer, and whether the registry or the Bento itself named it."""

    version: str
    hash: str
    source: Literal["registry", "bento"]


class Interval(_Answer):
    """A forecast and the interval that should hold the outcome as often as the bundle's coverage says."""

    value: float | None
    low: float | None
    high: float | None


class PredictionAnswer(_Answer):
    """One symbol's forecast, logged before it is sent. Without fresh features every number is null.

    Returns are gross logs over the horizon, ranges are fractions of the price per bar.
    """

    symbol: str
    prediction_id: str
    p_up: float | None
    expected_return: Interval
    expected_range: Interval
    verdict: Literal["trade", "abstain"]
    reasons: list[str]
    side: Literal["long", "short"] | None
    expected_edge: float | None
    as_of: datetime | None
    feature_age_seconds: float | None
    model_version: str
    arm: Literal["champion", "canary", "ab"]
    status: Literal[200]


class UnknownSymbol(_Answer):
    """A symbol that the market does not have; nothing is logged for it."""

    symbol: str
    status: Literal[404]
    error: str


class Answer(_Answer):
    """The forecasts, in the order asked for."""

    market: str
    clock: ClockState
    model: ServingModel
    predictions: list[PredictionAnswer | UnknownSymbol]


class RegisteredModel(BaseModel):
    """One bundle of the registry and where it stands."""

    model_config = ConfigDict(frozen=True)

    version: str
    hash: str
    state: str
    since: datetime
    reason: str


class Refusal(_Answer):
    """A champion that could not be swapped in: the one before it keeps serving."""

    version: str
    hash: str
    reason: str
    at: datetime


class ChallengerState(_Answer):
    """A model beside the champion: `share` of all questions it answers; `reason` tells why it takes no part."""

    model: str
    version: str
    mode: Literal["shadow", "canary", "ab"]
    share: float
    since: datetime
    state: Literal["taking part", "loading", "paused", "refused"]
    reason: str | None


class ModelsAnswer(_Answer):
    """What serves now, who else takes part, what was last refused, and all that is registered."""

    serving: ServingModel | None
    refused: Refusal | None
    challengers: list[ChallengerState]
    models: list[RegisteredModel]


class ChampionModel(_Answer):
    """The registry's champion."""

    version: str
    hash: str


class SwapAnswer(_Answer):
    """The champion after the event, the one before, whether there was an event at all, and what serves here now."""

    champion: ChampionModel
    previous: str | None
    changed: bool
    serving: ServingModel


def whole(model: Mapping[str, Any], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return predictions of one question as an `Answer`; `model` is the champion's entry."""
    first = predictions[0]
    return {
        "market": first.market,
        "clock": {"mode": first.clock, "now": first.asked_at},
        "model": model,
        "predictions": [entry(prediction) for prediction in predictions],
    }


def entry(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as a `PredictionAnswer` or an `UnknownSymbol`."""
    p = prediction
    if p.id is None:
        return {"symbol": p.symbol, "status": 404, "error": f"market {p.market} has no symbol {p.symbol!r}"}
    return {
        "symbol": p.symbol,
        "prediction_id": p.id,
        "p_up": p.p_up,
        "expected_return": {"value": p.ret, "low": p.ret_low, "high": p.ret_high},
        "expected_range": {"value": p.range, "low": p.range_low, "high": p.range_high},
        "verdict": p.verdict,
        "reasons": p.reasons,
        "side": p.side,
        "expected_edge": p.edge,
        "as_of": p.feature_time,
        "feature_age_seconds": p.feature_age,
        "model_version": p.version,
        "arm": p.arm,
        "status": 200,
    }
