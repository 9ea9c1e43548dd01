from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.duels import MARKET, Crash, Loop, Skill, at, hash_of, resolved
from tradeloop.config import Rollout as Config
from tradeloop.errors import BundleError, RegistryError, StoreError
from tradeloop.loop.actions import ACTOR, Action, carry_out
from tradeloop.loop.rollout import Rollout
from tradeloop.loop.trial import Standing
from tradeloop.registry import Registry
from tradeloop.state.database import Database

GOOD, FAIR, CHANCE, BAD = Skill(2.0), Skill(0.4), Skill(0.0), Skill(-2.0)
# Strong differences and a short watch, so that stories are short.
QUICK = Config(
    min_outcomes=20,
    weights={"direction": 1.0},
    watch_outcomes=100,
    watch_for="1d",
    max_outcomes=2_000,
    max_age="60d",
)


def changed(**changes: object) -> Config:
    return Config.model_validate(QUICK.model_dump() | changes)


@pytest.fixture
def loop(database: Database) -> Loop:
    """Return a loop whose champion, `old`, was made by a person."""
    return begun(database)


@pytest.fixture
def fast(tmp_path: Path) -> Loop:
    """Return the same on SQLite only, where every commit need not reach the disk."""
    return begun(Database.open(f"sqlite:///{tmp_path}/state.db", durable=False))


def begun(database: Database, config: Config = QUICK) -> Loop:
    loop = Loop(database, config, {"old": CHANCE, "new": GOOD, "bad": BAD, "twin": CHANCE})
    loop.register("old", "new", "bad", "twin")
    loop.registry.promote("old", actor="anna", reason="the first")
    return loop


def until(loop: Loop, wanted: str, steps: int = 1_500) -> Action:
    """Turn until an action of this kind was returned, and done."""
    for _ in range(steps):
        for action in loop.turn():
            if action.kind == wanted:
                return action
    raise AssertionError(f"no {wanted} in {steps} steps, but {loop.decisions()}")


def champion(loop: Loop) -> str:
    record = loop.registry.champion()
    assert record is not None
    return record.version


def staged(loop: Loop) -> list[tuple[str, str]]:
    return [(route.version, route.mode) for route in loop.registry.state().routes]


def test_a_better_challenger_shadows_is_promoted_and_watched_by_its_predecessor(loop: Loop) -> None:
    loop.admit("new")
    loop.settle()
    assert staged(loop) == [("new", "shadow")]
    promotion = until(loop, "promote")
    assert champion(loop) == "new"
    assert promotion.evidence["pairs"] >= QUICK.min_outcomes
    assert promotion.evidence["e_better"] >= 1 / QUICK.alpha
    loop.turn()
    assert staged(loop) == [("old", "shadow")]
    assert loop.rollout.watch["predecessor"] == "old"
    end = until(loop, "end_watch")
    assert end.evidence["pairs"] >= QUICK.watch_outcomes
    loop.turn()
    assert staged(loop) == []
    assert loop.rollout.watch == {}
    assert loop.decisions() == [("stage", "new"), ("promote", "new"), ("watch", "old"), ("end_watch", "old")]
    assert [kind for kind, _, actor in loop.events() if actor == ACTOR] == ["staged", "promoted", "staged", "unstaged"]
    assert loop.registry.find("old").state == "retired"


def test_the_registry_knows_the_evidence(fast: Loop) -> None:
    fast.admit("new")
    until(fast, "promote")
    event = fast.registry.events()[-1]
    assert event.evidence["targets"]["direction"]["e_better"] >= 1 / QUICK.alpha
    assert event.evidence["action"].startswith("rollout:promote:")


