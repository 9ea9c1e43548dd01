"""The clock, the layout and the schema: small things that everything stands on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tradeloop.clock import LiveClock, ReplayClock, VirtualClock
from tradeloop.errors import SchemaMismatch
from tradeloop.layout import Layout
from tradeloop.schema import Schema

THEN = datetime(2013, 3, 1, 21, tzinfo=UTC)


def test_live_clock_is_the_wall() -> None:
    assert abs(LiveClock().now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_replay_clock_follows_the_last_bar() -> None:
    bars = [THEN]
    clock = ReplayClock(lambda: bars[-1])
    assert clock.now() == THEN
    bars.append(THEN + timedelta(days=3))
    assert clock.now() == THEN + timedelta(days=3)


def test_virtual_clock_never_runs_backwards() -> None:
    clock = VirtualClock(THEN)
    with pytest.raises(ValueError, match="never runs backwards"):
        clock.advance(THEN - timedelta(microseconds=1))
    assert clock.now() == THEN


def test_layout_is_the_nearest_folder_with_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRADELOOP_HOME", raising=False)
    (tmp_path / "params.yaml").touch()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert Layout.current().root == tmp_path.resolve()
    monkeypatch.setenv("TRADELOOP_HOME", str(inner))
    assert Layout.current().root == inner.resolve()


def test_schema_travels_and_refuses_another(tmp_path: Path) -> None:
    schema = Schema("us_daily", ("a", "b"), "f" * 64)
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    schema.require("f" * 64, what="row")
    with pytest.raises(SchemaMismatch, match="row has feature schema 000000000000, expected ffffffffffff"):
        schema.require("0" * 64, what="row")
