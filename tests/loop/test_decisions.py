from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from tests.evidences import HOUR, NOW, alarm, changed, hourly, quiet
from tradeloop.config import Params
from tradeloop.errors import StoreError
from tradeloop.loop.decisions import Decider, Decision, write
from tradeloop.loop.rules import MAX_DOUBLINGS
from tradeloop.loop.triggers import check_all, open_triggers
from tradeloop.monitoring.diagnosis import diagnose
from tradeloop.monitoring.evidence import Evidence, LastTraining, Request
from tradeloop.state.database import Database
from tradeloop.state.job import Job
from tradeloop.state.jobs import JobQueue
from tradeloop.state.tables import JobRow, RetrainingLogRow

PARAMS = hourly()
DAY = timedelta(days=1)
DUE = {"last_training": LastTraining(NOW - 8 * DAY, "succeeded")}
DRIFTED = {"drift": {"share": 0.5, "since": "2024-03-01"}}
CALM = {"last_training": LastTraining(NOW - DAY, "succeeded")}


def job(trigger: str = "time_based", ago: timedelta = 9 * DAY, state: str = "succeeded", **values: Any) -> Job:
    priorities = {"time_based": 10, "data_drift": 40, "accuracy_drop": 80, "manual": 100}
    at = NOW - ago
    made: dict[str, Any] = {
        "id": f"{trigger}-{ago}",
        "market": "synthetic",
        "dedupe": f"{trigger}:{ago}",
        "trigger": trigger,
        "priority": priorities[trigger],
        "reason": "",
        "evidence": {},
        "state": state,
        "attempts": 1,
        "max_attempts": 3,
        "not_before": None,
        "market_time": at,
        "created_at": at,
    }
    return Job(**{**made, **values})


def decide(
    decider: Decider, evidence: Evidence, *jobs: Job, params: Params = PARAMS, asked: Callable[[], None] = lambda: None
) -> list[Decision]:
    def history() -> Sequence[Job]:
        asked()
        return jobs

    firings = check_all(open_triggers(params), evidence)
    return decider.decide(evidence, diagnose(evidence, params), firings, history=history)


def verdicts(decisions: list[Decision]) -> dict[str, str]:
    return {one.kind: one.evidence.get("rule", one.decision) for one in decisions if one.kind != "diagnosis"}


def rule(evidence: Evidence, *jobs: Job, params: Params = PARAMS) -> dict[str, str]:
    return verdicts(decide(Decider(params), evidence, *jobs, params=params))


