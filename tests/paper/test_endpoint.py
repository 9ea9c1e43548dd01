from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.paper.service import Service
from tradeloop.errors import StoreError, TradeloopError
from tradeloop.paper.endpoint import Endpoint
from tradeloop.paper.exchange import Fill

AT = datetime(2020, 1, 1, tzinfo=UTC)
FILL = Fill("f1", "p1", "AAA", "buy", 1.0, 10.0, 9.9, 0.1, None, AT)


def endpoint(
    handle: Callable[[httpx.Request], httpx.Response], slept: list[float] | None = None, **more: Any
) -> Endpoint:
    client = httpx.Client(base_url="http://service", transport=httpx.MockTransport(handle))
    naps: list[float] = [] if slept is None else slept
    return Endpoint(client, patience=1.0, sleep=naps.append, **more)


def test_verdicts_become_targets() -> None:
    entries = [
        {"symbol": "A", "status": 200, "prediction_id": "1", "verdict": "trade", "side": "long"},
        {"symbol": "B", "status": 200, "prediction_id": "2", "verdict": "trade", "side": "short"},
        {"symbol": "C", "status": 200, "prediction_id": "3", "verdict": "abstain", "side": "long"},
    ]
    asked: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"predictions": entries})

    answers = endpoint(handle).predict(["A", "B", "C"], AT)
    assert {symbol: target.side for symbol, target in answers.targets.items()} == {"A": 1, "B": -1, "C": 0}
    assert (answers.asked, answers.abstained) == (3, 1)
    assert asked == [{"symbols": ["A", "B", "C"], "as_of": "2020-01-01T00:00:00+00:00"}]
    endpoint(handle).predict(["A"], None)
    assert asked[-1] == {"symbols": ["A"]}


def test_a_service_that_is_away_is_tried_again_with_growing_pauses() -> None:
    service, slept = Service(failures=[503, 502, 503]), list[float]()
    answers = endpoint(service.handle, slept).predict(["AAA"], AT)
    assert answers.asked == 1
    assert slept == [0.1, 0.2, 0.4]


def test_patience_ends_in_one_line() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    slept: list[float] = []
    with pytest.raises(StoreError, match=r"no service answers at http://service/predict for 2 s .*refused"):
        endpoint(refuse, slept).predict(["AAA"], AT)
    assert slept == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (httpx.Response(422, json={"error": "as_of needs the replay clock"}), "422: as_of needs the replay clock"),
        (httpx.Response(200, text="<html>"), "is not tradeloop: 200"),
        (httpx.Response(200, json=[]), "is not tradeloop: 200"),
        (
            httpx.Response(200, json={"predictions": [{"symbol": "X", "status": 404, "error": "no symbol 'X'"}]}),
            "no symbol 'X'",
        ),
    ],
)
def test_a_refusal_is_not_tried_again(response: httpx.Response, says: str) -> None:
    slept: list[float] = []
    with pytest.raises(TradeloopError, match=says):
        endpoint(lambda _: response, slept).predict(["X"], AT)
    assert slept == []


def test_fills_are_reported_with_the_token_and_each_result_is_kept() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        results = [{"fill_id": "f1", "status": "unknown_prediction", "reason": "no prediction", "slippage_bps": None}]
        return httpx.Response(422, json={"error": "none was taken", "market": "m", "fills": results})

    found = endpoint(handle, token="secret").report([FILL])
    assert found == {"f1": ("unknown_prediction", "no prediction")}
    assert seen[0].headers["authorization"] == "Bearer secret"
    (body,) = json.loads(seen[0].content)["fills"]
    assert body == {
        "fill_id": "f1",
        "prediction_id": "p1",
        "side": "buy",
        "quantity": 1.0,
        "price": 10.0,
        "expected_price": 9.9,
        "fee": 0.1,
        "pnl": None,
        "filled_at": "2020-01-01T00:00:00+00:00",
    }


def test_the_services_own_model_takes_what_is_reported() -> None:
    from tradeloop.serving.outcomes import FillReport

    def handle(request: httpx.Request) -> httpx.Response:
        for body in json.loads(request.content)["fills"]:
            FillReport.model_validate_json(json.dumps(body))
        return httpx.Response(200, json={"fills": []})

    endpoint(handle).report([FILL])
