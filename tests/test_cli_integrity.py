"""`tradeloop check`: what the check stage found in the real series that has most to find."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.check import check
from stages.ingest import ingest
from tests.conftest import ROOT
from tradeloop.cli import main
from tradeloop.config import load_params
from tradeloop.layout import Layout

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose check stage has run on btc_15m; tests only look at it."""
    layout = Layout(tmp_path_factory.mktemp("checked"))
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    layout.params.write_text(yaml.safe_dump(content | {"market": "btc_15m"}))
    params = load_params(layout.params)
    ingest(layout, params)
    check(layout, params)
    return layout.root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command in this process: its status, output and errors."""

    def command(root: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("TRADELOOP_HOME", str(root))
        monkeypatch.setattr(sys, "argv", ["tradeloop", *arguments])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def test_the_worst_days_and_the_findings_are_shown(run: Run, home: Path) -> None:
    status, shown, _ = run(home, "check", "--limit", "3")
    assert status == 0 and "integrity of btc_15m" in shown and "4 of 94" in shown
    lines = [line for line in shown.splitlines() if "held back │" in line]
    assert [("2021-11-28" in line, "2021-11-27" in line) for line in lines[:2]] == [(True, False), (False, True)]
    assert "findings: 3 of 2147" in shown and "data/reports/integrity.html" in shown


def test_as_json_with_one_rule(run: Run, home: Path) -> None:
    found = json.loads(run(home, "check", "--json", "--rule", "gap", "--limit", "9")[1])
    assert (found["market"], found["all_findings"]) == ("btc_15m", 9)
    assert sum(finding["bars"] for finding in found["findings"]) == 244
    assert {"symbol": "BTCUSD", "severity": "warning", "rule": "gap"}.items() <= found["findings"][3].items()
    assert (found["findings"][3]["time"], found["findings"][3]["bars"]) == ("2021-11-27T06:15:00Z", 223)
    assert found["symbols"]["BTCUSD"]["days"] == {
        "all": 94,
        "quarantined": 4,
        "worst": [
            {"day": "2021-11-28", "score": 0.0},
            {"day": "2021-11-27", "score": 46.68},
            {"day": "2021-11-29", "score": 47.66},
        ],
    }
    assert found["days"][0] == {
        "symbol": "BTCUSD", "day": "2021-11-28", "score": 0.0, "bars": 0, "missing": 96, "admitted": False
    }  # fmt: skip


def test_an_unknown_symbol_or_rule_is_one_line(run: Run, home: Path) -> None:
    for option, known in (("--symbol", r"['BTCUSD']"), ("--rule", "['not_finite', ")):
        status, _, error = run(home, "check", option, "nope")
        assert status == 1 and error.startswith(f"tradeloop: {option} must be one of {known}")
        assert error.endswith("got 'nope'\n") and error.count("\n") == 1


def test_before_the_stage_has_run_it_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    status, _, error = run(tmp_path, "check")
    assert status == 1 and error.endswith("integrity.json is missing: run `dvc repro check` first\n")