class TestRules:
    def test_a_firing_with_nothing_against_it_is_granted(self) -> None:
        found = decide(Decider(PARAMS), quiet(**DUE))
        (granted,) = [one for one in found if one.decision == "train"]
        assert granted.firing is not None and granted.dedupe == granted.firing.dedupe
        assert granted.evidence["overrides"] == {} and granted.evidence["diagnosis"]["cause"] == "none"

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"integrity": {"scores": {"SYN": 10.0}}}, "bad_data comes first: SYN scores 10"),
            ({"staleness": {"too_old": ["SYN"]}}, "stale_features comes first"),
            ({"predecessor": "p" * 64, "watch": {"worse": True}}, "bad_promotion comes first"),
        ],
    )
    def test_input_and_rollback_come_first(self, wrong: dict[str, Any], words: str) -> None:
        found = decide(Decider(PARAMS), quiet(**DUE, **wrong))
        (held,) = [one for one in found if one.kind == "time_based"]
        assert (held.decision, held.evidence["rule"], held.firing) == ("hold", "diagnosis", None)
        assert held.reason.startswith(words)

    def test_a_routine_retraining_does_not_learn_the_old_market_again(self) -> None:
        assert rule(quiet(**DUE, **DRIFTED, skill=alarm(100))) == {
            "data_drift": "too_few_rows",
            "time_based": "too_few_rows",
        }

    def test_one_flight_unless_more_urgent(self) -> None:
        assert rule(quiet(**DUE), job(state="running")) == {"time_based": "in_flight"}
        assert rule(quiet(**DUE), job("accuracy_drop", state="queued")) == {"time_based": "in_flight"}
        assert rule(quiet(**CALM, skill=alarm(500)), job(state="running")) == {"accuracy_drop": "train"}
        assert rule(quiet(**CALM, skill=alarm(500)), job("accuracy_drop", state="running")) == {
            "accuracy_drop": "in_flight"
        }

    def test_what_learns_from_rows_that_mislead_is_superseded(self) -> None:
        def superseded(overrides: dict[str, Any]) -> str | None:
            running = job(state="running", evidence={"overrides": overrides})
            found = decide(Decider(PARAMS), quiet(**CALM, skill=alarm(500)), running)
            return next(one.supersedes for one in found if one.decision == "train")

        assert superseded({}) == "time_based-9 days, 0:00:00"
        assert superseded({"dataset.start": (NOW - 500 * HOUR).isoformat()}) is None

    @pytest.mark.parametrize("failures", [1, 2, 3, 9])
    def test_patience_doubles_with_every_failure_in_a_row(self, failures: int) -> None:
        span = timedelta(hours=6) * 2 ** min(failures - 1, MAX_DOUBLINGS)
        for ago, expected in ((span - HOUR, "patience"), (span, "train")):
            evidence = quiet(last_training=LastTraining(NOW - 90 * DAY, "failed"))
            failed = [job("manual", ago + n * 100 * DAY, "failed") for n in range(failures)]
            before = [job("manual", 3000 * DAY, "succeeded"), job("manual", 4000 * DAY, "failed")]
            assert rule(evidence, *failed, *before) == {"time_based": expected}

    def test_patience_is_a_parameter(self) -> None:
        for text, expected in (("2h", "patience"), ("1h", "train")):
            params = changed(PARAMS, {"triggers.patience": text})
            assert rule(quiet(**DUE), job("manual", HOUR, "failed"), params=params) == {"time_based": expected}

    def test_a_failure_that_a_person_knows_of_is_no_reason_to_wait(self) -> None:
        known = job("manual", HOUR, "failed", acknowledged_at=NOW)
        assert rule(quiet(**DUE), known) == {"time_based": "train"}

    def test_cooldown_of_the_trigger_itself(self) -> None:
        params = changed(PARAMS, {"triggers.data_drift.cooldown": "5d"})
        for ago, expected in ((5 * DAY - HOUR, "cooldown"), (5 * DAY, "train")):
            assert rule(quiet(**CALM, **DRIFTED), job("data_drift", ago), params=params) == {"data_drift": expected}
        assert rule(quiet(**CALM, **DRIFTED), job("data_drift", DAY, "cancelled")) == {"data_drift": "train"}

    def test_cooldown_between_any_two_unless_more_urgent(self) -> None:
        recent = job("data_drift", 23 * HOUR)
        assert rule(quiet(**DUE), recent) == {"time_based": "cooldown"}
        assert rule(quiet(**DUE), job("data_drift", DAY)) == {"time_based": "train"}
        assert rule(quiet(**DUE), recent, params=changed(PARAMS, {"triggers.cooldown": "1h"})) == {
            "time_based": "train"
        }
        assert rule(quiet(**CALM, skill=alarm(500)), recent) == {"accuracy_drop": "train"}

    def test_a_clock_that_was_set_back_does_not_stop_the_loop(self) -> None:
        assert rule(quiet(**DUE), job("data_drift", -300 * DAY)) == {"time_based": "train"}

    @pytest.mark.parametrize(("budget", "expected"), [(2, "budget"), (3, "train")])
    def test_daily_budget_counts_any_24_hours(self, budget: int, expected: str) -> None:
        params = changed(PARAMS, {"triggers.daily_budget": budget})
        jobs = [job("time_based", ago) for ago in (HOUR, 23 * HOUR, DAY)]
        free = [job("manual", HOUR), job("data_drift", 2 * HOUR, "cancelled")]
        assert rule(quiet(**CALM, skill=alarm(500)), *jobs, *free, params=params) == {"accuracy_drop": expected}

    def test_one_retraining_a_turn_serves_all(self) -> None:
        decider = Decider(PARAMS)
        evidence = quiet(**DUE, **DRIFTED, skill=alarm(500))
        assert verdicts(decide(decider, evidence)) == {
            "accuracy_drop": "train",
            "data_drift": "merged",
            "time_based": "merged",
        }
        assert decide(decider, evidence) == []  # and what merged is done with

    def test_a_person_passes_all_but_another_person(self) -> None:
        asked = {"requests": (Request("r1", "ann", "why not"),), "integrity": {"scores": {"SYN": 10.0}}}
        jobs = [
            job("accuracy_drop", HOUR, "failed"),
            job("accuracy_drop", 2 * HOUR, "running"),
            job("data_drift", HOUR),
        ]
        assert rule(quiet(**CALM, **asked), *jobs) == {"manual": "train"}
        assert rule(quiet(**CALM, **asked), job("manual", HOUR, "running")) == {"manual": "in_flight"}


