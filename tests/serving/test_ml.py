"""The routes below /api/ml: real answers of the documented shape, one line for a bad question, the token for a wish."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert

from tests.bundles import NOW
from tests.engines import ask, check, running, until
from tests.outcomes import end
from tests.servers import TOKEN, Home, make_home
from tradeloop.monitoring.cbpe import expected_skill
from tradeloop.registry import Registry
from tradeloop.serving import loop_answers as answers
from tradeloop.serving.engine import Engine
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database
from tradeloop.state.jobs import JobQueue
from tradeloop.state.tables import RetrainingLogRow

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
BAD = [
    ("performance?arm=nobody", "arm must be 'champion', 'shadow', 'canary', 'ab' or '*', got 'nobody'"),
    ("performance?symbol=", "symbol must have 1 to 64 characters, got ''"),
    ("performance?sybmol=AAPL", "unknown parameter 'sybmol' (known: symbol, model, arm, regime, window, since, limit)"),
    ("performance?symbol=A&symbol=B", "'symbol' may be given once, got 2 times"),
    ("performance?since=2013-03-01", "since must be an ISO time with its UTC offset (2013-02-28T21:00:00Z), got '2013"),
    ("experiments?limit=0", "limit must be a whole number from 1 to 1000, got '0'"),
    ("experiments?limit=many", "limit must be a whole number from 1 to 1000, got 'many'"),
    ("retrain?limit=1001", "limit must be a whole number from 1 to 1000, got '1001'"),
    ("events?after=12", "after must be the `next` of an earlier answer, such as 12.30, or 0.0, got '12'"),
    ("outcomes?after_seq=-1", "after_seq must be a whole number from 0 on, got '-1'"),
    ("status?verbose=1", "unknown parameter 'verbose' (known: none)"),
    ("models?x=" + "y" * 9000, "unknown parameter 'x' (known: none)"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("ml") / "home")


def decided(database: Database, market: str, *times: datetime) -> None:
    """Append decisions made at these times of the wall."""
    for number, time in enumerate(times):
        row = {
            "market": market,
            "market_time": NOW,
            "wall_time": time,
            "outcome_seq": number,
            "dedupe": f"{time}:{number}",
            "kind": "turn",
            "decision": "nothing",
            "reason": f"decision {number}",
            "evidence": {},
            "job_id": None,
        }
        with database.write() as connection:
            connection.execute(insert(RetrainingLogRow).values(row))


def test_bad_questions_get_one_clear_line(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        for query, message in BAD:
            response = await client.get(f"/api/ml/{query}")
            assert (response.status_code, list(response.json())) == (422, ["error"]), query
            assert response.json()["error"].startswith(message)
            assert "\n" not in response.json()["error"]

    check(home, body)


def test_before_there_is_a_database_they_say_that_the_service_is_starting(home: Home) -> None:
    async def run() -> None:
        async with running(home) as (_, client):
            response = await client.get("/api/ml/status")
            assert (response.status_code, response.json()) == (503, {"error": "the service is starting"})

    asyncio.run(run())


def test_status_and_models_are_what_the_registry_and_the_log_say(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        await ask(client, "AAPL", "IBM")
        status = answers.StatusAnswer.model_validate((await client.get("/api/ml/status")).json())
        assert (status.clock.mode, status.clock.now) == ("replay", NOW)
        assert status.champion is not None and status.champion.hash == home.hashes[1]
        assert (status.predictions.total, status.predictions.pending) == (2, 2)
        models = answers.MLModelsAnswer.model_validate((await client.get("/api/ml/models")).json())
        assert (models.champion, [one.hash for one in models.models]) == (home.versions[1], home.hashes)
        windows = answers.PerformanceAnswer.model_validate((await client.get("/api/ml/performance")).json())
        assert windows.windows == []

    check(home, body)


def test_a_wish_to_retrain_needs_the_token_and_is_one_job(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        monkeypatch.delenv("TRADELOOP_TOKEN", raising=False)
        assert (await client.post("/api/ml/retrain", json={"reason": "x"})).status_code == 403
        monkeypatch.setenv("TRADELOOP_TOKEN", TOKEN)
        assert (await client.post("/api/ml/retrain", json={"reason": "x"})).status_code == 401
        refused = await client.post("/api/ml/retrain", json={"why": "x"}, headers=AUTHORIZED)
        assert (refused.status_code, refused.json()["error"]) == (422, "reason is missing (known: reason, key)")
        assert (await client.post("/api/ml/retrain", content=b"{", headers=AUTHORIZED)).status_code == 400

        wish = {"reason": "new fees", "key": "k1"}
        made = [
            answers.RetrainAnswer.model_validate(
                (await client.post("/api/ml/retrain", json=wish, headers=AUTHORIZED)).json()
            )
            for _ in range(2)
        ]
        assert [one.created for one in made] == [True, False]
        assert made[0].job == made[1].job
        assert (made[0].job.trigger, made[0].job.market_time) == ("manual", NOW)
        listed = answers.RetrainingAnswer.model_validate((await client.get("/api/ml/retrain")).json())
        assert [job.id for job in listed.queued] == [made[0].job.id]
        assert (await client.get("/api/ml/status")).json()["jobs"]["queued"] == 1

    check(home, body)


def test_experiments_of_a_job(home: Home) -> None:
    database = home.database()
    queue = JobQueue(database, home.params.market)
    queue.enqueue("time_based", 200, "due", {}, dedupe="due", market_time=NOW, max_attempts=1)
    job = queue.claim("test", NOW)
    database.close()
    assert job is not None

    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        found = answers.ExperimentsAnswer.model_validate((await client.get("/api/ml/experiments?limit=1")).json())
        assert [(one.job_id, one.state) for one in found.experiments] == [(job.id, "running")]
        assert (await client.get("/api/ml/experiments?job=nothing")).json()["experiments"] == []

    check(home, body)


def test_events_come_page_by_page_and_none_is_missed_whatever_the_clock_does(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    database = home.database()
    now = datetime.now(UTC)
    # The wall's clock was set back between the second decision and the third.
    decided(database, home.params.market, *(now + timedelta(minutes=m) for m in (1, 90, 2, 3)))
    database.close()

    async def pages(client: httpx.AsyncClient, after: str, limit: int) -> list[list[dict[str, Any]]]:
        found = []
        while True:
            content = (await client.get(f"/api/ml/events?after={after}&limit={limit}")).json()
            answers.EventsAnswer.model_validate(content)
            if not content["events"]:
                assert content["next"] == after
                return found
            found.append(content["events"])
            after = content["next"]

    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        every = [event for page in await pages(client, "0.0", 1000) for event in page]
        assert [(e["stream"], e["kind"]) for e in every[:5]] == [
            ("lifecycle", kind) for kind in ("registered", "promoted", "registered", "promoted", "registered")
        ]
        assert [e["reason"] for e in every if e["stream"] == "decision"] == [f"decision {n}" for n in range(4)]
        for limit in (1, 2, 4, 7):
            paged = await pages(client, "0.0", limit)
            assert max(map(len, paged)) == limit
            assert [event for page in paged for event in page] == every
        newest = (await client.get("/api/ml/events?limit=2")).json()
        assert newest["events"] == every[-2:]
        assert await pages(client, newest["next"], 5) == []

        live = home.database()
        decided(live, home.params.market, now + timedelta(hours=5))
        Registry(live, home.params.market).degrade(home.hashes[1], actor="test", reason="worse")
        live.close()
        (page,) = await pages(client, newest["next"], 5)
        assert {e["kind"] for e in page} == {"turn", "degraded"}

    check(home, body)


def test_metrics_show_what_stands_in_the_database(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.engine.EVERY_SECONDS", 0.2)
    counted = CollectorRegistry()

    async def run() -> None:
        async with running(home, counted) as (engine, client):
            await until(lambda: engine.ready)
            await ask(client, "AAPL")

            def value(name: str, **labels: str) -> float:
                return counted.get_sample_value(name, labels) or 0.0

            await until(lambda: value("tradeloop_logged_predictions", status="pending") >= 1)
            await until(
                lambda: (
                    counted.get_sample_value("tradeloop_heartbeat_age_seconds", {"component": "service"}) is not None
                )
            )
            assert value("tradeloop_heartbeat_age_seconds", component="service") < 10
            assert counted.get_sample_value("tradeloop_alarm", {"watch": "skill"}) == 0
            assert counted.get_sample_value("tradeloop_challengers", {"mode": "shadow"}) == 0
            status = (await client.get("/api/ml/status")).json()
            assert [beat["component"] for beat in status["heartbeats"]] == ["service"]

    asyncio.run(run())


def test_what_to_expect_of_open_predictions_stands_beside_the_windows(home: Home) -> None:
    counted = CollectorRegistry()

    async def run() -> None:
        async with running(home, counted) as (engine, client):
            await until(lambda: engine.ready)
            for _ in range(2):  # the same question twice is one bar
                said = (await ask(client, "AAPL", "IBM", "MSFT")).json()["predictions"]
            found = answers.PerformanceAnswer.model_validate((await client.get("/api/ml/performance")).json()).expected
            assert found is not None
            assert (found.model, found.predictions) == (home.hashes[1], 3)
            assert found.accuracy is not None and found.accuracy.low < found.accuracy.value < found.accuracy.high
            assert found.accuracy.expected is not None
            known = expected_skill(np.array([one["p_up"] for one in said]), engine.bundle.reference)  # type: ignore[union-attr]
            assert found.accuracy.value == pytest.approx(known["accuracy"]["value"])
            gauge = "tradeloop_expected_skill"
            await until(lambda: counted.get_sample_value(gauge, {"metric": "accuracy"}) is not None)
            assert counted.get_sample_value(gauge, {"metric": "accuracy"}) == pytest.approx(found.accuracy.value)

    asyncio.run(run())


def test_a_job_is_cancelled_and_a_failed_one_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "home")
    database = home.database()
    queue = JobQueue(database, home.params.market)
    made = {}
    for name, priority in (("failed", 900), ("waiting", 800)):
        made[name] = queue.enqueue("time_based", priority, name, {}, dedupe=name, market_time=NOW, max_attempts=1)
    job = queue.claim("test", NOW)
    assert job is not None and job.reason == "failed"
    queue.fail(job, "memory: too much", None)
    failed, waiting = job.id, made["waiting"].id  # type: ignore[union-attr]
    database.close()

    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        async def post(name: str, **content: str) -> tuple[int, Any]:
            response = await client.post(f"/api/ml/{name}", json=content, headers=AUTHORIZED)
            return response.status_code, response.json()

        async def alarms() -> list[str]:
            status = answers.StatusAnswer.model_validate((await client.get("/api/ml/status")).json())
            return [alarm.text for alarm in status.alarms if alarm.watch == "retraining"]

        monkeypatch.setenv("TRADELOOP_TOKEN", TOKEN)
        for name in ("cancel", "acknowledge"):
            assert (await client.post(f"/api/ml/{name}", json={"job": failed})).status_code == 401
        assert await alarms() == [f"job {failed} failed: memory: too much"]
        assert await post("cancel", job=failed, reason="x") == (
            409,
            {"error": f"job {failed} has failed: only one that waits or runs can be cancelled"},
        )
        assert await post("acknowledge", job=waiting) == (
            409,
            {"error": f"job {waiting} is queued: only a failed one can be acknowledged"},
        )
        for name, told in (("cancel", {"job": "0" * 36, "reason": "x"}), ("acknowledge", {"job": "no job"})):
            status, said = await post(name, **told)
            assert status == 409 and told["job"] in said["error"]
        assert (await post("cancel", job=waiting))[1] == {"error": "reason is missing (known: job, reason)"}

        for changed in (True, False):
            status, said = await post("acknowledge", job=failed[:12])
            known = answers.JobAnswer.model_validate(said)
            assert (status, known.changed, known.job.acknowledged_by) == (200, changed, "http")
            status, said = await post("cancel", job=waiting, reason="not now")
            known = answers.JobAnswer.model_validate(said)
            assert (status, known.changed, known.job.state) == (200, changed, "cancelled")
            assert known.job.error == "cancelled by http: not now"
        assert await alarms() == []

    check(home, body)


def test_adaptations_of_the_model_that_serves_and_of_another(home: Home) -> None:
    async def body(engine: Engine, client: httpx.AsyncClient) -> None:
        assert engine.bundle is not None
        model = engine.bundle.hash
        database = home.database()
        store = AdaptationStore(database, home.params.market)
        made = store.append(model, "snapshot", {"format": 1}, outcome_seq=1, market_time=NOW, reason="learned")
        database.close()
        found = answers.AdaptationsAnswer.model_validate((await client.get("/api/ml/adaptations")).json())
        assert (found.model, found.applied, [entry.id for entry in found.entries]) == (model, made, [made])
        other = home.versions[2]
        said = await client.get(f"/api/ml/adaptations?model={other}")
        found = answers.AdaptationsAnswer.model_validate(said.json())
        assert (found.model, found.applied, found.entries) == (home.hashes[2], None, [])
        response = await client.get("/api/ml/adaptations?model=ffff")
        assert response.status_code == 409 and "ffff" in response.json()["error"]

    check(home, body)


def test_outcomes_stand_beside_what_was_said(home: Home) -> None:
    async def body(_: Engine, client: httpx.AsyncClient) -> None:
        (said,) = (await ask(client, "AAPL")).json()["predictions"]
        database = home.database()
        end(database, home.params.market, said["prediction_id"], "AAPL", NOW)
        database.close()
        (one,) = answers.OutcomesAnswer.model_validate((await client.get("/api/ml/outcomes")).json()).outcomes
        assert (one.prediction_id, one.p_up, one.direction) == (said["prediction_id"], said["p_up"], 1.0)
        assert one.range == pytest.approx(0.02) and one.label_end == NOW
        for query, count in (("symbol=AAPL", 1), ("symbol=IBM", 0), (f"after_seq={one.seq}", 0)):
            assert len((await client.get(f"/api/ml/outcomes?{query}")).json()["outcomes"]) == count

    check(home, body)
