"""What a client may send, and the one clear line it gets back when it sends something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

MAX_BODY = 1 << 20
"""Bytes of a request's body; 10,000 symbols of 32 letters take 350,000."""

_YEARS = (1900, 2200)
_SHOWN = 80
_RULES = {
    "string_type": "a string",
    "float_type": "a number",
    "finite_number": "finite",
    "greater_than": "above zero",
}
_LONGEST = 64


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status and one line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Symbol = Annotated[str, StringConstraints(min_length=1, max_length=32)]


class PredictRequest(_Request):
    """Which symbols to forecast and, on the replay clock, as of when."""

    symbols: Annotated[
        list[Symbol],
        FailFast(),  # a megabyte of wrong items is one error, not half a million
        Field(min_length=1, description="Each symbol once.", examples=[["AAPL", "MSFT"]]),
    ]
    as_of: Annotated[AwareDatetime | None, Field(description="Replay clock only: the newest bar at this time.")] = None


class PromoteRequest(_Request):
    """Which registered model to promote."""

    version: Annotated[str, Field(min_length=1, max_length=64, description="A version or a hash of GET /models.")]


class RollbackRequest(_Request):
    """Which model to go back to; without `to`, the champion before the present one."""

    to: Annotated[str | None, Field(min_length=1, max_length=64)] = None


class RetrainRequest(_Request):
    """A wish to retrain; the same `key` again is the same wish."""

    reason: Annotated[str, Field(min_length=1, max_length=500, description="Goes on the record.")]
    key: Annotated[str | None, Field(min_length=1, max_length=100)] = None


class CancelRequest(_Request):
    """Which retraining to withdraw, and why."""

    job: Annotated[str, Field(min_length=1, max_length=36, description="Its id, or the beginning of it.")]
    reason: Annotated[str, Field(min_length=1, max_length=500, description="Goes on the record.")]


class AcknowledgeRequest(_Request):
    """Which failed retraining is known of."""

    job: Annotated[str, Field(min_length=1, max_length=36, description="Its id, or the beginning of it.")]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Limit = Annotated[int, Field(ge=1, le=1000, description="At most so many entries.")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST)]


class PerformanceQuery(_Query):
    """Which windows to show; what is not named is not asked for."""

    symbol: Name | None = None
    model: Annotated[Name | None, Field(description="A version or a hash.")] = None
    arm: Literal["champion", "shadow", "canary", "ab", "*"] | None = None
    regime: Literal["low", "normal", "high", "unknown", "*"] | None = None
    window: Annotated[Name | None, Field(examples=["n:200", "t:30d"])] = None
    since: Annotated[AwareDatetime | None, Field(description="Every window from then on, not only the newest.")] = None
    limit: Limit = 1000


class ExperimentsQuery(_Query):
    """How many attempts, and of which job."""

    limit: Limit = 50
    job: Annotated[Name | None, Field(description="A job's id.")] = None


class RetrainQuery(_Query):
    """How many jobs of each kind."""

    limit: Limit = 50


class OutcomesQuery(_Query):
    """Which outcomes; of a symbol only the resolved ones, those of the newest bars first."""

    symbol: Name | None = None
    after_seq: Annotated[int, Field(ge=0, description="Only those learned after this number.")] = 0
    limit: Limit = 100


class AdaptationsQuery(_Query):
    """Of which model, and how many."""

    model: Annotated[Name | None, Field(description="A version or a hash; by default the one that serves.")] = None
    limit: Limit = 50


class EventsQuery(_Query):
    """Which page: `after` is the `next` of the one before, 0.0 begins at the beginning."""

    limit: Limit = 100
    after: Annotated[str | None, StringConstraints(pattern=r"^[0-9]{1,18}\.[0-9]{1,18}$")] = None


class NoQuery(_Query):
    """Nothing to choose."""


R = TypeVar("R", bound=BaseModel)
Q = TypeVar("Q", bound=_Query)


