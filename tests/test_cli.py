"""The command line: what it prints, as tables and as JSON, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import NOW
from tests.servers import Home, make_home
from tradeloop.atomic import write_json
from tradeloop.cli import main
from tradeloop.serving.answers import Answer

GATE = {
    "verdict": "fail",
    "reasons": [
        {"target": "range", "check": "r2", "value": 0.5, "limit": 0.2, "ok": True, "text": "R² 0.5 is at least 0.2"},
        {
            "target": "direction",
            "check": "ece",
            "value": 0.3,
            "limit": 0.1,
            "ok": False,
            "text": "ECE 0.3 > 0.1",
        },
    ],
    "targets": {"direction": {"edge_proven": False}, "range": {"edge_proven": True}},
}


@dataclass(frozen=True)
class Outcome:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a project that the tests of this module only look at."""
    return make_home(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command on a project, in this process."""

    def command(home: Home | Path, *arguments: str) -> Outcome:
        root = home.root if isinstance(home, Home) else home
        monkeypatch.setenv("TRADELOOP_HOME", str(root))
        monkeypatch.setattr(sys, "argv", ["tradeloop", *arguments])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return command


def test_status_shows_the_champion_and_what_is_missing(run: Run, project: Home) -> None:
    shown = run(project, "status")
    assert shown.status == 0
    assert f"{project.versions[1]} since" in shown.out
    assert "sqlite: empty; `tradeloop publish` fills it" in shown.out
    content = run(project, "status", "--json").json
    assert content["market"] == "us_daily"
    assert content["clock"] == {"mode": "replay", "now": None}
    assert content["champion"]["hash"] == project.hashes[1]
    assert content["champion"]["state"] == "production"
    assert content["online_store"] == {"type": "sqlite", "symbols": 0, "oldest": None, "newest": None}
    assert content["predictions"] == {"total": 0, "resolved": 0, "expired": 0, "void": 0, "pending": 0}
    assert content["verdicts"] == {}
    assert content["gate"] is None


def test_predict_here_fills_the_store_logs_and_replays(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    answered = run(home, "predict", "AAPL", "MSFT", "--local", "--json")
    assert answered.status == 0
    answer = Answer.model_validate(answered.json)
    assert [entry.symbol for entry in answer.predictions] == ["AAPL", "MSFT"]
    entry = answered.json["predictions"][0]

    status = run(home, "status", "--json").json
    assert status["online_store"]["symbols"] == 4
    assert status["online_store"]["newest"] == NOW.isoformat()
    assert status["predictions"]["total"] == status["predictions"]["pending"] == sum(status["verdicts"].values()) == 2
    assert status["clock"] == {"mode": "replay", "now": NOW.isoformat()}
    assert "4 of 4 symbols" in run(home, "status").out

    replayed = run(home, "replay", entry["prediction_id"], "--json")
    assert replayed.status == 0
    assert replayed.json["matches"] is True
    assert replayed.json["p_up"]["recomputed"] == pytest.approx(entry["p_up"], abs=1e-6)
    assert "matches: largest difference" in run(home, "replay", entry["prediction_id"]).out

    past = run(home, "predict", "IBM", "--local", "--json", "--as-of", "2013-02-20T22:00:00+00:00").json
    assert past["predictions"][0]["as_of"] == "2013-02-20T21:00:00+00:00"
    unknown = run(home, "predict", "AAPL", "NOPE", "--local")
    assert unknown.status == 1
    assert "market us_daily has no symbol 'NOPE'" in unknown.out
    naive = run(home, "predict", "AAPL", "--local", "--as-of", "2013-02-20")
    assert (naive.status, naive.out) == (1, "")
    assert naive.err == "tradeloop: --as-of must carry its UTC offset (2013-02-28T21:00:00Z), got '2013-02-20'\n"


def test_a_changed_log_does_not_replay(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    entry = run(home, "predict", "AAPL", "--local", "--json").json["predictions"][0]
    database = home.database()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE predictions SET p_up = p_up + 0.001")
    database.close()
    replayed = run(home, "replay", entry["prediction_id"])
    assert replayed.status == 1
    assert "DIFFERS" in replayed.out


def test_models_and_events(run: Run, project: Home) -> None:
    models = run(project, "models", "--json").json
    assert [(m["version"], m["state"]) for m in models] == list(
        zip(project.versions, ["retired", "production", "validation"], strict=True)
    )
    assert project.versions[2] in run(project, "models").out
    events = run(project, "events", "--json").json
    assert [event["kind"] for event in events] == ["registered", "promoted"] * 2 + ["registered"]
    assert "promoted" in run(project, "events").out


def test_promote_and_rollback(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    promoted = run(home, "promote", home.hashes[2][:8], "--reason", "better", "--json").json
    assert promoted["champion"]["hash"] == home.hashes[2]
    assert promoted["previous"]["hash"] == home.hashes[1]
    assert promoted["changed"] is True
    assert run(home, "promote", home.versions[2]).out == f"{home.versions[2]} is the champion already\n"
    back = run(home, "rollback", "--reason", "worse")
    assert back.out == f"{home.versions[1]} is the champion again, in place of {home.versions[2]}\n"
    again = run(home, "promote", home.versions[2])
    assert (again.status, again.out) == (1, "")
    assert "was rolled back (worse)" in again.err
    assert run(home, "promote", home.versions[2], "--force").status == 0
    assert run(home, "rollback", "--to", home.versions[0]).status == 0
    assert [e["reason"] for e in run(home, "events", "--json").json[5:8]] == ["better", "worse", "by hand"]


def test_a_broken_bundle_is_neither_promoted_nor_gone_back_to(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    for number in (0, 2):
        (home.bundle_folder(number) / "stack.json").write_text("{}")
    for command in (("promote", home.versions[2]), ("rollback",)):
        outcome = run(home, *command)
        assert outcome.status == 1
        assert outcome.err.startswith("tradeloop: stack.json has 2 bytes")
        assert outcome.err.count("\n") == 1
    assert len(run(home, "events", "--json").json) == 5


def test_gate_prints_every_check_and_fails(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    missing = run(home, "gate")
    assert missing.status == 1
    assert missing.err.endswith("gate.json is missing: run `dvc repro gate` first\n")
    write_json(home.layout.reports / "gate.json", GATE)
    shown = run(home, "gate")
    assert shown.status == 1
    assert "gate: fail" in shown.out
    assert "ECE 0.3 > 0.1" in shown.out
    assert "direction: no proven edge: served as information only" in shown.out
    failed = run(home, "gate", "--json")
    assert (failed.status, failed.json) == (1, GATE)
    write_json(home.layout.reports / "gate.json", GATE | {"verdict": "pass"})
    assert run(home, "gate").status == 0
    assert run(home, "status", "--json").json["gate"] == "pass"
    (home.layout.reports / "gate.json").write_text("{")
    assert run(home, "gate").err.count("\n") == 1


def test_features_and_version(run: Run, project: Home) -> None:
    listed = run(project, "features", "--json").json
    assert len(listed) >= 60
    assert set(listed[0]) == {"name", "family", "lookback", "definition", "source", "warm_up", "nan", "scale_free"}
    shown = run(project, "features").out
    assert f"{len(listed)} columns;" in shown and "sma_distance_n" in shown and "n = 10, 50" in shown
    assert run(project, "version").out == f"tradeloop {run(project, 'version', '--json').json['version']}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("replay", "no-such-id"), "tradeloop: no prediction has the id 'no-such-id'"),
        (("promote", "feedbeef"), "tradeloop: no version 'feedbeef' is registered"),
        (("predict", "AAPL", "--url", "http://127.0.0.1:1"), "tradeloop: no service answers at http://127.0.0.1:1"),
        (("predict", "AAPL", "--url", "nonsense"), "tradeloop: no service answers at nonsense"),
    ],
)
def test_an_error_is_one_line_and_status_1(run: Run, project: Home, arguments: tuple[str, ...], message: str) -> None:
    outcome = run(project, *arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("promote",), ("predict",), ("nonsense",), ("serve", "--port", "0")])
def test_wrong_usage_is_status_2(run: Run, project: Home, arguments: tuple[str, ...]) -> None:
    assert run(project, *arguments).status == 2


def test_a_project_without_champion(run: Run, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.layout.live / "tradeloop.db").unlink()
    assert "none: run `make repro`" in run(home, "status").out
    for command in (("serve",), ("predict", "AAPL", "--local"), ("rollback",)):
        outcome = run(home, *command)
        assert outcome.status == 1
        assert "no champion" in outcome.err


def test_a_folder_that_is_no_project(run: Run, tmp_path: Path) -> None:
    outcome = run(tmp_path, "status")
    assert (outcome.status, outcome.err) == (1, f"tradeloop: {tmp_path}/params.yaml is missing\n")


def test_status_does_not_wait_for_feast(project: Home) -> None:
    code = "import sys; from tradeloop.cli import main\n"
    code += "try:\n    main()\nfinally:\n    print(sorted({'feast', 'pandas', 'torch', 'bentoml'} & set(sys.modules)))"
    environment = os.environ | {"TRADELOOP_HOME": str(project.root)}
    command = [sys.executable, "-c", code, "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
