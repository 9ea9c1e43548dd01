"""The stage discovery: off by default; on, it says what it tried and what may be switched on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages import discovery as stage
from tests.selection.test_discovery import CONFIG, SYMBOLS, known, market, planted
from tests.test_tuning import parameters
from tradeloop.config import Discovery, Params
from tradeloop.layout import Layout
from tradeloop.splits import walk_forward


def run(root: Path, config: Discovery, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    base = parameters()
    active = base.active.model_copy(update={"symbols": list(SYMBOLS)})
    params: Params = base.model_copy(update={"discovery": config, "markets": {"m": active}})
    matrix = planted(0.25)
    folds = walk_forward(matrix.timestamp, matrix.label_end, params.split)
    monkeypatch.setattr(stage, "load_matrix", lambda _: matrix)
    monkeypatch.setattr(stage, "read_splits", lambda _: (folds, None))
    monkeypatch.setattr(stage, "read_bars", lambda _, __, symbol: market()[1][symbol])
    monkeypatch.setattr(stage, "specs_for", lambda _: list(known()))
    stage.discovery(Layout(root), params)
    found: dict[str, object] = json.loads((root / "data/reports/discovery.json").read_text())
    return found


def test_off_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, Discovery(), monkeypatch) == {"trials": 0, "columns": [], "targets": {}}


def test_every_trial_of_every_target_is_counted_and_what_stood_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, CONFIG.model_copy(update={"trials": 400, "keep": 1, "alpha": 0.05}), monkeypatch)
    assert found["trials"] == 3 * len(_every())
    targets = found["targets"]
    assert isinstance(targets, dict)
    stood = {name: [one["name"] for one in shortlist if one["confirmed"]] for name, shortlist in targets.items()}
    assert found["columns"] == stood["return"][:1] and len(stood["return"]) >= 1
    assert "discovery: 1 of" in capsys.readouterr().out


def _every() -> list[str]:
    from tests.selection.test_discovery import all_candidates

    return all_candidates()