def parse(model: type[R], body: bytes) -> R:
    """Return the request that `body` holds.

    Raises
    ------
    RequestError
        400 for what is not JSON, 422 for JSON that breaks a rule; the message is one line.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":
        raise RequestError(400, f"the body must be JSON: {problem['ctx']['error']}")
    raise RequestError(422, explain(model, problem))


def parse_query(model: type[Q], given: Sequence[tuple[str, str]]) -> Q:
    """Return the query that a URL's parameters make; RequestError 422, one line, for any that breaks a rule."""
    for name, count in Counter(name for name, _ in given).items():
        if count > 1:
            raise RequestError(422, f"{_shown(name)} may be given once, got {count} times")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    name, got, context = str(problem["loc"][0]), _shown(problem["input"]), problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) or "none"
        raise RequestError(422, f"unknown parameter {_shown(name)} (known: {known})")
    if "expected" in context:
        raise RequestError(422, f"{name} must be {context['expected']}, got {got}")
    if name == "limit":
        raise RequestError(422, f"limit must be a whole number from 1 to 1000, got {got}")
    if name == "after_seq":
        raise RequestError(422, f"after_seq must be a whole number from 0 on, got {got}")
    if name == "since":
        raise RequestError(422, f"since must be an ISO time with its UTC offset (2013-02-28T21:00:00Z), got {got}")
    if name == "after":
        raise RequestError(422, f"after must be the `next` of an earlier answer, such as 12.30, or 0.0, got {got}")
    raise RequestError(422, f"{name} must have 1 to {_LONGEST} characters, got {got}")


def parse_predict(body: bytes, *, max_symbols: int) -> PredictRequest:
    """Return a predict request, its `as_of` in UTC.

    Raises
    ------
    RequestError
        As `parse`; also for more than `max_symbols` symbols, a symbol named twice, or a time out of range.
    """
    request = parse(PredictRequest, body)
    count = len(request.symbols)
    if count > max_symbols:
        raise RequestError(422, f"symbols may name at most {max_symbols}, got {count}")
    if len(set(request.symbols)) != count:
        ((symbol, times),) = Counter(request.symbols).most_common(1)
        raise RequestError(422, f"symbols may name each symbol once, got {symbol!r} {times} times")
    if request.as_of is None:
        return request
    return request.model_copy(update={"as_of": _in_utc(request.as_of)})


def _in_utc(moment: datetime) -> datetime:
    low, high = _YEARS
    if not low < moment.year < high:
        raise RequestError(422, f"as_of must lie between the years {low} and {high}, got {moment.isoformat()}")
    return moment.astimezone(UTC)


def explain(model: type[BaseModel], problem: ErrorDetails) -> str:
    """Return one line that names the key, the rule and the value."""
    kind, where = problem["type"], problem["loc"]
    name = f"{where[0]}[{where[1]}]" if len(where) > 1 else str(where[0]) if where else "the body"
    got = _shown(problem["input"])
    context: dict[str, Any] = problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {name!r} (known: {', '.join(model.model_fields)})"
    if kind == "missing":
        return f"{name} is missing (known: {', '.join(model.model_fields)})"
    if name in ("symbols", "fills", "bars"):
        return _list_rule(name, kind, context, got)
    if kind in ("string_too_long", "string_too_short"):
        rule = "at least 1" if kind == "string_too_short" else f"at most {context['max_length']}"
        return f"{name} must have {rule} character{'' if rule.endswith(' 1') else 's'}, got {got}"
    if kind in _RULES:
        return f"{name} must be {_RULES[kind]}, got {got}"
    if "expected" in context:
        return f"{name} must be {context['expected']}, got {got}"
    if kind.startswith(("datetime", "timezone")):
        return f"{name} must be an ISO time with its UTC offset (2013-02-28T21:00:00Z), got {got}"
    return f"{name} must be an object with the keys {', '.join(model.model_fields)}, got {got}"


def _list_rule(name: str, kind: str, context: Mapping[str, Any], got: str) -> str:
    if kind == "too_short":
        return f"{name} must name at least one {name.removesuffix('s')}"
    if kind == "too_long":
        return f"{name} may name at most {context['max_length']}, got {context['actual_length']}"
    return f"{name} must be a list, got {got}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
