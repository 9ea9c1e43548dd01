"""Whatever is done to a registry in whatever order: one champion, sound challengers, and a history that explains it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradeloop.errors import RegistryError
from tradeloop.lifecycle import SERVING, Lifecycle
from tradeloop.registry import Registry
from tradeloop.state.database import Database

MODELS = [letter * 64 for letter in "abcd"]
WHY = {"actor": "tester", "reason": "because"}
COUNTER = itertools.count()

NAMED = ["quarantine", "unstage", "promote", "demote", "degrade", "recover", "archive", "unarchive"]
STEPS: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = [
    st.tuples(st.just("register"), st.fixed_dictionaries({"passed": st.sampled_from([True, True, True, False])})),
    st.tuples(st.just("promote"), st.fixed_dictionaries({"force": st.booleans()})),
    st.tuples(st.just("stage"), st.just({"mode": "shadow"})),
    st.tuples(
        st.just("stage"),
        st.fixed_dictionaries({"mode": st.sampled_from(["canary", "ab"]), "share": st.sampled_from([0.25, 0.5, 0.75])}),
    ),
    st.tuples(st.just("rollback"), st.just({})),
    st.tuples(st.just("rollback to"), st.just({})),
    *(st.tuples(st.just(name), st.just({})) for name in NAMED),
]
ACTIONS = st.lists(st.tuples(st.one_of(STEPS), st.sampled_from(MODELS)), max_size=30)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder: Path = tmp_path_factory.mktemp("lifecycle")
    opened = Database.open(f"sqlite:///{folder / 'state.db'}", durable=False)
    yield opened
    opened.close()


def act(registry: Registry, name: str, model: str, arguments: dict[str, Any]) -> bool | None:
    """Do it, and return whether it says that it changed anything (None where it does not say)."""
    if name == "register":
        registry.register(model, **arguments, **WHY)
        return None
    if name.startswith("rollback"):
        return registry.rollback(to=model if name == "rollback to" else None, **WHY).changed
    changed: bool = getattr(registry, name)(model, **arguments, **WHY).changed
    return changed


def check(state: Lifecycle) -> None:
    serving = [record.hash for record in state.records.values() if record.state in SERVING]
    assert serving == ([state.champion.hash] if state.champion else [])
    assert len(set(state.line)) == len(state.line)
    staged = {record.hash for record in state.records.values() if record.state == "staging"}
    assert [route.model for route in state.routes] == list(dict.fromkeys(route.model for route in state.routes))
    assert {route.model for route in state.routes} == staged
    assert sum(route.share for route in state.routes) <= 1 + 1e-9
    for record in state.records.values():
        assert (record.before is not None) == (record.state in ("staging", "archived"))
        assert record.before not in ("staging", "archived", "production", "degraded")
        assert record.served or record.state not in (*SERVING, "retired", "rolled_back")
    for symbol in ("AAPL", "IBM"):
        answering = state.answering(symbol, None)
        assert answering is None or answering.state in ("production", "degraded", "staging")


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS)
def test_any_sequence_keeps_the_invariants(actions: list[Any], database: Database) -> None:
    registry = Registry(database, f"market-{next(COUNTER)}")
    withdrawn: set[str] = set()
    left: set[str] = set()
    for (name, arguments), model in actions:
        before, events = registry.champion(), registry.events()
        try:
            changed = act(registry, name, model, arguments)
        except RegistryError as error:
            assert registry.events() == events and "\n" not in str(error)
            continue
        now = registry.events()
        assert now[: len(events)] == events and len(now) - len(events) in (0, 1)
        assert changed is None or changed == (len(now) > len(events))
        state = registry.state()
        check(state)
        champion = state.champion
        if champion != before and champion and (before is None or champion.hash != before.hash):
            assert name in ("promote", "demote", "rollback", "rollback to")
            assert champion.hash not in left or arguments.get("force") or name != "promote"
            left.discard(champion.hash)
        if name.startswith("rollback") and changed and before:
            left.add(before.hash)
        withdrawn |= {record.hash for record in state.records.values() if record.state == "quarantined"}
        assert not withdrawn & {route.model for route in state.routes}
        assert champion is None or champion.hash not in withdrawn
        if name != "rollback":
            act(registry, name, model, arguments)
            assert registry.events() == now, f"{name} again is another event"
    history = registry.events()
    assert Lifecycle.of(history) == registry.state()
    for upto in range(len(history)):
        check(Lifecycle.of(history[:upto]))
