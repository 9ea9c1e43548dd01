from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from tests.bundles import tiny_bundle
from tests.conftest import ROOT
from tests.databases import fresh_url
from tradeloop.clock import VirtualClock
from tradeloop.errors import RegistryError
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.tables import ModelEventRow
from tradeloop.version_facts import VersionFacts

A, B, C, D = (letter * 64 for letter in "abcd")
WHY = {"actor": "tester", "reason": "because"}


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database, "us_daily")


def served(registry: Registry) -> str | None:
    champion = registry.champion()
    return champion.hash if champion else None


def promoted(registry: Registry, *hashes: str) -> None:
    for bundle_hash in hashes:
        registry.register(bundle_hash, passed=True, **WHY)
        registry.promote(bundle_hash, **WHY)


class TestRegister:
    def test_remembers_evidence_and_state(self, registry: Registry) -> None:
        record = registry.register(A, passed=True, evidence={"auc": 0.53}, **WHY)
        assert (record.version, record.state, record.evidence) == ("a" * 12, "validation", {"auc": 0.53})
        assert registry.champion() is None
        assert registry.models() == [record]

    def test_again_writes_no_event(self, registry: Registry) -> None:
        first = registry.register(A, passed=True, **WHY)
        assert registry.register(A, passed=True, actor="other", reason="other") == first
        assert len(registry.events()) == 1

    def test_a_quarantine_is_not_lifted_by_registering_again(self, registry: Registry) -> None:
        registry.register(A, passed=False, **WHY)
        assert registry.register(A, passed=True, **WHY).state == "quarantined"
        assert len(registry.events()) == 1

    def test_a_registered_version_may_be_withdrawn_but_not_while_it_serves(self, registry: Registry) -> None:
        promoted(registry, A, B)
        assert registry.register(A, passed=False, **WHY).state == "quarantined"
        with pytest.raises(RegistryError, match="is the champion: roll back"):
            registry.register(B, passed=False, **WHY)
        with pytest.raises(RegistryError, match="nothing to roll back to"):
            registry.rollback(**WHY)

    def test_a_version_names_one_bundle(self, registry: Registry) -> None:
        registry.register(A, version="v1", passed=True, **WHY)
        with pytest.raises(RegistryError, match="version v1 names another bundle"):
            registry.register(B, version="v1", passed=True, **WHY)

    def test_markets_do_not_see_each_other(self, registry: Registry, database: Database) -> None:
        promoted(registry, A)
        other = Registry(database, "btc_15m")
        assert other.champion() is None and other.events() == []
        before = other.champion_version()
        promoted(registry, B)
        assert other.champion_version() == before


class TestPromote:
    def test_makes_the_champion_and_names_the_one_before(self, registry: Registry) -> None:
        promoted(registry, A)
        registry.register(B, passed=True, **WHY)
        change = registry.promote(B, **WHY)
        assert change.changed and change.champion.hash == B
        assert change.previous is not None and (change.previous.hash, change.previous.state) == (A, "retired")
        assert registry.events()[-1].previous == A

    def test_again_changes_nothing(self, registry: Registry) -> None:
        promoted(registry, A)
        before = registry.events()
        change = registry.promote(A, **WHY)
        assert not change.changed and change.champion.hash == A
        assert registry.events() == before

    def test_a_quarantined_version_never(self, registry: Registry) -> None:
        registry.register(A, passed=False, actor="gate", reason="auc is NaN")
        for force in (False, True):
            with pytest.raises(RegistryError, match="quarantined and cannot be promoted: auc is NaN"):
                registry.promote(A, force=force, **WHY)

    def test_a_rolled_back_version_only_by_force(self, registry: Registry) -> None:
        promoted(registry, A, B)
        registry.rollback(**WHY)
        with pytest.raises(RegistryError, match="was rolled back"):
            registry.promote(B, **WHY)
        assert served(registry) == A
        assert registry.promote(B, force=True, **WHY).champion.hash == B

    @pytest.mark.parametrize("name", ["unknown", "ffff", "aa", ""])
    def test_an_unknown_version_names_the_known(self, registry: Registry, name: str) -> None:
        registry.register(A, passed=True, **WHY)
        with pytest.raises(RegistryError, match=r"is registered \(known: aaaaaaaaaaaa\)"):
            registry.promote(name, **WHY)

    def test_by_prefix_unless_it_is_ambiguous(self, registry: Registry) -> None:
        registry.register("abcd" + "0" * 60, passed=True, **WHY)
        registry.register("abcd" + "1" * 60, passed=True, **WHY)
        with pytest.raises(RegistryError, match="'abcd' is ambiguous"):
            registry.promote("abcd", **WHY)
        assert registry.promote("abcd1", **WHY).champion.hash == "abcd" + "1" * 60