def test_a_champion_that_turns_bad_is_rolled_back_and_stays_so(loop: Loop) -> None:
    loop.admit("new")
    until(loop, "promote")
    loop.skills = {**loop.skills, "new": BAD}
    assert loop.rollout.watch == {}
    rollback = until(loop, "rollback")
    assert champion(loop) == "old"
    assert rollback.evidence["e_better"] >= 1 / QUICK.alpha_watch
    assert loop.registry.find("new").state == "rolled_back"
    loop.admit("new")
    (refused,) = [action for action in loop.turn() if action.kind == "refuse"]
    assert "rolled_back" in refused.reason
    assert staged(loop) == []
    list(loop.run(20))
    assert champion(loop) == "old"


@pytest.mark.parametrize(
    ("changes", "end"), [({"alpha_watch": 1e-12}, "end_watch"), ({"watch_outcomes": 20}, "end_watch")]
)
def test_how_sure_and_how_long_the_watch_is(fast: Loop, changes: dict[str, object], end: str) -> None:
    fast = Loop(fast.database, changed(**changes), fast.skills)
    fast.admit("new")
    until(fast, "promote")
    fast.skills = {**fast.skills, "new": Skill(-1.0)}
    assert [action.kind for action in fast.run(160)] == ["watch", end]
    assert champion(fast) == "new"


def test_labels_of_two_bars_are_tested_in_two_rows(fast: Loop) -> None:
    fast.rollout = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()), horizon=2)
    fast.admit("new")
    fast.settle()
    for step in range(40):
        fast.rollout.observe(resolved(step, fast.skills, horizon=2))
    (trial,) = fast.rollout.state()["running"]["trials"]
    assert len(trial["test"]["rows"]) == 2
    assert trial["test"]["overlapping"] == 0
    assert trial["test"]["pairs"] >= 38


def test_a_worse_challenger_is_rejected(loop: Loop) -> None:
    loop.admit("bad")
    rejection = until(loop, "reject")
    assert champion(loop) == "old"
    assert staged(loop) == []
    assert rejection.evidence["e_worse"] >= 1 / QUICK.alpha
    assert loop.registry.find("bad").state == "validation"


def test_one_that_proves_nothing_is_given_up_after_so_many_outcomes(fast: Loop) -> None:
    fast = Loop(fast.database, changed(max_outcomes=50), fast.skills)
    fast.admit("twin")
    fast.settle()
    assert until(fast, "give_up").evidence["pairs"] == 50
    assert staged(fast) == []


def test_or_after_so_long(fast: Loop) -> None:
    fast = Loop(fast.database, changed(max_age="1d"), {"old": CHANCE})
    fast.admit("twin")
    fast.settle()
    assert "max_age is 1d" in until(fast, "give_up").reason
    assert at(fast.step) - at(0) == timedelta(days=1)


def test_the_least_outcomes_are_waited_for(fast: Loop) -> None:
    fast = Loop(fast.database, changed(min_outcomes=300), fast.skills)
    fast.admit("new")
    assert until(fast, "promote").evidence["pairs"] == 300


def test_a_canary_answers_a_share_before_it_is_promoted(fast: Loop) -> None:
    fast = Loop(fast.database, changed(canary=0.25, canary_outcomes=40), fast.skills)
    fast.admit("new")
    until(fast, "canary")
    assert fast.registry.state().routes[0].share == 0.25
    assert champion(fast) == "old"
    assert until(fast, "promote").evidence["pairs"] == 40
    assert champion(fast) == "new"


def test_a_canary_that_is_worse_is_unstaged_at_once(fast: Loop) -> None:
    fast = Loop(fast.database, changed(canary=0.25, canary_outcomes=2_000), fast.skills)
    fast.admit("new")
    until(fast, "canary")
    fast.skills = {**fast.skills, "old": GOOD, "new": BAD}
    until(fast, "reject")
    assert staged(fast) == []


def test_without_a_champion_the_first_becomes_that(fast: Loop, tmp_path: Path) -> None:
    empty = Loop(Database.open(f"sqlite:///{tmp_path}/empty.db", durable=False), QUICK, {})
    empty.register("old")
    empty.admit("old")
    assert [action.kind for action in empty.settle()] == ["promote"]
    assert champion(empty) == "old"
    assert list(empty.run(3)) == []


