from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from tradeloop.errors import StoreError
from tradeloop.state.adaptations import AdaptationStore, Kind
from tradeloop.state.database import Database
from tradeloop.state.tables import AdaptationRow

NOW = datetime(2020, 1, 2, tzinfo=UTC)
MODEL, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def store(database: Database) -> AdaptationStore:
    return AdaptationStore(database, "us_daily")


def append(
    store: AdaptationStore, seq: int, content: dict[str, Any], kind: Kind = "snapshot", model: str = MODEL
) -> str:
    return store.append(model, kind, content, outcome_seq=seq, market_time=NOW, reason="test")


def test_the_newest_snapshot_of_a_model_applies(store: AdaptationStore) -> None:
    assert store.newest(MODEL) is None
    assert store.version() == 0
    append(store, 1, {"cost_bps": 1.0})
    second = append(store, 2, {"cost_bps": 2.0})
    append(store, 3, {"cost_bps": 3.0}, model=OTHER)
    assert store.newest(MODEL) == (second, {"cost_bps": 2.0})
    assert store.get(second) == {"cost_bps": 2.0}


def test_another_market_has_its_own(store: AdaptationStore, database: Database) -> None:
    append(store, 1, {})
    other = AdaptationStore(database, "btc_15m")
    assert other.newest(MODEL) is None
    assert other.version() == 0
    assert append(other, 1, {}) != append(store, 1, {})


def test_appending_the_same_again_changes_nothing(store: AdaptationStore, database: Database) -> None:
    first = append(store, 5, {"cost_bps": 1.0})
    before = store.version()
    assert append(store, 5, {"cost_bps": 1.0}) == first
    assert store.version() == before
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(AdaptationRow)).scalar() == 1


def test_it_takes_part_in_the_callers_transaction(store: AdaptationStore, database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        store.append(MODEL, "snapshot", {}, outcome_seq=1, market_time=NOW, reason="x", connection=connection)
        raise RuntimeError
    assert store.newest(MODEL) is None


def test_rolling_back_to_the_bundle_and_to_an_earlier_snapshot(store: AdaptationStore) -> None:
    first = append(store, 1, {"cost_bps": 1.0})
    append(store, 2, {"cost_bps": 2.0})
    version = store.version()
    assert store.rollback(MODEL, reason="worse")
    assert store.newest(MODEL) is None
    assert store.version() > version
    assert not store.rollback(MODEL, reason="again")
    assert store.rollback(MODEL, first, reason="the first was good")
    assert store.newest(MODEL) == (first, {"cost_bps": 1.0})
    third = append(store, 3, {"cost_bps": 3.0})
    assert store.newest(MODEL) == (third, {"cost_bps": 3.0})


def test_the_loops_own_rollback_is_a_row_like_any_other(store: AdaptationStore) -> None:
    append(store, 1, {"cost_bps": 1.0})
    append(store, 2, {"to": None}, kind="rollback")
    append(store, 2, {"to": None}, kind="rollback")
    assert store.newest(MODEL) is None


def test_rolling_back_to_what_is_not_there_is_refused(store: AdaptationStore) -> None:
    theirs = append(store, 1, {}, model=OTHER)
    with pytest.raises(StoreError, match="has the id 'nope'"):
        store.rollback(MODEL, "nope", reason="x")
    with pytest.raises(StoreError, match="is of another model than aaaaaaaaaaaa"):
        store.rollback(MODEL, theirs, reason="x")
    with pytest.raises(StoreError, match="has the id 'nope'"):
        store.get("nope")


def test_a_hold_outlasts_what_the_loop_appends(store: AdaptationStore) -> None:
    append(store, 1, {"cost_bps": 1.0})
    assert store.hold(MODEL, reason="by hand")
    assert not store.hold(MODEL, reason="by hand")
    assert store.held(MODEL)
    newer = append(store, 2, {"cost_bps": 2.0})
    assert store.newest(MODEL) is None
    assert not store.held(OTHER)
    assert store.release(MODEL, reason="by hand")
    assert not store.release(MODEL, reason="by hand")
    assert store.newest(MODEL) == (newer, {"cost_bps": 2.0})
