"""Every body is either understood or answered with one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.serving.requests import (
    PredictRequest,
    PromoteRequest,
    RequestError,
    RollbackRequest,
    parse,
    parse_predict,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def refusal(body: str | bytes, max_symbols: int = 3) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_predict(body.encode() if isinstance(body, str) else body, max_symbols=max_symbols)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_understood_or_refused_in_one_line(body: bytes) -> None:
    try:
        request = parse_predict(body, max_symbols=3)
    except RequestError as error:
        assert error.status in (400, 422)
        assert "\n" not in str(error)
    else:
        assert 1 <= len(request.symbols) <= 3


@settings(deadline=None, max_examples=200)
@given(content=st.fixed_dictionaries({"symbols": JSON}, optional={"as_of": JSON, "more": JSON}))
def test_any_object_with_symbols_is_understood_or_refused_in_one_line(content: dict[str, object]) -> None:
    try:
        parse_predict(json.dumps(content).encode(), max_symbols=3)
    except RequestError as error:
        assert error.status in (400, 422)
        assert "\n" not in str(error)
        assert len(str(error)) < 300


@settings(deadline=None)
@given(
    symbols=st.lists(st.text(min_size=1, max_size=32).filter(str.isprintable), min_size=1, max_size=5, unique=True),
    moment=st.datetimes(datetime(1901, 1, 1), datetime(2199, 1, 1)),
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_what_is_right_comes_back_in_utc(symbols: list[str], moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    body = json.dumps({"symbols": symbols, "as_of": aware.isoformat()})
    request = parse_predict(body.encode(), max_symbols=5)
    assert request.symbols == symbols
    assert request.as_of == aware
    assert request.as_of is not None
    assert request.as_of.tzinfo is UTC


def test_the_limit_is_inclusive() -> None:
    assert len(parse_predict(b'{"symbols": ["A", "B", "C"]}', max_symbols=3).symbols) == 3
    assert str(refusal('{"symbols": ["A", "B", "C", "D"]}')) == "symbols may name at most 3, got 4"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_clock_shows_is_refused(moment: str) -> None:
    error = refusal(json.dumps({"symbols": ["A"], "as_of": moment}))
    assert (error.status, str(error)) == (422, f"as_of must lie between the years 1900 and 2200, got {moment}")


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("", "symbols[0] must have at least 1 character, got ''"),
        ("A" * 33, f"symbols[0] must have at most 32 characters, got {'A' * 33!r}"),
    ],
)
def test_symbols_have_1_to_32_characters(symbol: str, message: str) -> None:
    assert str(refusal(json.dumps({"symbols": [symbol]}))) == message


def test_a_megabyte_of_wrong_items_is_one_error() -> None:
    error = refusal(b'{"symbols": [' + b"1," * 400_000 + b"1]}")
    assert str(error) == "symbols[0] must be a string, got 1"


def test_promote_and_rollback_bodies() -> None:
    assert parse(PromoteRequest, b'{"version": "abc"}').version == "abc"
    assert parse(RollbackRequest, b"{}").to is None
    assert parse(RollbackRequest, b'{"to": "abc"}').to == "abc"
    with pytest.raises(RequestError, match=r"^version is missing"):
        parse(PromoteRequest, b"{}")
    assert set(PredictRequest.model_fields) == {"symbols", "as_of"}