def test_of_several_challengers_the_best_is_promoted_and_the_others_begin_anew(fast: Loop) -> None:
    for name in ("new", "bad", "twin"):
        fast.admit(name)
    promotion = until(fast, "promote")
    assert promotion.version == "new"
    assert promotion.evidence["rivals"] >= 2
    assert promotion.evidence["e_better"] >= promotion.evidence["rivals"] / QUICK.alpha
    kinds = [action.kind for action in fast.run(1)]
    assert kinds == ["restart", "watch"]
    (twin,) = [trial for trial in fast.rollout.evidence()["trials"] if trial["version"] == "twin"]
    assert twin["test"]["pairs"] <= 1


def test_rivals_share_the_error_rate(fast: Loop) -> None:
    fast.admit("new")
    alone = until(fast, "promote")
    together = begun(Database.open(f"{fast.database.name}2", durable=False), changed(challengers=10))
    together.register(*(f"twin{number}" for number in range(5)))
    together.skills = {**together.skills, **{f"twin{number}": CHANCE for number in range(5)}}
    for name in ("new", *(f"twin{number}" for number in range(5))):
        together.admit(name)
    promotion = until(together, "promote")
    assert promotion.evidence["rivals"] == 6
    assert promotion.evidence["e_better"] >= 6 / QUICK.alpha
    assert promotion.evidence["pairs"] > alone.evidence["pairs"]


def test_the_least_promising_makes_room(fast: Loop) -> None:
    fast = Loop(fast.database, changed(challengers=2, alpha=1e-9), fast.skills)
    fast.admit("new")
    fast.admit("twin")
    list(fast.run(60))
    fast.admit("bad")
    kinds = {(action.kind, action.version) for action in fast.turn()}
    assert kinds == {("supersede", "twin"), ("stage", "bad")}
    assert staged(fast) == [("new", "shadow"), ("bad", "shadow")]


def test_nothing_is_promoted_while_the_champion_is_on_watch(fast: Loop) -> None:
    fast = Loop(fast.database, changed(watch_for="20d"), {"old": CHANCE, "new": GOOD, "best": GOOD})
    fast.register("best")
    fast.admit("new")
    until(fast, "promote")
    fast.skills = {"old": CHANCE, "new": FAIR, "best": GOOD}
    fast.admit("best")
    kinds = [action.kind for action in fast.run(470)]
    assert kinds == ["watch", "stage"]
    (best,) = fast.rollout.evidence()["trials"]
    assert best["test"]["e_better"] > 1 / QUICK.alpha
    kinds = [action.kind for action in fast.run(50)]
    assert kinds[:2] == ["end_watch", "promote"]


def test_a_change_of_the_market_lets_those_go_that_learned_before_it(fast: Loop) -> None:
    ends = {hash_of("twin"): at(-10), hash_of("new"): at(30)}
    fast.rollout = Rollout(
        fast.registry, QUICK, standing_of=lambda model: Standing((), train_end=ends.get(model, at(-10)))
    )
    fast.admit("twin")
    fast.admit("new")
    list(fast.run(3))
    fast.rollout.market_changed(at(20))
    (rejection,) = [action for action in fast.turn() if action.kind == "reject"]
    assert rejection.version == "twin"
    assert "trained before the change" in rejection.reason
    until(fast, "promote")
    assert champion(fast) == "new"


def test_a_watch_keeps_nobody_from_following_a_market_that_changed(fast: Loop) -> None:
    fast = Loop(fast.database, changed(watch_for="20d"), {"old": CHANCE, "new": GOOD, "best": GOOD})
    fast.register("best")
    fast.admit("new")
    until(fast, "promote")
    fast.skills = {"old": CHANCE, "new": FAIR, "best": GOOD}
    fast.admit("best")
    fast.rollout.market_changed(at(fast.step))
    assert until(fast, "promote", 400).version == "best"
    assert fast.rollout.watch["predecessor"] == "old"
    fast.turn()
    assert fast.rollout.watch["predecessor"] == "new"


