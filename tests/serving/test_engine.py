"""The engine in this process, behind its routes: clocks, schemas, starting without a model."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.bundles import NAMES, NOW, SYMBOLS, tiny_schema
from tests.engines import ask, check, running, until
from tests.servers import Home, make_home, write_features
from tradeloop.registry import Registry
from tradeloop.serving.answers import Answer
from tradeloop.serving.engine import Engine


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def on_the_live_clock(home: Home) -> Home:
    """Return the same project with the market on the wall's clock and features up to an hour ago."""
    content = yaml.safe_load(home.layout.params.read_text())
    content["markets"]["us_daily"]["clock"] = "live"
    home.layout.params.write_text(yaml.safe_dump(content))
    write_features(home, datetime.now(UTC) - timedelta(hours=1))
    return Home(home.root, hashes=home.hashes)


def test_the_live_clock_is_the_wall(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        answer = Answer.model_validate((await ask(client, "AAPL")).json())
        assert answer.clock.mode == "live"
        assert abs(answer.clock.now - datetime.now(UTC)) < timedelta(seconds=30)
        (entry,) = answer.predictions
        assert entry.status == 200
        assert entry.p_up is not None
        assert entry.feature_age_seconds == pytest.approx(3600, abs=60)

        refused = await ask(client, "AAPL", as_of="2013-02-20T22:00:00Z")
        assert refused.status_code == 422
        assert refused.json() == {"error": "as_of needs the replay clock, this market's is live"}

    check(on_the_live_clock(home), body)


def test_old_features_on_the_live_clock_are_stale(home: Home) -> None:
    live = on_the_live_clock(home)
    write_features(live)

    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        (entry,) = (await ask(client, "IBM")).json()["predictions"]
        assert (entry["verdict"], entry["reasons"], entry["p_up"]) == ("abstain", ["stale_features"], None)
        assert entry["feature_age_seconds"] > 10 * 365 * 86_400

    check(live, body)


def test_as_of_under_another_schema_is_refused(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        tiny_schema((*NAMES, "one_more")).save(home.layout.store / "schema.json")
        response = await ask(client, "AAPL", as_of="2013-02-20T22:00:00Z")
        assert response.status_code == 409
        assert "schema" in response.json()["error"]
        assert (await ask(client, "AAPL")).status_code == 200

    check(home, body)


def test_newer_bars_move_the_replay_clock(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.features.LAST_BAR_SECONDS", 0.2)

    async def body(engine: Engine, client: httpx.AsyncClient) -> None:
        from tradeloop.state.online import OnlineStore

        assert (await ask(client, "AAPL")).json()["clock"]["now"] == NOW.isoformat()
        write_features(home, NOW + timedelta(days=3))
        for symbol in SYMBOLS[1:]:
            shutil.rmtree(home.layout.features / symbol)
        store = OnlineStore(home.layout, home.params)
        await asyncio.to_thread(store.fill, tiny_schema())
        store.close()
        await asyncio.sleep(0.6)
        answer = (await ask(client, "IBM")).json()  # its own row is as old as before, its market is not
        assert answer["clock"]["now"] == (NOW + timedelta(days=3)).isoformat()
        assert answer["predictions"][0]["feature_age_seconds"] == 3 * 86_400

    check(home, body)


def test_without_a_model_it_says_so_and_begins_once_there_is_one(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.layout.live / "tradeloop.db").unlink()
    counted = CollectorRegistry()

    async def run() -> None:
        async with running(home, counted) as (engine, client):
            assert (await ask(client, "AAPL")).json() == {"error": "the service is starting"}
            assert (await client.get("/models")).status_code == 503
            await until(lambda: engine._parts is not None)
            await asyncio.sleep(0.2)
            response = await ask(client, "AAPL")
            assert response.status_code == 503
            assert response.json()["error"] == "no model is promoted, and the Bento carries none"
            assert (await client.get("/models")).json() == {
                "serving": None,
                "refused": None,
                "challengers": [],
                "models": [],
            }
            assert not engine.ready

            database = home.database()
            registry = Registry(database, home.params.market)
            registry.register(home.hashes[0], actor="test", reason="made", passed=True)
            registry.promote(home.hashes[0], actor="test", reason="made")
            database.close()
            await until(lambda: engine.ready)
            assert (await ask(client, "AAPL", "NOPE")).json()["model"]["version"] == home.versions[0]

    asyncio.run(run())
    labels = {"model": home.versions[0], "verdict": "trade"}
    abstained = counted.get_sample_value("tradeloop_predictions_total", labels | {"verdict": "abstain"}) or 0
    assert (counted.get_sample_value("tradeloop_predictions_total", labels) or 0) + abstained == 1
    assert counted.get_sample_value("tradeloop_unknown_symbols_total") == 1


def test_without_features_it_is_not_ready(home: Home) -> None:
    shutil.rmtree(home.layout.features)

    async def run() -> None:
        async with running(home) as (engine, client):
            await until(lambda: "no features of schema" in engine._unready)
            response = await ask(client, "AAPL")
            assert response.status_code == 503
            assert "tradeloop publish" in response.json()["error"]
            write_features(home)
            await until(lambda: engine.ready)
            assert (await ask(client, "AAPL")).status_code == 200

    asyncio.run(run())