class TestLog:
    def test_the_first_turn_a_change_of_diagnosis_and_a_new_day_are_news(self) -> None:
        decider = Decider(PARAMS)
        turns = [quiet(now=NOW + n * HOUR, last_training=LastTraining(NOW, "succeeded")) for n in range(40)]
        turns[20] = replace(turns[20], skill=alarm(3))
        found = {n: [(one.kind, one.decision) for one in decide(decider, turn)] for n, turn in enumerate(turns)}
        assert {n: rows for n, rows in found.items() if rows} == {
            0: [("diagnosis", "none")],
            12: [("turn", "nothing")],
            20: [("diagnosis", "retrain")],
            21: [("diagnosis", "none")],
            36: [("turn", "nothing")],
        }

    @pytest.mark.parametrize("broken_at", [None, 5])
    def test_quiet_turns_are_counted_in_the_next_row(self, broken_at: int | None) -> None:
        decider = Decider(PARAMS)
        for n in range(30):
            if n == broken_at:
                memory, decider = decider.state(), Decider(PARAMS)
                decider.restore(memory)
            for one in decide(decider, quiet(now=NOW + n * HOUR, last_training=LastTraining(NOW, "succeeded"))):
                if one.kind == "turn":
                    assert one.evidence["turns"] == 11
                    assert one.reason.startswith("11 turns brought no news; the diagnosis stands: none")
                    return
        pytest.fail("a day without a row")

    def test_a_firing_that_waits_is_told_once_for_each_rule(self) -> None:
        decider, rows = Decider(PARAMS), []
        histories = [[job("data_drift", 2 * HOUR)]] * 3 + [[job(state="running")]] * 2 + [[job("data_drift", 2 * HOUR)]]
        for jobs in [*histories, [], []]:
            rows += [one.evidence["rule"] for one in decide(decider, quiet(**DUE), *jobs) if one.kind == "time_based"]
        assert rows == ["cooldown", "in_flight", "cooldown", "train"]

    def test_history_is_asked_only_when_something_is_undecided(self) -> None:
        decider, asked = Decider(PARAMS), []
        for turn in (quiet(**CALM), quiet(**DUE), quiet(**DUE)):
            decide(decider, turn, asked=lambda: asked.append(1))
        assert len(asked) == 1

    def test_a_loop_that_lost_its_memory_does_not_ask_twice(self) -> None:
        first = next(one for one in decide(Decider(PARAMS), quiet(**DUE)) if one.decision == "train")
        again = decide(Decider(PARAMS), quiet(**DUE), job(ago=HOUR, dedupe=first.dedupe))
        assert verdicts(again) == {}

    def test_rows_are_json(self) -> None:
        for one in decide(Decider(PARAMS), quiet(**DUE, **DRIFTED, skill=alarm(500))):
            json.dumps(dict(one.evidence), allow_nan=False)
            assert len(one.dedupe) <= 128 and one.reason


class TestLearnFrom:
    def test_after_a_change_every_retraining_keeps_to_the_rows_since(self) -> None:
        decider = Decider(PARAMS)
        decide(decider, quiet(**CALM, skill=alarm(500)))
        assert decider.learn_from == NOW - 500 * HOUR
        later = NOW + 500 * HOUR
        found = decide(decider, quiet(now=later, last_training=LastTraining(NOW, "succeeded")))
        (granted,) = [one for one in found if one.decision == "train"]
        # As many rows as there are by then: no need for a larger holdout any more.
        assert granted.kind == "time_based"
        assert granted.evidence["overrides"]["dataset.start"] == (NOW - 500 * HOUR).isoformat()
        assert granted.evidence["overrides"].get("split.holdout", 0) < 0.22

    def test_a_later_start_of_the_trigger_itself_stays(self) -> None:
        params = changed(PARAMS, {"triggers.data_drift.recent_rows": 50})
        decider = Decider(params)
        decide(decider, quiet(**CALM, skill=alarm(500)), params=params)
        found = decide(decider, quiet(now=NOW + DAY, **CALM, **DRIFTED), params=params)
        granted = next(one for one in found if one.kind == "data_drift")
        assert granted.evidence["overrides"] == {"dataset.start": (NOW + DAY - 49 * HOUR).isoformat()}

    @pytest.mark.parametrize(("start", "left"), [(None, None), ("2024-01-01T00:00:00+00:00", datetime(2024, 1, 1))])
    def test_a_person_has_the_last_word(self, start: str | None, left: datetime | None) -> None:
        decider = Decider(PARAMS)
        decide(decider, quiet(**CALM, skill=alarm(500)))
        wish = Request("r1", "ann", "the old rows are fine", {"dataset.start": start})
        found = decide(decider, quiet(**CALM, skill=alarm(500), requests=(wish,)))
        assert next(one for one in found if one.kind == "manual").evidence["overrides"] == {"dataset.start": start}
        assert (decider.learn_from and decider.learn_from.replace(tzinfo=None)) == left


_TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "hours": st.integers(0, 80),
            "skill": st.sampled_from([{"alarm": False}, alarm(100), alarm(500), alarm(500, seq=2000)]),
            "drift": st.sampled_from([{}, DRIFTED["drift"]]),
            "integrity": st.sampled_from([{}, {"scores": {"SYN": 1.0}}]),
            "jobs": st.lists(
                st.tuples(
                    st.sampled_from(["time_based", "accuracy_drop", "manual"]),
                    st.integers(0, 100),
                    st.sampled_from(["queued", "running", "failed", "succeeded"]),
                ),
                max_size=3,
            ),
        }
    ),
    min_size=1,
    max_size=12,
)


@given(_TURNS, st.integers(0, 11))
@settings(deadline=None, max_examples=60)
def test_going_on_from_a_memory_decides_the_same(turns: list[dict[str, Any]], broken_at: int) -> None:
    def run(broken: bool) -> list[list[Decision]]:
        decider, now, found = Decider(PARAMS), NOW, []
        for number, turn in enumerate(turns):
            now += turn["hours"] * HOUR
            jobs = [job(name, ago * HOUR, state) for name, ago, state in turn["jobs"]]
            evidence = quiet(now=now, **{key: turn[key] for key in ("skill", "drift", "integrity")})
            found.append(decide(decider, evidence, *jobs))
            if broken and number == broken_at:
                memory = json.loads(json.dumps(decider.state(), allow_nan=False))
                decider = Decider(PARAMS)
                decider.restore(memory)
        return found

    whole = run(broken=False)
    assert whole == run(broken=True)
    assert all(sum(one.decision == "train" for one in decisions) <= 1 for decisions in whole)
    keys = [one.dedupe for decisions in whole for one in decisions if one.decision == "train"]
    assert len(keys) == len(set(keys))


class TestWrite:
    def test_decisions_and_jobs_are_written_once(self, database: Database) -> None:
        queue = JobQueue(database, PARAMS.market)
        decisions = decide(Decider(PARAMS), quiet(**DUE, **DRIFTED))
        for made in (1, 0, 0):
            with database.write() as connection:
                assert len(write(connection, decisions, queue=queue, params=PARAMS)) == made
        with database.read() as connection:
            rows = (
                connection.execute(select(RetrainingLogRow.__table__).order_by(RetrainingLogRow.seq)).mappings().all()
            )
            jobs = connection.execute(select(JobRow.__table__)).mappings().all()
        assert [(row["kind"], row["decision"]) for row in rows] == [
            ("diagnosis", "reweight"),
            ("data_drift", "train"),
            ("time_based", "merged"),
        ]
        (written,) = jobs
        assert rows[1]["job_id"] == written["id"] and rows[0]["job_id"] is None
        assert rows[1]["evidence"] == written["evidence"] and rows[1]["evidence"]["overrides"]
        assert (rows[1]["market_time"], rows[1]["outcome_seq"]) == (NOW, 1000)
        assert written["max_attempts"] == PARAMS.retrain.attempts
        assert queue.jobs()[0].overrides == rows[1]["evidence"]["overrides"]

    def test_a_crash_before_the_commit_leaves_nothing_and_costs_nothing(self, database: Database) -> None:
        queue, memory = JobQueue(database, PARAMS.market), Decider(PARAMS).state()

        def turn(*, crash: bool) -> int:
            decider = Decider(PARAMS)
            decider.restore(memory)
            decisions = decide(decider, quiet(**DUE))
            with database.write() as connection:
                made = write(connection, decisions, queue=queue, params=PARAMS)
                if crash:
                    raise KeyboardInterrupt
            return len(made)

        with pytest.raises(KeyboardInterrupt):
            turn(crash=True)
        assert queue.jobs() == []
        assert (turn(crash=False), turn(crash=False)) == (1, 0)
        assert len(queue.jobs()) == 1

    def test_two_markets_do_not_share_keys(self, database: Database) -> None:
        decisions = decide(Decider(PARAMS), quiet(**DUE))
        for market in ("synthetic", "us_daily"):
            params = changed(PARAMS, {"market": market})
            with database.write() as connection:
                assert len(write(connection, decisions, queue=JobQueue(database, market), params=params)) == 1

    def test_a_database_that_is_gone_is_one_line(self, database: Database) -> None:
        queue = JobQueue(database, PARAMS.market)
        decisions = decide(Decider(PARAMS), quiet(**DUE))
        with pytest.raises(StoreError), database.write() as connection:
            RetrainingLogRow.__table__.drop(connection)  # type: ignore[attr-defined]  # a Table
            write(connection, decisions, queue=queue, params=PARAMS)