@pytest.mark.parametrize("watch", ["loop", "all"])
def test_whose_promotions_are_watched(fast: Loop, watch: str) -> None:
    fast = Loop(fast.database, changed(watch=watch), fast.skills)
    fast.turn()
    fast.registry.promote("bad", actor="anna", reason="I like it")
    fast.turn()
    assert staged(fast) == ([("old", "shadow")] if watch == "all" else [])


# -- persons ----------------------------------------------------------------------------------------------------------


def test_what_a_person_staged_is_compared_and_left_to_the_person(fast: Loop) -> None:
    fast.registry.stage("new", mode="shadow", actor="anna", reason="a look")
    kinds = [action.kind for action in fast.run(400)]
    assert kinds == ["adopt"]
    (trial,) = fast.rollout.evidence()["trials"]
    assert not trial["managed"]
    assert trial["test"]["e_better"] > 1 / QUICK.alpha
    assert champion(fast) == "old"


def test_what_a_person_takes_out_stays_out(fast: Loop) -> None:
    fast.admit("new")
    list(fast.run(5))
    fast.registry.unstage("new", actor="anna", reason="no")
    actions = list(fast.run(300))
    assert [(action.kind, action.version) for action in actions] == [("left", "new")]
    assert "anna" in actions[0].reason
    assert staged(fast) == []


def test_a_persons_rollback_stands_and_comparisons_begin_anew(fast: Loop) -> None:
    fast.admit("new")
    until(fast, "promote")
    fast.turn()
    fast.admit("twin")
    list(fast.run(30))
    fast.registry.rollback(actor="anna", reason="customers complain")
    actions = list(fast.run(100))
    assert actions[0].kind == "restart"
    assert champion(fast) == "old"
    assert "promote" not in {action.kind for action in actions}
    assert fast.rollout.watch == {}


