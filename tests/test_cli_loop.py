"""The command line's view of the loop: the same shape as /api/ml, and tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pytest import approx
from sqlalchemy import delete, insert

from tests.bundles import NOW
from tests.outcomes import end
from tests.servers import Home, make_home
from tradeloop.cli import main
from tradeloop.registry import Registry
from tradeloop.serving import loop_answers as answers
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database
from tradeloop.state.faults import Faults
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.state.jobs import JobQueue
from tradeloop.state.tables import OutcomeTotalRow, RetrainingLogRow

Run = Callable[..., str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Return a project whose loop has been at work."""
    home = make_home(tmp_path_factory.mktemp("cli") / "home")
    database = home.database()
    registry = Registry(database, home.params.market)
    registry.stage(home.hashes[2], mode="canary", share=0.25, actor="test", reason="tried")
    registry.degrade(home.hashes[1], actor="test", reason="worse than it was")
    write(database, home.params.market)
    database.close()
    yield home


def write(database: Database, market: str) -> None:
    """Write what a loop leaves: a heartbeat, an error, a job that failed and one that runs, decisions."""
    Heartbeats(database, market).beat("loop", "ok", "turn 7", NOW)
    Faults(database, market).record("loop", "source", "the source does not answer")
    queue = JobQueue(database, market)
    asked: dict[str, Any] = {"market_time": NOW, "max_attempts": 1}
    for name in ("failed", "running"):
        queue.enqueue("time_based", 10, f"the {name} one", {}, dedupe=name, **asked)
        job = queue.claim("test", NOW)
        assert job is not None
        if name == "failed":
            queue.fail(job, "out of memory", None)
    alarm = {"alarm": True, "alarm_seq": 41, "changed_at": NOW.isoformat(), "text": "e-value 2.1e4"}
    for number, kind in enumerate(("turn", "diagnosis", "accuracy_drop")):
        row = {
            "market": market,
            "market_time": NOW + timedelta(days=number),
            "wall_time": NOW + timedelta(days=number),
            "outcome_seq": 41,
            "dedupe": f"test:{number}",
            "kind": kind,
            "decision": {"turn": "nothing", "diagnosis": "retrain", "accuracy_drop": "train"}[kind],
            "reason": f"because of {kind}",
            "evidence": {"skill": alarm} if kind != "turn" else {},
            "job_id": None,
        }
        with database.write() as connection:
            connection.execute(insert(RetrainingLogRow).values(row))


