from __future__ import annotations

import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from tests.conftest import ROOT
from tests.databases import fresh_url
from tradeloop.errors import RegistryError
from tradeloop.lifecycle import SERVING, Lifecycle
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.tables import ModelEventRow

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


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["pass", "fail", "promote", "force", "rollback", "to"]), st.sampled_from([A, B, C, D])),
    max_size=25,
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_whatever_is_done_the_history_explains_the_champion(actions: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / f"{uuid.uuid4().hex}.db"
    database = Database.open(f"sqlite:///{path}")
    registry = Registry(database, "m")
    quarantined: set[str] = set()
    left: set[str] = set()
    for action, target in actions:
        before, events = served(registry), registry.events()
        try:
            if action in ("pass", "fail"):
                state = registry.register(target, passed=action == "pass", **WHY).state
                quarantined |= {target} if state == "quarantined" else set()
                assert served(registry) == before
            elif action in ("promote", "force"):
                registry.promote(target, force=action == "force", **WHY)
                assert served(registry) == target
                assert target not in quarantined
                assert action == "force" or target not in left
                left.discard(target)
            else:
                registry.rollback(to=target if action == "to" else None, **WHY)
                assert before is not None and served(registry) not in (None, before)
                assert served(registry) not in quarantined
                left = (left | {before}) - {str(served(registry))}
        except RegistryError:
            assert registry.events() == events
        assert registry.events()[: len(events)] == events
        assert sum(record.state in SERVING for record in registry.models()) == (served(registry) is not None)
    history = registry.events()
    for event in history:
        upto = Lifecycle.of(past for past in history if past.seq <= event.seq).champion
        if event.kind in ("promoted", "rolled_back"):
            assert upto is not None and upto.hash == event.model
    database.close()


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