INTERRUPTIONS: dict[str, tuple[Callable[[Loop], object], str, str]] = {
    "another champion": (lambda loop: loop.registry.promote("twin", actor="anna", reason="mine"), "twin", "staging"),
    "promoted and rolled back": (
        lambda loop: (
            loop.registry.promote("new", actor="anna", reason="mine"),
            loop.registry.rollback(actor="anna", reason="oh"),
        ),
        "old",
        "rolled_back",
    ),
    "quarantined": (lambda loop: loop.registry.quarantine("new", actor="anna", reason="leak"), "old", "quarantined"),
    "unstaged": (lambda loop: loop.registry.unstage("new", actor="anna", reason="no"), "old", "validation"),
    "made an arm": (
        lambda loop: loop.registry.stage("new", mode="ab", share=0.5, actor="anna", reason="test"),
        "old",
        "staging",
    ),
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_a_person_between_decision_and_promotion_wins(fast: Loop, name: str) -> None:
    interrupt, serves, state = INTERRUPTIONS[name]
    fast.admit("new")
    while True:
        fast.rollout.observe(fast.outcomes())
        fast.step += 1
        actions = fast.rollout.advance(at(fast.step))
        if any(action.kind == "promote" for action in actions):
            break
        for action in actions:
            fast.rollout.execute(action)
    interrupt(fast)
    (promotion,) = [action for action in actions if action.kind == "promote"]
    done = fast.rollout.execute(promotion)
    assert not done.changed
    assert done.overridden
    assert champion(fast) == serves
    assert fast.registry.find("new").state == state
    after = list(fast.run(5))
    assert "overridden" in {action.kind for action in after}
    assert "promote" not in {action.kind for action in after}
    assert champion(fast) == serves


def test_a_promotion_done_by_a_person_meanwhile_is_no_conflict(fast: Loop) -> None:
    fast.admit("new")
    list(fast.run(1))
    action = Action("promote", hash_of("new"), "new", hash_of("old"), "r", {}, "k", at(1), 1, fast_news(fast))
    fast.registry.promote("new", actor="anna", reason="mine")
    with pytest.raises(RegistryError, match="anna promoted new since: mine"):
        carry_out(fast.registry, action, lambda _: {})
    assert champion(fast) == "new"


def fast_news(loop: Loop) -> int:
    return loop.registry.events()[-1].seq


def test_the_registry_itself_refuses_a_promotion_over_another_champion(fast: Loop) -> None:
    """No check beforehand can be sure: the person may come between it and the event."""
    news = fast_news(fast)
    real = fast.registry.promote

    def late(*names: str, **why: object) -> object:
        real("twin", actor="anna", reason="mine")
        return real(*names, **why)  # type: ignore[arg-type]  # handed through

    fast.registry.promote = late  # type: ignore[method-assign, assignment]  # a person, at the worst moment
    action = Action("promote", hash_of("new"), "new", hash_of("old"), "r", {}, "k", at(1), 1, news)
    with pytest.raises(RegistryError, match="the champion is twin by now"):
        carry_out(fast.registry, action, lambda _: {})
    assert champion(fast) == "twin"


PERSONS: dict[str, Callable[[Registry], object]] = {
    "promotes another": lambda registry: registry.promote("twin", actor="anna", reason="mine"),
    "rolls back": lambda registry: registry.rollback(actor="anna", reason="customers complain"),
    "quarantines": lambda registry: registry.quarantine("new", actor="anna", reason="leak"),
}


@pytest.mark.parametrize("person", PERSONS)
def test_a_person_and_the_loop_at_the_same_moment(database: Database, person: str) -> None:
    """Two threads, two connections, no order between them: whoever comes second sees what the first has done."""
    orders = set()
    for market in range(8):
        registry = Registry(database, f"market{market}")
        for name in ("first", "old", "new", "twin"):
            registry.register(hash_of(name), version=name, actor="trainer", reason="passed", passed=True)
        for name in ("first", "old"):
            registry.promote(name, actor="anna", reason="before")
        registry.stage("new", mode="shadow", actor=ACTOR, reason="trial")
        news = registry.events()[-1].seq
        action = Action("promote", hash_of("new"), "new", hash_of("old"), "proven", {}, "k", at(1), 1, news)
        begin, problems = threading.Barrier(2), []

        def act(deed: Callable[[], object], begin: threading.Barrier = begin, problems: list[str] = problems) -> None:
            begin.wait()
            try:
                deed()
            except RegistryError as error:
                problems.append(str(error))

        deeds = (lambda r=registry: PERSONS[person](r), lambda r=registry, a=action: carry_out(r, a, lambda _: {}))
        threads = [threading.Thread(target=act, args=(deed,)) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = [(event.kind, event.actor) for event in registry.events() if event.seq > news]
        orders.add(tuple(actor for _, actor in after))
        serves = registry.champion()
        assert serves is not None
        if after[0][1] == "anna":  # the loop comes too late, and says so
            assert len(after) == len(problems) == 1
            assert serves.version == {"promotes another": "twin", "rolls back": "first", "quarantines": "old"}[person]
        elif person == "quarantines":  # nobody quarantines a champion
            assert serves.version == "new"
            assert problems == ["new is the champion: roll back before it is quarantined"]
        else:
            assert serves.version == {"promotes another": "twin", "rolls back": "old"}[person]
            assert problems == []
    assert orders


def test_a_bundle_that_may_not_serve_is_not_staged(fast: Loop) -> None:
    def check(model: str) -> dict[str, str]:
        raise BundleError("bundle.json was edited")

    fast.rollout = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()), check=check)
    fast.admit("new")
    fast.settle()
    (done,) = fast.done
    assert done.overridden == "bundle.json was edited"
    assert [action.kind for action in fast.run(10)] == ["overridden"]
    assert staged(fast) == []