@pytest.fixture
def run(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def command(*arguments: str, status: int = 0) -> str:
        monkeypatch.setenv("TRADELOOP_HOME", str(home.root))
        monkeypatch.setattr(sys, "argv", ["tradeloop", *arguments])
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
        printed = capsys.readouterr()
        assert ended == status, printed
        return printed.out or printed.err

    return command


def test_status_shows_what_the_loop_is_at(run: Run, home: Home) -> None:
    found = json.loads(run("status", "--json"))
    extra = {"verdicts", "database", "revision", "gate", "schema", "online_store"}
    status = answers.StatusAnswer.model_validate({k: v for k, v in found.items() if k not in extra})
    assert status.champion is not None and status.champion.state == "degraded"
    assert [(one.version, one.mode, one.share) for one in status.challengers] == [(home.versions[2], "canary", 0.25)]
    assert [(alarm.watch, alarm.outcome_seq) for alarm in status.alarms] == [("skill", 41), ("retraining", None)]
    assert status.diagnosis is not None and status.diagnosis.remedy == "retrain"
    assert (status.jobs.failed, status.jobs.running) == (1, 1)
    assert [decision.kind for decision in status.decisions] == ["accuracy_drop", "diagnosis", "turn"]
    shown = run("status")
    for text in (
        f"{home.versions[1]} (degraded) since",
        f"{home.versions[2]}, canary, 25% of the questions",
        "skill: e-value 2.1e4",
        "retrain: because of diagnosis",
        "1 running, 1 failed",
        "failed: out of memory",
        "loop ok, seen",
        "accuracy_drop, train: because of accuracy_drop",
        "loop: the source does not answer",
    ):
        assert text in shown


def test_jobs_experiments_and_decisions(run: Run) -> None:
    jobs = answers.RetrainingAnswer.model_validate_json(run("jobs", "--json"))
    assert [job.reason for job in (*jobs.running, *jobs.ended)] == ["the running one", "the failed one"]
    assert "out of memory" in run("jobs")
    experiments = answers.ExperimentsAnswer.model_validate_json(run("experiments", "--json"))
    assert {one.state for one in experiments.experiments} == {"running", "failed"}
    assert "out of memory" in run("experiments")
    only = json.loads(run("experiments", "--json", "--job", jobs.ended[0].id))["experiments"]
    assert [one["job_id"] for one in only] == [jobs.ended[0].id]

    first = json.loads(run("decisions", "--json", "--limit", "2"))
    assert [row["kind"] for row in first["decisions"]] == ["accuracy_drop", "diagnosis"]
    rest = json.loads(run("decisions", "--json", "--limit", "2", "--before", str(first["next"])))
    assert ([row["kind"] for row in rest["decisions"]], rest["next"]) == (["turn"], None)
    assert [r["kind"] for r in json.loads(run("decisions", "--json", "--kind", "turn"))["decisions"]] == ["turn"]
    assert "because of diagnosis" in run("decisions")


def test_a_wish_to_retrain_needs_a_market_that_has_begun(run: Run) -> None:
    assert "the online store holds no bar" in run("retrain", status=1)


def test_a_wish_to_retrain_is_one_job_however_often_it_is_sent(run: Run) -> None:
    run("predict", "AAPL", "--local")  # fills the online store
    asked = answers.RetrainAnswer.model_validate_json(run("retrain", "--reason", "new fees", "--key", "k1", "--json"))
    assert asked.created and asked.job.state == "queued" and asked.job.market_time == NOW
    assert asked.job.reason.endswith(" asked: new fees")
    assert run("retrain", "--key", "k1") == f"this wish is job {asked.job.id} already, queued\n"
    assert run("retrain").endswith(" is queued\n")
    jobs = answers.RetrainingAnswer.model_validate_json(run("jobs", "--json"))
    assert len(jobs.queued) == 2 and jobs.queued[0].priority == 100


def test_a_failed_job_is_acknowledged_and_a_waiting_one_cancelled(run: Run) -> None:
    jobs = answers.RetrainingAnswer.model_validate_json(run("jobs", "--json"))
    failed, waiting = jobs.ended[0].id, jobs.queued[-1].id
    assert "only a failed one can be acknowledged" in run("acknowledge", waiting, status=1)
    assert "only one that waits or runs can be cancelled" in run("cancel", failed, status=1)
    assert "has no job 'ffff0000'" in run("cancel", "ffff0000", status=1)
    assert "got 'job%'" in run("cancel", "job%", status=1)
    assert run("acknowledge", failed[:13]) == f"job {failed} is acknowledged\n"
    assert run("acknowledge", failed) == f"job {failed} was acknowledged already\n"
    assert "retraining" not in [alarm["watch"] for alarm in json.loads(run("status", "--json"))["alarms"]]
    cancelled = answers.JobAnswer.model_validate_json(run("cancel", waiting, "--reason", "not now", "--json"))
    assert cancelled.changed and cancelled.job.state == "cancelled"
    assert str(cancelled.job.error).endswith(": not now")


def test_performance_says_what_to_expect_of_open_predictions(run: Run, home: Home) -> None:
    run("predict", "AAPL", "IBM", "--local")
    found = json.loads(run("performance", "--json"))
    expected = answers.PerformanceAnswer.model_validate(found).expected
    assert expected is not None and expected.model == home.hashes[1] and expected.predictions == 2
    shown = run("performance")
    assert "to expect of predictions without outcome, 2: accuracy 0." in shown and expected.assumption in shown


def test_an_adaptation_is_listed_taken_back_and_held(run: Run, home: Home) -> None:
    model, database = home.hashes[1], home.database()
    store = AdaptationStore(database, home.params.market)
    first, second = (
        store.append(model, "snapshot", {"format": 1}, outcome_seq=seq, market_time=NOW, reason=f"learned {seq}")
        for seq in (1, 2)
    )
    database.close()
    listed = answers.AdaptationsAnswer.model_validate_json(run("adaptations", "--json"))
    assert (listed.model, listed.applied, listed.held) == (model, second, False)
    assert [entry.id for entry in listed.entries] == [second, first]
    assert f"{model[:12]}: adaptation {first} applies\n" == run("adapt", "--to", first)
    assert json.loads(run("adapt", "--packaged", "--json")) == {"model": model, "changed": True, "applied": None}
    assert run("adapt", "--packaged").endswith("it serves as packaged; nothing changed\n")
    run("adapt", "--to", second)
    assert run("adapt", "--hold", "--reason", "odd").endswith("it serves as packaged\n")
    shown = run("adaptations", "--model", model[:12])
    assert "held by hand: as packaged" in shown and ": odd" in shown and "learned 1" in shown
    assert f"adaptation {second} applies" in run("adapt", "--release")
    assert "no adaptation of market" in run("adapt", "--to", "nothing", status=1)
    assert "give one of --to ID" in run("adapt", status=2)
    assert "give one of --to ID" in run("adapt", "--hold", "--release", status=2)


def test_outcomes_are_listed_and_the_accounts_checked(run: Run, home: Home) -> None:
    (said,) = json.loads(run("predict", "AAPL", "--local", "--json"))["predictions"]
    database = home.database()
    end(database, home.params.market, said["prediction_id"], "AAPL", NOW)
    (one,) = answers.OutcomesAnswer.model_validate_json(run("outcomes", "--json")).outcomes
    assert (one.prediction_id, one.p_up, one.ret, one.range) == (
        said["prediction_id"],
        said["p_up"],
        0.01,
        approx(0.02),
    )
    assert one.forecast_range == approx(said["expected_range"]["value"])
    shown = run("outcomes", "--symbol", "AAPL")
    assert "+0.0100" in shown and "0.0200" in shown and "yes" in shown
    assert json.loads(run("outcomes", "--json", "--after", str(one.seq)))["outcomes"] == []
    assert "1 resolved, 0 expired, 0 void" in run("outcomes", "--check")

    with database.write() as connection:
        connection.execute(delete(OutcomeTotalRow))
    database.close()
    assert "outcome_totals says 0 resolved, there are 1" in run("outcomes", "--check", status=1)
    problems = json.loads(run("outcomes", "--check", "--json", status=1))["problems"]
    assert problems == ["outcome_totals says 0 resolved, there are 1"]
