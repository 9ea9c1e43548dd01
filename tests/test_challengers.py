"""What becomes of a version beside promotion and rollback: challengers, flags, the archive, the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tradeloop.errors import RegistryError
from tradeloop.registry import Change, Registry
from tradeloop.state.database import Database

A, B, C, D = (letter * 64 for letter in "abcd")
WHY: dict[str, Any] = {"actor": "tester", "reason": "because"}
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return a database of one kind: what may happen does not depend on it, tests/test_registry.py has the rest."""
    opened = Database.open(f"sqlite:///{tmp_path / 'state.db'}", durable=False)
    yield opened
    opened.close()


@pytest.fixture
def registry(database: Database) -> Registry:
    """Return a registry in which A and then B were promoted, and C and D wait."""
    registry = Registry(database, "us_daily")
    for model in (A, B, C, D):
        registry.register(model, passed=True, **WHY)
    registry.promote(A, **WHY)
    registry.promote(B, **WHY)
    return registry


def states(registry: Registry) -> dict[str, str]:
    return {record.hash[0]: record.state for record in registry.models()}


def twice(registry: Registry, act: Callable[[], Change]) -> Change:
    """Do it, and see that doing it again changes nothing."""
    change = act()
    history = registry.events()
    again = act()
    assert change.changed and not again.changed
    assert registry.events() == history
    return change


class TestStage:
    def test_a_challenger_gets_its_route(self, registry: Registry) -> None:
        evidence = {"gate_report": "0" * 64}
        change = twice(registry, lambda: registry.stage(C[:8], mode="canary", share=0.25, evidence=evidence, **WHY))
        assert change.record.state == "staging" and change.champion is not None and change.champion.hash == B
        (route,) = registry.state().routes
        assert (route.model, route.mode, route.share) == (C, "canary", 0.25)
        event = registry.events()[-1]
        assert (event.kind, event.mode, event.share, event.evidence) == ("staged", "canary", 0.25, evidence)
        assert route.since == event.time

    def test_several_keep_their_order_when_one_changes(self, registry: Registry) -> None:
        registry.stage(C, mode="shadow", **WHY)
        registry.stage(D, mode="ab", share=0.2, **WHY)
        registry.stage(A, mode="shadow", **WHY)
        assert registry.stage(C, mode="canary", share=0.8, **WHY).changed
        routes = [(route.model, route.mode, route.share) for route in registry.state().routes]
        assert routes == [(C, "canary", 0.8), (D, "ab", 0.2), (A, "shadow", 0.0)]
        with pytest.raises(RegistryError, match=r"0.8 is taken, 0.3 was asked"):
            registry.stage(D, mode="ab", share=0.3, **WHY)

    def test_the_answer_follows_the_routes(self, registry: Registry) -> None:
        registry.stage(C, mode="canary", share=1.0, **WHY)
        staged = registry.events()[-1].time
        found = registry.state().answering("AAPL", NOON)
        assert found is not None and found.hash == C
        registry.unstage(C, **WHY)
        now = registry.state().answering("AAPL", NOON)
        then = registry.served("AAPL", staged)
        assert now is not None and then is not None and (now.hash, then.hash) == (B, C)

    def test_what_served_names_the_ab_arm_of_a_bar(self, registry: Registry) -> None:
        registry.stage(C, mode="ab", share=1.0, **WHY)
        staged = registry.events()[-1].time
        without, by_bar = registry.served("AAPL", staged), registry.served("AAPL", staged, feature_time=NOON)
        assert without is not None and by_bar is not None and (without.hash, by_bar.hash) == (B, C)

    def test_the_predecessor_may_go_on_watching(self, registry: Registry) -> None:
        registry.stage(A, mode="shadow", **WHY)
        assert states(registry)["a"] == "staging"
        assert registry.rollback(**WHY).record.hash == A  # and it can still be gone back to
        assert registry.state().routes == []
        registry.stage(B, mode="shadow", **WHY)
        assert registry.unstage(B, **WHY).record.state == "rolled_back"

    def test_a_rolled_back_one_watches_but_does_not_answer(self, registry: Registry) -> None:
        registry.rollback(**WHY)
        registry.stage(B, mode="shadow", **WHY)
        for mode in ("canary", "ab"):
            with pytest.raises(RegistryError, match=r"was rolled back .* shadow only"):
                registry.stage(B, mode=mode, share=0.1, **WHY)
        with pytest.raises(RegistryError, match=r"was rolled back .* needs force"):
            registry.promote(B, **WHY)
        assert registry.promote(B, force=True, **WHY).changed

    @pytest.mark.parametrize(("name", "rule"), [(B, "is the champion: it answers already"), ("eeee", "no version")])
    def test_not_the_champion_nor_the_unknown(self, registry: Registry, name: str, rule: str) -> None:
        with pytest.raises(RegistryError, match=rule):
            registry.stage(name, mode="shadow", **WHY)

    def test_not_without_a_champion(self, database: Database) -> None:
        empty = Registry(database, "empty")
        empty.register(A, passed=True, **WHY)
        with pytest.raises(RegistryError, match="there is no champion to challenge"):
            empty.stage(A, mode="shadow", **WHY)

    def test_promotion_ends_it(self, registry: Registry) -> None:
        registry.stage(C, mode="canary", share=0.5, **WHY)
        change = registry.promote(C, **WHY)
        assert change.previous is not None and change.previous.state == "retired"
        assert (states(registry)["c"], registry.state().routes) == ("production", [])