def test_what_could_not_be_done_is_tried_once(fast: Loop) -> None:
    broken: list[str] = []

    def check(model: str) -> dict[str, str]:
        if broken:
            raise BundleError(broken[0])
        return {}

    fast.rollout = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()), check=check)
    fast.admit("new")
    fast.settle()
    broken.append("it was edited")
    kinds = [action.kind for action in fast.run(300)]
    assert kinds == ["promote", "overridden"]
    broken.clear()
    fast.registry.promote("twin", actor="anna", reason="mine")
    assert "promote" in {action.kind for action in fast.run(300)}


def test_a_decision_that_a_crash_and_a_person_overtook_is_said_to_be_void(fast: Loop) -> None:
    fast.admit("new")
    fast.settle()
    fast.fail = "before deed"
    with pytest.raises(Crash):
        until(fast, "promote")
    fast.registry.promote("twin", actor="anna", reason="mine")
    again = Loop(fast.database, QUICK, fast.skills)
    kinds = [(action.kind, action.version) for action in again.settle()]
    assert kinds == [("overridden", "new"), ("restart", "twin")]
    assert champion(again) == "twin"


def test_a_database_that_is_away_only_delays(fast: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    fast.admit("new")
    (action,) = fast.rollout.advance(at(0))
    with monkeypatch.context() as patch:
        patch.setattr(fast.registry, "events", lambda: (_ for _ in ()).throw(StoreError("away")))
        with pytest.raises(StoreError):
            fast.rollout.execute(action)
    assert fast.rollout.advance(at(1)) == [action]
    assert fast.rollout.execute(action).changed
    assert fast.rollout.advance(at(2)) == []


# -- crashes ----------------------------------------------------------------------------------------------------------

STORY = 400
DRIFT = 160


def prologue(database: Database, market: str = MARKET) -> Loop:
    """Return the loop before its first step."""
    loop = Loop(database, QUICK, {}, market=market)
    loop.register("old", "new", "bad", "twin")
    loop.registry.promote("old", actor="anna", reason="the first")
    return loop


def tell(loop: Loop) -> None:
    """Go on with the story: `bad` and `new` come, `new` is promoted, then the market turns against it."""
    loop.settle()  # what was decided before a crash, and perhaps not done
    while loop.step < STORY:
        new = GOOD if loop.step < DRIFT else BAD
        loop.skills = {"old": CHANCE, "new": new, "bad": BAD, "twin": CHANCE}
        if loop.step in (0, 20):
            loop.admit("new" if loop.step else "bad")
        loop.turn()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    loop = prologue(Database.open(f"sqlite:///{tmp_path_factory.mktemp('story')}/state.db", durable=False))
    tell(loop)
    return loop


def test_the_story(undisturbed: Loop) -> None:
    assert undisturbed.decisions() == [
        ("stage", "bad"),
        ("stage", "new"),
        ("reject", "bad"),
        ("promote", "new"),
        ("watch", "old"),
        ("rollback", "old"),
    ]
    assert champion(undisturbed) == "old"


@pytest.mark.parametrize("point", ["before commit", "before deed", "after deed"])
def test_a_crash_at_any_point_of_any_action_changes_nothing_in_the_end(
    undisturbed: Loop, tmp_path: Path, point: str
) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/state.db", durable=False)
    prologue(database)
    crashed: set[str] = set()
    while True:
        loop = Loop(database, QUICK, {}, fail=point, crashed=crashed)
        try:
            tell(loop)
        except Crash:
            continue
        break
    assert len(crashed) >= len(undisturbed.decisions())
    assert loop.events() == undisturbed.events()
    assert loop.decisions() == undisturbed.decisions()


def _process(url: str, market: str) -> None:
    tell(Loop(Database.open(url), QUICK, {}, market=market))


def test_killing_the_process_at_random_moments_changes_nothing_in_the_end(undisturbed: Loop, url: str) -> None:
    """SIGKILL, a new process each time, as many stories as TRADELOOP_KILLS need."""
    wanted = int(os.environ.get("TRADELOOP_KILLS", "20"))
    rng, context, killed, stories = random.Random(7), get_context("fork"), 0, 0
    while killed < wanted:
        stories, market = stories + 1, f"story{stories}"
        database = Database.open(url)
        prologue(database, market)
        database.close()  # nothing that is open may be inherited
        while True:
            process = context.Process(target=_process, args=(url, market))
            process.start()
            process.join(rng.uniform(0.02, 0.3) if killed < wanted else 60)
            if not process.is_alive():
                break
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
        assert process.exitcode == 0
        loop = Loop(database, QUICK, {}, market=market)
        assert loop.step == STORY
        assert loop.events() == undisturbed.events()
        assert loop.decisions() == undisturbed.decisions()
        database.close()
    assert killed == wanted


def test_a_person_who_undoes_what_a_crashed_loop_did_is_not_overruled(fast: Loop) -> None:
    fast.admit("new")
    fast.fail = "after deed"
    with pytest.raises(Crash):
        fast.settle()
    fast.registry.unstage("new", actor="anna", reason="no")
    again = Loop(fast.database, QUICK, fast.skills)
    kinds = [action.kind for action in again.run(50)]
    assert kinds == ["stage", "left"]
    assert staged(again) == []


def test_a_loop_that_lost_its_memory_goes_on_from_the_registry(fast: Loop) -> None:
    fast.admit("new")
    until(fast, "promote")
    list(fast.run(2))
    fast.admit("twin")
    fast.settle()
    fresh = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()))
    assert [action.kind for action in fresh.advance(at(fast.step))] == ["adopt"]
    assert fresh.watch["predecessor"] == "old"
    (trial,) = fresh.evidence()["trials"]
    assert (trial["version"], trial["managed"]) == ("twin", True)