class TestRollback:
    def test_steps_back_champion_by_champion(self, registry: Registry) -> None:
        promoted(registry, A, B, C)
        assert [registry.rollback(**WHY).champion.hash for _ in range(2)] == [B, A]
        with pytest.raises(RegistryError, match="nothing to roll back to"):
            registry.rollback(**WHY)
        assert served(registry) == A

    def test_goes_to_a_distinct_version(self, registry: Registry) -> None:
        promoted(registry, A, B)
        registry.promote(A, **WHY)
        assert registry.rollback(**WHY).champion.hash == B
        with pytest.raises(RegistryError):
            registry.rollback(**WHY)

    def test_to_a_named_former_champion(self, registry: Registry) -> None:
        promoted(registry, A, B, C)
        change = registry.rollback(to=A[:8], **WHY)
        assert change.champion.hash == A and change.previous is not None and change.previous.state == "rolled_back"
        states = {record.hash: record.state for record in registry.models()}
        assert states == {A: "production", B: "retired", C: "rolled_back"}

    def test_to_the_champion_changes_nothing(self, registry: Registry) -> None:
        promoted(registry, A, B)
        before = registry.events()
        change = registry.rollback(to=B, **WHY)
        assert (change.changed, change.record.hash, change.previous) == (False, B, None)
        assert registry.events() == before

    def test_to_what_never_served_is_refused(self, registry: Registry) -> None:
        promoted(registry, A)
        registry.register(B, passed=True, **WHY)
        registry.register(C, passed=False, **WHY)
        for name, rule in ((B, "must have served"), (C, "must have served"), (D, "known:")):
            with pytest.raises(RegistryError, match=rule):
                registry.rollback(to=name, **WHY)

    def test_without_a_champion_is_refused(self, registry: Registry) -> None:
        with pytest.raises(RegistryError, match="has no champion"):
            registry.rollback(**WHY)


class TestExpectedChampion:
    def test_a_rollback_by_hand_wins_over_a_promotion_that_was_decided_before(self, registry: Registry) -> None:
        promoted(registry, A, B)
        registry.register(C, passed=True, **WHY)
        registry.rollback(actor="operator", reason="losing money")
        before = registry.events()
        with pytest.raises(RegistryError, match=f"champion is {A[:12]} by now, this was decided when it was {B[:12]}"):
            registry.promote(C, expected_champion=B, **WHY)
        with pytest.raises(RegistryError, match=f"champion is {A[:12]} by now, this was decided when it was {D[:12]}"):
            registry.promote(C, expected_champion=D, **WHY)
        assert registry.events() == before
        assert registry.promote(C, expected_champion=A, **WHY).changed

    def test_a_promotion_that_is_done_again_after_a_crash_changes_nothing(self, registry: Registry) -> None:
        promoted(registry, A)
        registry.register(B, passed=True, **WHY)
        assert registry.promote(B, expected_champion=A, **WHY).changed
        assert not registry.promote(B, expected_champion=A, **WHY).changed
        assert served(registry) == B

    def test_a_rollback_that_is_done_again_after_a_crash_is_no_second_step(self, registry: Registry) -> None:
        promoted(registry, A, B, C)
        assert registry.rollback(expected_champion=C, **WHY).changed
        change = registry.rollback(expected_champion=C, **WHY)
        assert (change.changed, served(registry)) == (False, B)
        registry.promote(C, force=True, **WHY)
        registry.promote(A, **WHY)
        with pytest.raises(RegistryError, match="this was decided when it was"):
            registry.rollback(expected_champion=C, **WHY)
        assert served(registry) == A

    def test_without_any_champion_none_is_the_expected_one(self, registry: Registry) -> None:
        registry.register(A, passed=True, **WHY)
        with pytest.raises(RegistryError, match="champion is none by now"):
            registry.promote(A, expected_champion=B, **WHY)


class TestFacts:
    def test_are_written_with_the_event_once(self, registry: Registry) -> None:
        facts = VersionFacts("s" * 64, datetime(2020, 1, 1, tzinfo=UTC), 1234, {"auc": 0.5}, {"market": "us_daily"})
        registry.register(A, passed=True, facts=facts, **WHY)
        registry.register(A, passed=True, facts=replace(facts, size=99), **WHY)
        registry.register(B, passed=True, **WHY)
        assert registry.facts() == {A: facts}

    def test_come_later_for_a_version_that_had_none(self, registry: Registry) -> None:
        facts = VersionFacts("s" * 64, datetime(2020, 1, 1, tzinfo=UTC), 1234, {}, {})
        registry.register(A, passed=True, **WHY)
        registry.register(A, passed=True, facts=facts, **WHY)
        assert registry.facts() == {A: facts} and len(registry.events()) == 1

    def test_say_what_the_bundle_says(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "bundle")
        facts = VersionFacts.of(bundle)
        files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file() and path.name != "manifest.json"]
        assert facts.size == sum(path.stat().st_size for path in files)
        assert (facts.schema_hash, facts.train_end) == (bundle.schema.hash, bundle.manifest.train_end)
        assert facts.gate_report == hashlib.sha256((tmp_path / "bundle" / "gate.json").read_bytes()).hexdigest()


