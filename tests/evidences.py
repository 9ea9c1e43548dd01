"""Parameters and evidence for tests of diagnosis, triggers and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conftest import ROOT
from tradeloop.config import Params, load_params
from tradeloop.monitoring.evidence import Champion, Evidence

NOW = datetime(2024, 3, 6, 12, tzinfo=UTC)
CHAMPION = Champion("c" * 64, "tradeloop-cccc", NOW - timedelta(days=20), NOW - timedelta(days=21))
HOUR = timedelta(hours=1)


def hourly(changes: Mapping[str, Any] | None = None) -> Params:
    """Return the shipped parameters on the synthetic market (one symbol, an hourly bar round the clock), changed."""
    return changed(load_params(ROOT / "params.yaml"), {"market": "synthetic", **(changes or {})})


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return `params` with other values, by dotted name, validated."""
    content = params.model_dump()
    for name, value in changes.items():
        *blocks, key = name.split(".")
        block = content
        for part in blocks:
            block = block[part]
        assert key in block, f"there is no parameter {name}"
        block[key] = value
    return Params.model_validate(content)


def alarm(bars_ago: float | None = None, *, seq: int = 900, now: datetime = NOW) -> dict[str, Any]:
    """Return what a watch says whose alarm stands; the change was so many hourly bars ago (None: no estimate)."""
    at = None if bars_ago is None else (now - bars_ago * HOUR).isoformat()
    return {"alarm": True, "alarm_seq": seq, "changed_at": at, "text": "direction: inverted"}


def quiet(**changes: Any) -> Evidence:
    """Return evidence on which nothing is to be done, with other values."""
    values: dict[str, Any] = {
        "now": NOW,
        "outcome_seq": 1000,
        "champion": CHAMPION,
        "skill": {"alarm": False},
        "calibration": {"alarm": False},
        "drift": {"share": 0.0},
        "integrity": {"scores": {"SYN": 100.0}},
        "costs": {"realised": 4.0, "low": 3.0, "high": 5.0, "assumed": 5.0},
    }
    return Evidence(**{**values, **changes})