def test_without_a_memory_a_watch_that_has_ended_does_not_begin_again(fast: Loop) -> None:
    fast.admit("new")
    until(fast, "end_watch")
    fresh = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()))
    assert fresh.advance(at(fast.step)) == []
    assert fresh.watch == {}


def test_news_of_the_registry_ask_to_be_saved(fast: Loop) -> None:
    """A test that begins, or begins anew, must be in the memory before it has evidence that a crash could lose."""
    list(fast.run(3))
    assert not fast.rollout.unsaved
    fast.registry.stage("new", mode="shadow", actor="anna", reason="a look")
    fast.rollout.advance(at(fast.step))
    assert fast.rollout.unsaved
    fast.rollout.state()
    assert not fast.rollout.unsaved


def test_the_state_is_compact_and_complete(fast: Loop) -> None:
    fast.admit("new")
    fast.admit("bad")
    list(fast.run(40))
    state = fast.rollout.state()
    written = json.dumps(state, allow_nan=False)
    assert len(written) < 8_000
    other = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()))
    other.restore(json.loads(written))
    assert other.state() == state
    batch = fast.outcomes()
    for rollout in (fast.rollout, other):
        rollout.observe(batch)
    assert other.state() == fast.rollout.state()


def test_how_outcomes_are_cut_into_turns_makes_no_difference(fast: Loop) -> None:
    fast.symbols = ("AAA", "BBB")
    fast.admit("new")
    fast.settle()
    fast.rollout.advance(at(0))
    kept = fast.rollout.state()
    outcomes = [each for step in range(50) for each in resolved(step, fast.skills, symbols=fast.symbols)]
    states = []
    for size in (1, 7, len(outcomes), -1):
        rollout = Rollout(fast.registry, QUICK, standing_of=lambda _: Standing(()))
        rollout.restore(kept)
        if size < 0:
            rollout.observe(sorted(outcomes, key=lambda each: (each.prediction.symbol, each.seq)))
        for start in range(0, len(outcomes), size) if size > 0 else ():
            rollout.observe(outcomes[start : start + size])
        states.append(rollout.state())
    assert states[0] == states[1] == states[2] == states[3]
    assert states[0]["running"]["trials"][0]["test"]["pairs"] >= 98
