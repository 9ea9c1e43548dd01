"""Canaries, A/B arms and shadows in the running engine: who answers, who watches, and what happens when one cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from tests.bundles import NAMES, NOW, SYMBOLS, tiny_bundle, tiny_rows, tiny_schema
from tests.engines import ask, running, until
from tests.servers import DAYS, Home, make_home
from tradeloop.bundle_store import BundleStore
from tradeloop.manifest import verify
from tradeloop.predictor import Predictor
from tradeloop.registry import Registry
from tradeloop.routes import pick
from tradeloop.serving.answers import Answer, ModelsAnswer
from tradeloop.serving.breaker import FAILURES
from tradeloop.serving.engine import Engine
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.faults import Faults
from tradeloop.state.tables import PredictionRow

WHO = {"actor": "test", "reason": "tried"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


class Live:
    """A running engine with the registry, the log and the counters beside it."""

    def __init__(self, home: Home, engine: Engine, client: httpx.AsyncClient, counted: CollectorRegistry) -> None:
        self.home, self.engine, self.client, self.counted = home, engine, client, counted
        self.database = home.database()
        self.registry = Registry(self.database, home.params.market)

    async def stage(self, number: int, mode: Any, share: float = 0.0) -> str:
        self.registry.stage(self.home.hashes[number], mode=mode, share=share, **WHO)
        await self.state(number, "taking part")
        return self.home.hashes[number]

    async def state(self, number: int, wanted: str) -> dict[str, Any]:
        """Wait until a challenger is as wanted; return what GET /models says of it."""
        found: dict[str, Any] = {}
        async with asyncio.timeout(20):
            while True:
                answer = ModelsAnswer.model_validate((await self.client.get("/models")).json())
                for one in answer.challengers:
                    if one.model == self.home.hashes[number] and one.state == wanted:
                        found = one.model_dump()
                if found:
                    return found
                await asyncio.sleep(0.05)

    async def ask(self, *symbols: str, **more: str) -> list[dict[str, Any]]:
        response = await ask(self.client, *symbols, **more)
        assert response.status_code == 200, response.text
        Answer.model_validate(response.json())
        entries: list[dict[str, Any]] = response.json()["predictions"]
        return entries

    def rows(self, **where: Any) -> list[Any]:
        query = select(PredictionRow.__table__).filter_by(**where).order_by(PredictionRow.id)
        with self.database.read() as connection:
            return list(connection.execute(query).all())

    def count(self, name: str, **labels: str) -> float:
        return self.counted.get_sample_value(name, labels) or 0.0


def check(home: Home, body: Callable[[Live], Awaitable[None]]) -> None:
    async def run() -> None:
        counted = CollectorRegistry()
        async with running(home, counted) as (engine, client):
            await until(lambda: engine.ready)
            live = Live(home, engine, client, counted)
            try:
                await body(live)
            finally:
                live.database.close()

    asyncio.run(run())


def test_shadows_are_logged_beside_the_answer_and_never_answer(home: Home) -> None:
    async def body(live: Live) -> None:
        first, third = await live.stage(0, "shadow"), await live.stage(2, "shadow")
        entries = await live.ask("AAPL", "IBM")
        assert [(e["model_version"], e["arm"]) for e in entries] == [(home.versions[1], "champion")] * 2
        await until(lambda: len(live.rows(answered=False)) == 4)
        pairs = {(row.model, row.parent) for row in live.rows(answered=False)}
        assert pairs == {(model, entry["prediction_id"]) for model in (first, third) for entry in entries}
        assert all(row.latency > 0 for row in live.rows())
        assert live.count("tradeloop_challenger_predictions_total", model=home.versions[0], arm="shadow") == 2
        live.registry.unstage(first, **WHO)
        await until(lambda: not any(one.model.hash == first for one in live.engine._parts.holder.current.challengers))  # type: ignore[union-attr]
        (entry,) = await live.ask("GOOG")
        await until(lambda: len(live.rows(parent=entry["prediction_id"])) == 1)
        assert live.rows(parent=entry["prediction_id"])[0].model == third

    check(home, body)


def test_each_symbol_is_answered_by_its_canary_and_the_others_watch(home: Home) -> None:
    async def body(live: Live) -> None:
        canary = await live.stage(2, "canary", 0.5)
        shadow = await live.stage(0, "shadow")
        routes = live.registry.state().routes
        mine = {s for s in SYMBOLS if pick(routes, "us_daily", s, NOW) is not None}
        assert 0 < len(mine) < 4  # or the test says nothing
        entries = await live.ask(*SYMBOLS)
        assert [e["symbol"] for e in entries] == list(SYMBOLS)
        arms = {e["symbol"]: (e["arm"], e["model_version"]) for e in entries}
        assert {s for s, (arm, _) in arms.items() if arm == "canary"} == mine
        assert {arms[s][1] for s in mine} == {home.versions[2]}
        bundle = BundleStore(home.layout, home.params).get(canary)
        symbol = sorted(mine)[0]
        p_up = bundle.forecast(tiny_rows(DAYS, seed=SYMBOLS.index(symbol))[-1:]).p_up[0]
        assert next(e for e in entries if e["symbol"] == symbol)["p_up"] == pytest.approx(p_up, abs=1e-6)
        await until(lambda: len(live.rows()) == 12)  # each symbol by champion, canary and shadow
        by_symbol = {s: {(r.model, r.arm, r.answered) for r in live.rows(symbol=s)} for s in SYMBOLS}
        for symbol in SYMBOLS:
            taken = symbol in mine
            assert by_symbol[symbol] == {
                (home.hashes[1], "champion", not taken),
                (canary, "canary", taken),
                (shadow, "shadow", False),
            }
        parents = {entry["prediction_id"] for entry in entries}
        assert {row.parent for row in live.rows(answered=False)} == parents
        assert live.count("tradeloop_answers_total", arm="canary") == len(mine)

    check(home, body)


def test_an_ab_arm_is_drawn_for_every_bar(home: Home) -> None:
    async def body(live: Live) -> None:
        await live.stage(2, "ab", 0.5)
        drawn = set()
        for day in range(10, 20):
            (entry,) = await live.ask("AAPL", as_of=f"2013-02-{day}T22:00:00Z")
            (again,) = await live.ask("AAPL", as_of=f"2013-02-{day}T22:00:00Z")
            assert entry["arm"] == again["arm"]
            drawn.add(entry["arm"])
        assert drawn == {"champion", "ab"}

    check(home, body)


def test_a_canary_that_fails_leaves_its_questions_to_the_champion(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.engine.EVERY_SECONDS", 0.3)

    async def body(live: Live) -> None:
        canary = await live.stage(2, "canary", 1.0)
        assert {e["arm"] for e in await live.ask(*SYMBOLS)} == {"canary"}
        healthy, broken = Predictor.predict, home.hashes[2]

        def predict(self: Predictor, *args: Any, **options: Any) -> Any:
            if self.bundle.hash == broken:
                raise RuntimeError("broken weights")
            return healthy(self, *args, **options)

        monkeypatch.setattr(Predictor, "predict", predict)
        for _ in range(5):
            entries = await live.ask("AAPL", "MSFT")
            assert [(e["arm"], e["model_version"]) for e in entries] == [("champion", home.versions[1])] * 2
            assert all(e["p_up"] is not None for e in entries)
        paused = await live.state(2, "paused")
        assert paused["reason"] == "RuntimeError: broken weights"
        assert live.count("tradeloop_arm_fallbacks_total", model=home.versions[2], arm="canary") >= 2
        faults = Faults(live.database, home.params.market)
        await until(lambda: {"arm_fell_back", "challenger_failed"} <= {fault.kind for fault in faults.recent()})
        assert any("broken weights" in fault.message for fault in faults.recent())

        monkeypatch.setattr(Predictor, "predict", healthy)
        challengers = live.engine._parts.holder.current.challengers  # type: ignore[union-attr]
        monkeypatch.setattr(challengers[0].breaker, "_trial_at", 0.0)
        await live.ask("AAPL")  # it watches this one, and is trusted again
        await live.state(2, "taking part")
        assert [e["model_version"] for e in await live.ask("AAPL")] == [canary[:12]]

    check(home, body)


def test_a_broken_challenger_takes_no_part_until_it_is_put_right(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.holder.RETRY_SECONDS", 0.0)

    async def body(live: Live) -> None:
        folder = home.bundle_folder(2)
        hidden = folder.rename(folder.with_name("hidden"))
        live.registry.stage(home.hashes[2], mode="canary", share=1.0, **WHO)
        refused = await live.state(2, "refused")
        assert "cannot be read" in refused["reason"]
        assert {e["arm"] for e in await live.ask(*SYMBOLS)} == {"champion"}
        hidden.rename(folder)
        await live.state(2, "taking part")
        assert {e["arm"] for e in await live.ask(*SYMBOLS)} == {"canary"}

    check(home, body)


def test_a_promoted_challenger_needs_no_second_load_and_its_predecessor_may_shadow(home: Home) -> None:
    async def body(live: Live) -> None:
        await live.stage(2, "shadow")
        (home.bundle_folder(2) / "stack.json").write_text("{}")  # from now on it cannot be loaded
        live.registry.promote(home.hashes[2], **WHO)
        live.registry.stage(home.hashes[1], mode="shadow", **WHO)
        holder = live.engine._parts.holder  # type: ignore[union-attr]
        await until(lambda: holder.current is not None and holder.current.champion.hash == home.hashes[2])
        await live.state(1, "taking part")
        (entry,) = await live.ask("AAPL")
        assert entry["model_version"] == home.versions[2]
        await until(lambda: [row.model for row in live.rows(answered=False)] == [home.hashes[1]])

    check(home, body)


def test_a_challenger_of_another_schema_reads_its_own_features(home: Home) -> None:
    schema = tiny_schema(NAMES[::-1])
    bundle = tiny_bundle(home.root / "other", seed=5, schema=schema)
    BundleStore(home.layout, home.params).put(verify(home.root / "other"))
    home.hashes.append(bundle.hash)

    async def body(live: Live) -> None:
        import numpy as np

        from tradeloop.state.feature_rows import OnlineRows
        from tradeloop.state.online import OnlineStore

        live.registry.register(bundle.hash, passed=True, **WHO)
        await live.stage(3, "shadow")
        (first,) = await live.ask("AAPL")
        await until(lambda: len(live.rows(model=bundle.hash)) == 1)
        assert live.rows(model=bundle.hash)[0].reasons == ["missing_features"]

        times = np.array([NOW.replace(tzinfo=None)], "datetime64[us]")
        row = tiny_rows(1, seed=11)
        store = OnlineStore(home.layout, home.params)
        await asyncio.to_thread(store.write, ["AAPL"], OnlineRows.of(row, times), schema)
        store.close()
        (second,) = await live.ask("AAPL")
        await until(lambda: len(live.rows(model=bundle.hash)) == 2)
        found = live.rows(parent=second["prediction_id"])[0]
        assert found.p_up == pytest.approx(bundle.forecast(row).p_up[0], abs=1e-6)
        assert found.schema_hash == schema.hash != first["model_version"]

    check(home, body)


def changed(home: Home, block: str, **values: Any) -> Home:
    """Return the project with other parameters."""
    content = yaml.safe_load(home.layout.params.read_text())
    content[block] |= values
    home.layout.params.write_text(yaml.safe_dump(content))
    return Home(home.root, hashes=home.hashes)


def test_a_canary_beyond_its_budget_answers_no_more(home: Home) -> None:
    async def body(live: Live) -> None:
        await live.stage(2, "canary", 1.0)
        arms = [(await live.ask("AAPL"))[0]["arm"] for _ in range(5)]
        assert arms == ["canary"] * FAILURES + ["champion"] * (5 - FAILURES)
        paused = await live.state(2, "paused")
        assert paused["reason"].endswith("the budget is 1e-06 s")

    check(changed(home, "serving", challenger_budget_ms=0.001), body)


def test_what_does_not_fit_into_a_challengers_queue_is_dropped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.watchers.GATHER_SECONDS", 1.0)

    async def body(live: Live) -> None:
        await live.stage(2, "shadow")
        for _ in range(4):
            await live.ask("AAPL", "IBM")
        await until(lambda: len(live.rows(answered=False)) == 4)
        assert live.count("tradeloop_challenger_drops_total", model=home.versions[2], reason="queue") == 4
        assert len(live.rows(answered=True)) == 8

    check(changed(home, "serving", challenger_queue=5), body)


def test_a_snapshot_of_online_adaptation_is_applied_once_switched_on(home: Home) -> None:
    async def body(live: Live) -> None:
        (plain,) = await live.ask("AAPL")
        store = AdaptationStore(live.database, home.params.market)
        learned = {"targets": {"direction": {"intercept": 0.5}}}
        snapshot = store.append(home.hashes[1], "snapshot", learned, outcome_seq=1, market_time=NOW, reason="learned")
        holder = live.engine._parts.holder  # type: ignore[union-attr]
        await until(lambda: holder.current is not None and holder.current.champion.predictor.snapshot == snapshot)
        (moved,) = await live.ask("AAPL")
        assert moved["p_up"] > plain["p_up"] + 0.01
        assert [row.adaptation for row in live.rows()] == [None, snapshot]
        store.append(home.hashes[1], "snapshot", {"format": 2}, outcome_seq=2, market_time=NOW, reason="malformed")
        await until(lambda: holder.current is not None and holder.current.champion.predictor.snapshot is None)
        assert (await live.ask("AAPL"))[0]["p_up"] == plain["p_up"]

    check(changed(home, "adapt", enabled=True), body)


def test_adaptation_is_off_by_default(home: Home) -> None:
    async def body(live: Live) -> None:
        store = AdaptationStore(live.database, home.params.market)
        learned = {"targets": {"direction": {"intercept": 0.5}}}
        store.append(home.hashes[1], "snapshot", learned, outcome_seq=1, market_time=NOW, reason="learned")
        await asyncio.sleep(0.5)
        await live.ask("AAPL")
        assert live.rows()[0].adaptation is None
        # What fills have shown of the cost counts all the same.
        dear = store.append(
            home.hashes[1], "snapshot", {"cost_bps": 400.0}, outcome_seq=2, market_time=NOW, reason="fills cost more"
        )
        holder = live.engine._parts.holder  # type: ignore[union-attr]
        await until(lambda: holder.current is not None and holder.current.champion.predictor.snapshot == dear)
        (answer,) = await live.ask("AAPL")
        assert "below_cost" in answer["reasons"]
        assert live.rows()[1].adaptation == dear

    check(home, body)