class TestUnstageAndDemote:
    @pytest.mark.parametrize("how", ["unstage", "demote"])
    def test_a_challenger_becomes_what_it_was(self, registry: Registry, how: str) -> None:
        registry.stage(C, mode="shadow", **WHY)
        registry.stage(A, mode="canary", share=0.1, **WHY)
        for model in (C, A):
            change = twice(registry, lambda model=model: getattr(registry, how)(model, **WHY))  # type: ignore[misc]
            assert (change.previous, change.champion and change.champion.hash) == (None, B)
        assert (states(registry)["c"], states(registry)["a"]) == ("validation", "retired")
        assert registry.state().routes == []

    def test_a_demoted_champion_leaves_to_the_one_before(self, registry: Registry) -> None:
        registry.promote(C, **WHY)
        registry.stage(B, mode="shadow", **WHY)
        change = twice(registry, lambda: registry.demote(C, **WHY))
        assert change.champion is not None and change.previous is not None
        assert (change.record.hash, change.champion.hash, change.previous.hash) == (C, B, C)
        assert states(registry) == {"a": "retired", "b": "production", "c": "retired", "d": "validation"}
        assert registry.state().routes == []
        assert registry.events()[-1].previous == C
        assert registry.promote(C, **WHY).changed  # unlike after a rollback

    def test_the_only_champion_cannot_be_demoted(self, registry: Registry) -> None:
        registry.demote(B, **WHY)
        with pytest.raises(RegistryError, match="has no champion before it"):
            registry.demote(A, **WHY)

    def test_neither_gives_a_part_to_what_has_none(self, registry: Registry) -> None:
        for act in (registry.unstage, registry.demote):
            assert not act(C, **WHY).changed
        assert not registry.unstage(B, **WHY).changed


class TestDegrade:
    def test_the_champion_serves_on_with_a_flag(self, registry: Registry) -> None:
        twice(registry, lambda: registry.degrade(B, evidence={"e_value": 120.0}, **WHY))
        champion = registry.champion()
        assert champion is not None and (champion.hash, champion.state) == (B, "degraded")
        assert registry.state().answering("AAPL", NOON) == champion
        assert not registry.promote(B, **WHY).changed
        twice(registry, lambda: registry.recover(B, **WHY))
        assert states(registry)["b"] == "production"

    def test_when_it_is_followed_the_flag_is_gone(self, registry: Registry) -> None:
        registry.degrade(B, **WHY)
        promoted_at = registry.find(B).promoted_at
        assert registry.promote(C, **WHY).previous == registry.find(B)
        assert (registry.find(B).state, registry.find(B).promoted_at) == ("retired", promoted_at)

    def test_only_the_champion(self, registry: Registry) -> None:
        registry.stage(C, mode="shadow", **WHY)
        with pytest.raises(RegistryError, match=r"only the champion can be degraded: c+ is staging"):
            registry.degrade(C, **WHY)
        with pytest.raises(RegistryError, match=r"only the champion can recover: a+ is retired"):
            registry.recover(A, **WHY)


class TestArchive:
    def test_what_is_archived_takes_no_part_until_it_is_taken_out(self, registry: Registry) -> None:
        twice(registry, lambda: registry.archive(C, **WHY))
        for act in (
            lambda: registry.promote(C, force=True, **WHY),
            lambda: registry.stage(C, mode="shadow", **WHY),
        ):
            with pytest.raises(RegistryError, match="is archived and cannot be"):
                act()
        assert registry.register(C, passed=True, **WHY).state == "archived"  # a rerun of the pipeline is no wish
        twice(registry, lambda: registry.unarchive(C, **WHY))
        assert states(registry)["c"] == "validation"

    def test_it_comes_back_as_what_it_was(self, registry: Registry) -> None:
        registry.rollback(**WHY)
        registry.quarantine(D, **WHY)
        for model in (B, D):
            registry.archive(model, **WHY)
            registry.unarchive(model, **WHY)
        assert (states(registry)["b"], states(registry)["d"]) == ("rolled_back", "quarantined")

    def test_nobody_goes_back_to_it(self, registry: Registry) -> None:
        registry.promote(C, **WHY)
        registry.archive(B, **WHY)
        with pytest.raises(RegistryError, match=r"cannot roll back to b+, which is archived"):
            registry.rollback(to=B, **WHY)
        assert registry.rollback(**WHY).record.hash == A

    def test_neither_champion_nor_challenger(self, registry: Registry) -> None:
        registry.stage(C, mode="shadow", **WHY)
        with pytest.raises(RegistryError, match="is a challenger: unstage it"):
            registry.archive(C, **WHY)
        with pytest.raises(RegistryError, match="is the champion"):
            registry.archive(B, **WHY)


class TestQuarantine:
    def test_ends_whatever_a_version_did(self, registry: Registry) -> None:
        registry.stage(C, mode="canary", share=0.5, **WHY)
        twice(registry, lambda: registry.quarantine(C, **WHY))
        assert registry.state().routes == []
        for act in (
            lambda: registry.promote(C, force=True, **WHY),
            lambda: registry.stage(C, mode="shadow", **WHY),
        ):
            with pytest.raises(RegistryError, match="is quarantined and cannot be"):
                act()
        assert not registry.unstage(C, **WHY).changed

    def test_the_archive_is_no_way_out(self, registry: Registry) -> None:
        registry.quarantine(C, **WHY)
        registry.archive(C, **WHY)
        assert not registry.quarantine(C, **WHY).changed
        assert registry.unarchive(C, **WHY).record.state == "quarantined"
        registry.archive(D, **WHY)
        assert registry.quarantine(D, **WHY).record.state == "quarantined"

    def test_not_the_champion(self, registry: Registry) -> None:
        registry.degrade(B, **WHY)
        with pytest.raises(RegistryError, match="is the champion: roll back before"):
            registry.quarantine(B, **WHY)
