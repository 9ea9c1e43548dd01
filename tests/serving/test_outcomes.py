"""POST /outcomes: each fill gets a status of its own, the accepted are on disk, and the same again changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from tests.bundles import NOW
from tests.engines import ask, check
from tests.servers import TOKEN, Home, make_home
from tradeloop.serving.engine import Engine
from tradeloop.serving.outcomes import OutcomesAnswer, RefusedOutcomes
from tradeloop.state.tables import FillRow, PredictionRow

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def fill(prediction: str, **changes: Any) -> dict[str, Any]:
    content = {
        "fill_id": "f1",
        "prediction_id": prediction,
        "side": "buy",
        "quantity": 10,
        "price": 101.0,
        "expected_price": 100.0,
        "fee": 0.5,
        "filled_at": NOW.isoformat(),
    }
    return {name: value for name, value in (content | changes).items() if value is not ...}


async def report(client: httpx.AsyncClient, *fills: Any, **options: Any) -> httpx.Response:
    return await client.post("/outcomes", json={"fills": list(fills)}, **options)


async def predicted(client: httpx.AsyncClient) -> str:
    return str((await ask(client, "AAPL")).json()["predictions"][0]["prediction_id"])


def stored(home: Home) -> list[Any]:
    database = home.database()
    with database.read() as connection:
        rows = list(connection.execute(select(FillRow.__table__).order_by(FillRow.seq)).all())
    database.close()
    return rows


def test_an_accepted_fill_is_on_disk_and_reported_twice_it_is_one(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        made = await predicted(client)
        response = await report(client, fill(made))
        assert response.status_code == 200
        (result,) = OutcomesAnswer.model_validate(response.json()).fills
        assert (result.fill_id, result.status, result.reason) == ("f1", "accepted", None)
        assert result.slippage_bps == pytest.approx(100.0)
        (row,) = stored(home)
        assert (row.prediction_id, row.symbol, row.quantity, row.price, row.fee) == (made, "AAPL", 10.0, 101.0, 0.5)
        assert row.filled_at == NOW
        again = await report(client, fill(made))
        assert (again.status_code, again.json()["fills"][0]["status"]) == (200, "duplicate")
        assert len(stored(home)) == 1

    check(home, body)


def test_each_fill_is_judged_on_its_own(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        made = await predicted(client)
        database = home.database()
        with database.write() as connection:
            only_watched = dict(connection.execute(select(PredictionRow.__table__)).mappings().one())
            only_watched |= {"id": "watched", "answered": False, "parent": made, "arm": "shadow"}
            connection.execute(PredictionRow.__table__.insert().values(only_watched))
        database.close()
        early = (NOW - timedelta(days=1)).isoformat()
        late = (NOW + timedelta(days=1)).isoformat()
        response = await report(
            client,
            fill(made),
            fill(made, price=102.0),
            fill("nothing", fill_id="f2"),
            fill("watched", fill_id="f3"),
            fill(made, fill_id="f4", filled_at=early),
            fill(made, fill_id="f5", filled_at=late),
            fill(made, fill_id="f6", quantity=0),
            "fill",
            fill(made, fill_id="f7", side="sell"),
        )
        assert response.status_code == 200
        results = OutcomesAnswer.model_validate(response.json()).fills
        assert [(result.fill_id, result.status) for result in results] == [
            ("f1", "accepted"),
            ("f1", "contradicts"),
            ("f2", "unknown_prediction"),
            ("f3", "not_answered"),
            ("f4", "before_prediction"),
            ("f5", "future"),
            ("f6", "invalid"),
            (None, "invalid"),
            ("f7", "accepted"),
        ]
        assert all((result.reason is None) == (result.status == "accepted") for result in results)
        assert [row.fill_id for row in stored(home)] == ["f1", "f7"]

    check(home, body)


RULES = [
    ({"quantity": 0}, "quantity must be above zero, got 0"),
    ({"price": "101"}, "price must be a number, got '101'"),
    ({"expected_price": -1.0}, "expected_price must be above zero, got -1.0"),
    ({"side": "long"}, "side must be 'buy' or 'sell', got 'long'"),
    ({"side": ...}, "side is missing (known: fill_id, prediction_id, side, quantity, price, filled_at,"),
    ({"filled_at": "2013-03-01"}, "filled_at must be an ISO time with its UTC offset (2013-02-28T21:00:00Z), got"),
    ({"filled_at": "2013-03-01T21:00:00"}, "filled_at must be an ISO time with its UTC offset"),
    ({"fill_id": "x" * 65}, "fill_id must have at most 64 characters, got 'xxx"),
    ({"fill_id": 3}, "fill_id must be a string, got 3"),
    ({"fees": 1.0}, "unknown key 'fees' (known: fill_id,"),
]


def test_a_report_of_which_nothing_is_taken_is_refused_in_one_line(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        made = await predicted(client)
        for changes, message in RULES:
            response = await report(client, fill(made, **changes))
            assert response.status_code == 422
            refused = RefusedOutcomes.model_validate(response.json())
            assert refused.error.startswith("none of 1 fills was taken; the first, ")
            assert "\n" not in refused.error
            (result,) = refused.fills
            assert result.status == "invalid" and result.reason is not None
            assert result.reason.startswith(message), changes
        unknown = await report(client, fill("nothing"), fill("nothing", fill_id="f2"))
        assert unknown.status_code == 422
        assert unknown.json()["error"] == (
            "none of 2 fills was taken; the first, f1: no prediction has the id 'nothing'"
        )
        assert stored(home) == []

    check(home, body)


BAD: list[tuple[str, int, str]] = [
    ("[]", 422, "the body must be an object with the keys fills, got []"),
    ("{}", 422, "fills is missing (known: fills)"),
    ('{"fills": []}', 422, "fills must name at least one fill"),
    ('{"fills": {}}', 422, "fills must be a list, got {}"),
    ('{"fills": [' + "{}," * 1000 + "{}]}", 422, "fills may name at most 1000, got 1001"),
    ('{"fills": [', 400, "the body must be JSON: "),
    (" " * ((1 << 20) + 1), 413, "the body may have at most 1048576 bytes"),
]


def test_a_malformed_report_gets_one_clear_line(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        for content, status, message in BAD:
            response = await client.post("/outcomes", content=content.encode())
            assert (response.status_code, list(response.json())) == (status, ["error"]), content[:40]
            assert response.json()["error"].startswith(message)

    check(home, body)


def test_the_token_is_needed_where_there_is_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        made = await predicted(client)
        monkeypatch.setenv("TRADELOOP_TOKEN", TOKEN)
        assert (await report(client, fill(made))).status_code == 401
        assert stored(home) == []
        assert (await report(client, fill(made), headers=AUTHORIZED)).status_code == 200
        monkeypatch.setenv("TRADELOOP_TOKEN", "")
        assert (await report(client, fill(made))).status_code == 200

    check(home, body)


def test_numbers_that_json_does_not_know_are_refused(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        made = await predicted(client)
        for number in ("NaN", "Infinity", "1e999"):
            content = json.dumps({"fills": [fill(made, price="<price>")]}).replace('"<price>"', number)
            response = await client.post("/outcomes", content=content.encode())
            assert response.status_code in (400, 422), number
        assert stored(home) == []

    check(home, body)
