"""POST /observe: the bars on disk, their features online, and one line for what is not taken."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.engines import check
from tests.servers import TOKEN, make_home
from tests.stream.market import Market, held_back, make_market
from tradeloop.errors import StoreError
from tradeloop.schema import Schema
from tradeloop.serving import observe
from tradeloop.serving.app import build_app
from tradeloop.serving.engine import Engine
from tradeloop.serving.observe import MOST, ObserveAnswer, RefusedBars
from tradeloop.state.online import OnlineStore


def post(market: Market, *bodies: Any, schema: Schema | None = None, **options: Any) -> list[httpx.Response]:
    """Send bodies, one after another, to the route; the engine's own parts have nothing to do with it."""

    async def run() -> list[httpx.Response]:
        app = build_app()
        bundle = SimpleNamespace(schema=schema) if schema else None
        app.state.engine = SimpleNamespace(layout=market.layout, params=market.params, bundle=bundle)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return [await send(client, body, **options) for body in bodies]

    return asyncio.run(run())


async def send(client: httpx.AsyncClient, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return await client.post("/observe", content=content, **options)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "WAIT_SECONDS", 60.0)


def test_bars_are_on_disk_and_their_features_online(plain: Market) -> None:
    content = held_back()
    broken = {"symbol": "AAPL", "broken": 1}
    first, second, third = post(
        plain, {"bars": [*content[:40], broken]}, {"bars": content[40:]}, {"bars": content[-1:]}, schema=plain.schema
    )
    assert (first.status_code, second.status_code) == (200, 200)
    told = ObserveAnswer.model_validate(first.json())
    assert told.market == "mine" and [one.status for one in told.bars] == [
        *("context" if "series" in one else "new" for one in content[:40]),
        "refused",
    ]
    assert told.bars[-1].reason is not None and told.bars[-1].reason.startswith("unknown key 'broken'")
    last = ObserveAnswer.model_validate(second.json()).bars[-1]
    assert last.feature_time == datetime.fromisoformat("2013-03-01T21:00:00Z")
    (again,) = ObserveAnswer.model_validate(third.json()).bars
    assert again.status == "duplicate" and again.feature_time == last.feature_time
    plain.assert_whole()
    store = OnlineStore(plain.layout, plain.params)
    plain.assert_online(store)
    store.close()


def test_where_nothing_is_taken_one_line_says_why(plain: Market) -> None:
    (response,) = post(plain, {"bars": [{"symbol": "TSLA"}, 3]})
    assert response.status_code == 422
    refused = RefusedBars.model_validate(response.json())
    assert refused.error == "none of 2 bars was taken; the first: symbol must be one of market mine, got 'TSLA'"
    assert [one.status for one in refused.bars] == ["refused", "refused"]
    assert plain.said() == []


BAD = [
    ("{}", 422, "bars is missing (known: bars)"),
    ('{"bars": []}', 422, "bars must name at least one bar"),
    ({"bars": [1] * (MOST + 1)}, 422, "bars may name at most 1000, got 1001"),
    ('{"bars": [', 400, "the body must be JSON: "),
]


@pytest.mark.parametrize(("body", "status", "rule"), BAD)
def test_a_malformed_body_is_one_line(plain: Market, body: Any, status: int, rule: str) -> None:
    (response,) = post(plain, body)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert response.json()["error"].startswith(rule) and "\n" not in response.json()["error"]


def test_features_that_the_champion_does_not_read_are_refused(plain: Market) -> None:
    (response,) = post(plain, {"bars": held_back()[:2]}, schema=Schema("mine", ("a",), "f" * 64))
    assert response.status_code == 409
    assert response.json()["error"].startswith("what this service computes has feature schema ")
    assert plain.said() == [] and not plain.journal.read()[0]


def test_a_store_that_is_away_is_503_and_the_bars_are_kept(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    write = OnlineStore.write
    calls = []

    def unsteady(self: OnlineStore, *arguments: Any) -> int:
        calls.append(1)
        if len(calls) == 2:  # the first is the start's
            raise StoreError("nobody answers")
        return write(self, *arguments)

    monkeypatch.setattr(OnlineStore, "write", unsteady)
    body = {"bars": held_back()[:6]}
    away, back = post(plain, body, body)
    assert away.status_code == 503
    assert away.json()["error"] == "the bars are on the disk, but not online: nobody answers"
    assert back.status_code == 200 and {one["status"] for one in back.json()["bars"]} <= {"duplicate", "context"}
    store = OnlineStore(plain.layout, plain.params)
    plain.assert_online(store)
    store.close()


def test_while_the_features_are_loaded_the_answer_is_to_wait(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "WAIT_SECONDS", 0.0)
    (response,) = post(plain, {"bars": held_back()[:2]})
    assert (response.status_code, response.json()["error"]) == (
        503,
        "the features are being loaded: try again in a few seconds",
    )


def test_the_token_is_asked_for_where_there_is_one(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADELOOP_TOKEN", TOKEN)
    (closed,) = post(plain, {"bars": held_back()[:1]})
    assert closed.status_code == 401
    (opened,) = post(plain, {"bars": held_back()[:1]}, headers={"Authorization": f"Bearer {TOKEN}"})
    assert opened.status_code == 200


def test_the_real_engine_knows_what_its_champion_reads(tmp_path: Path) -> None:
    """Its champion is of made features: what this code computes is not for it."""
    home = make_home(tmp_path / "home")

    async def body(engine: Engine, client: httpx.AsyncClient) -> None:
        assert engine.bundle is not None and engine.layout == home.layout
        response = await send(client, {"bars": [{"symbol": "AAPL"}]})
        assert response.status_code == 409

    check(home, body)


@pytest.fixture
def plain(tmp_path: Path) -> Market:
    return make_market(tmp_path / "market")