class TestHistory:
    def test_what_served_is_answered_for_any_moment(self, registry: Registry) -> None:
        promoted(registry, A, B)
        registry.rollback(**WHY)
        start = registry.events()[0].time
        assert registry.served("AAPL", start - timedelta(seconds=1)) is None
        crowned = [event for event in registry.events() if event.kind in ("promoted", "rolled_back")]
        served_at = [registry.served("AAPL", event.time) for event in crowned]
        assert [champion.hash if champion else None for champion in served_at] == [A, B, A]

    def test_its_clock_never_runs_backwards(self, registry: Registry, database: Database) -> None:
        ahead = datetime.now(UTC) + timedelta(hours=1)
        row = {"market": "us_daily", "time": ahead, "kind": "registered", "model": A, "version": A[:12]}
        with database.write() as connection:
            connection.execute(insert(ModelEventRow).values(row | {"previous": None, "evidence": {}} | WHY))
        registry.promote(A, **WHY)
        assert registry.events()[-1].time == ahead

    def test_markets_have_a_time_of_their_own(self, database: Database) -> None:
        clock = VirtualClock(datetime(2013, 1, 1, tzinfo=UTC))
        virtual, by_hand = Registry(database, "m", clock=clock), Registry(database, "m")
        promoted(virtual, A)
        clock.advance(datetime(2013, 2, 1, tzinfo=UTC))
        promoted(virtual, B)
        by_hand.rollback(**WHY)  # a person has no clock of the market: it counts as of what the loop did last
        found = [virtual.served("AAPL", datetime(2013, 1, day, tzinfo=UTC), market=True) for day in (1, 31)]
        assert [record.hash if record else None for record in found] == [A, A]
        assert virtual.served("AAPL", datetime(2012, 12, 31, tzinfo=UTC), market=True) is None
        now = virtual.served("AAPL", datetime(2013, 2, 1, tzinfo=UTC), market=True)
        assert now is not None and now.hash == A and now.promoted_in_market == datetime(2013, 2, 1, tzinfo=UTC)
        assert virtual.served("AAPL", datetime(2013, 2, 1, tzinfo=UTC)) is None  # nothing had happened by then

    def test_a_text_that_is_too_long_is_cut(self, registry: Registry) -> None:
        registry.register(A, passed=True, actor="x" * 100, reason="y" * 3000)
        event = registry.events()[0]
        assert (len(event.actor), len(event.reason)) == (64, 2000)

    def test_champion_version_grows_with_every_event_only(self, registry: Registry) -> None:
        assert registry.champion_version() == 0
        promoted(registry, A)
        first = registry.champion_version()
        registry.promote(A, **WHY)
        assert registry.champion_version() == first
        promoted(registry, B)
        assert registry.champion_version() > first

    def test_polling_is_cheap(self, tmp_path: Path) -> None:
        with fresh_url("sqlite", tmp_path) as url:
            database = Database.open(url)
            registry = Registry(database, "us_daily")
            promoted(registry, A)
            spent = []
            for _ in range(300):
                started = time.perf_counter()
                registry.champion_version()
                spent.append(time.perf_counter() - started)
            database.close()
        assert sorted(spent)[len(spent) // 2] < 0.5e-3  # 0.05 ms on a quiet machine


PROMOTER = """
import sys
from tradeloop.registry import Registry
from tradeloop.state.database import Database
registry = Registry(Database.open(sys.argv[1]), "us_daily")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    registry.promote(sys.argv[2], actor=sys.argv[2][:1], reason="race")
"""


def test_promotions_of_two_processes_run_one_after_the_other(url: str, registry: Registry) -> None:
    registry.register(A, passed=True, **WHY)
    registry.register(B, passed=True, **WHY)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER, url, bundle_hash, "30"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for bundle_hash in (A, B)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=120)
        assert racer.returncode == 0
    crowned = [event for event in registry.events() if event.kind == "promoted"]
    # Had one read the champion before the other wrote, a version would follow itself or leave the wrong one.
    assert [event.previous for event in crowned] == [None, *(event.model for event in crowned[:-1])]
    assert len(crowned) >= 2
    assert served(registry) == crowned[-1].model
