"""From messages to journal and online store, the same on SQLite and on Redis."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.check import check
from stages.features import features
from stages.ingest import ingest
from tests.stream.market import HELD_BACK, SERIES, SYMBOLS, Market, held_back, make_market, messages, statuses
from tradeloop import partitions
from tradeloop.config.inputs import InputFiles
from tradeloop.errors import StoreError
from tradeloop.features import compute_tail
from tradeloop.state.online import OnlineStore
from tradeloop.stream.consumer import Consumer, Message


def take_all(consumer: Consumer, said: list[Message], size: int) -> list[str]:
    return [one.status for first in range(0, len(said), size) for one in consumer.take(said[first : first + size])]


@pytest.mark.parametrize("size", [1, 100])
def test_what_was_streamed_is_online_and_for_the_pipeline(market: Market, store: OnlineStore, size: int) -> None:
    content = held_back()[-20:] if size == 1 else held_back()
    skipped = held_back()[: len(held_back()) - len(content)]
    consumer = market.consumer(store)
    consumer.take(messages(skipped, "before"))
    counts = Counter(take_all(consumer, messages(content), size))
    assert counts == Counter("context" if "series" in one else "new" for one in content)
    market.assert_online(store)
    market.assert_whole()
    assert consumer.problem is None and consumer.position("test") == str(len(content))


def test_a_row_is_there_after_each_bar(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    for message in messages(held_back()[:9]):
        consumer.take([message])
        market.assert_online(store)


def test_bars_in_any_order_end_in_the_same_rows(market: Market, store: OnlineStore) -> None:
    content = held_back()
    order = np.random.default_rng(3).permutation(len(content))
    consumer = market.consumer(store)
    counts = Counter(take_all(consumer, messages([content[place] for place in order]), 50))
    assert counts["new"] + counts["late"] == 2 * HELD_BACK and counts["late"] > HELD_BACK
    market.assert_online(store)
    market.assert_whole()


def test_the_same_again_is_nothing(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    content = held_back()
    consumer.take(messages(content))
    before = market.journal.size()
    again = consumer.take([Message(json.dumps(one)) for one in content])
    assert set(statuses(again)) == {"duplicate", "context"}
    assert market.journal.size() == before, "nothing to remember"
    market.assert_online(store)


def test_a_restated_bar_corrects_the_row_of_the_same_time(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    content = held_back()
    consumer.take(messages(content))
    last = next(one for one in reversed(content) if one.get("symbol") == "IBM")
    before = store.read(["IBM"], market.schema)
    (done,) = consumer.take([Message(json.dumps(last | {"open": last["low"]}))])
    assert done.status == "restated"
    after = store.read(["IBM"], market.schema)
    assert after.feature_time == before.feature_time and (after.vectors != before.vectors).any()
    market.assert_online(store)


def test_a_context_value_brings_the_rows_of_every_symbol(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    content = held_back()
    consumer.take(messages(content))
    before = store.read(SYMBOLS, market.schema)
    newest = max(one["timestamp"] for one in content if "symbol" in one)
    level = next(one for one in reversed(content) if "series" in one and one["known_at"] <= newest)
    consumer.take([Message(json.dumps(level | {"close": level["close"] * 1.01}))])
    after = store.read(SYMBOLS, market.schema)
    assert all((after.vectors != before.vectors).any(axis=1))
    market.assert_online(store)


def test_a_bar_may_carry_what_is_known_at_its_close(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    bar = next(one for one in held_back() if "symbol" in one)
    (done,) = consumer.take([Message(json.dumps(bar | {"context": {SERIES: 1500.25}}))])
    assert done.status == "new"
    (commit,) = market.commits()
    assert [(level.series, level.known, level.close) for level in commit.levels] == [(SERIES, done.time, 1500.25)]
    market.assert_online(store)


def test_a_bar_older_than_all_windows_is_for_the_pipeline_alone(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    bars = market.layout.root / "bars" / "AAPL.parquet"
    old = pd.read_parquet(bars).iloc[3]
    row = {name: float(old[name]) for name in ("open", "high", "low", "close", "volume")}
    message = {"symbol": "AAPL", "timestamp": old["timestamp"].isoformat(), **row}
    before = store.read(SYMBOLS, market.schema).vectors
    assert statuses(consumer.take([Message(json.dumps(message))])) == ["duplicate"], "history has it"
    assert statuses(consumer.take([Message(json.dumps(message | {"volume": 7.0}))])) == ["too_old"]
    assert [bar.volume for bar in market.said()] == [7.0]
    np.testing.assert_array_equal(store.read(SYMBOLS, market.schema).vectors, before)
    market.assert_online(store)


def test_what_breaks_a_rule_is_put_aside(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    good = next(one for one in held_back() if "symbol" in one)
    said = [Message("{", "test", "1"), *messages([good])[:1], Message(b"\xff", "test", "3")]
    assert statuses(consumer.take(said)) == ["refused", "new", "refused"]
    letters = [json.loads(text) for text in market.refused.read_text().splitlines()]
    assert [letter["position"] for letter in letters] == ["1", "3"]
    assert letters[0]["reason"].startswith("a message must be JSON: ") and letters[0]["message"] == "{"
    assert consumer.position("test") == "3"
    assert len(market.said()) == 1


def test_a_new_process_puts_right_what_the_last_one_left(market: Market, store: OnlineStore) -> None:
    """Killed between journal and online store, and in the middle of a line of each file."""
    consumer = market.consumer(store)
    content = held_back()
    consumer.take(messages(content[:100]))
    consumer._store = Unreachable()  # type: ignore[assignment]
    consumer.take(messages(content)[100:150])
    assert consumer.problem == "nobody answers"
    segment = market.layout.streamed("mine") / "000001.journal"
    with segment.open("ab") as handle:
        handle.write(segment.read_bytes()[:77])
    market.refused.write_bytes(b'{"reason": "not committ')
    again = market.consumer(store)
    market.assert_online(store)
    assert again.position("test") == "150"
    again.take([Message("!", "test", "151"), *messages(content)[151:]])
    assert [json.loads(text)["message"] for text in market.refused.read_text().splitlines()] == ["!"]
    assert len(market.said()) == sum("symbol" in one for one in [*content[:150], *content[151:]])


class Unreachable(OnlineStore):
    """An online store that does not answer."""

    def __init__(self) -> None:
        pass

    def write(self, *_: object) -> int:
        raise StoreError("nobody answers")


def test_a_store_that_was_away_gets_the_rows_later(market: Market, store: OnlineStore) -> None:
    consumer = market.consumer(store)
    consumer._store = Unreachable()  # type: ignore[assignment]
    consumer.take(messages(held_back()))
    assert consumer.problem == "nobody answers"
    consumer.flush()
    assert consumer.problem == "nobody answers"
    consumer._store = store
    consumer.flush()
    assert consumer.problem is None
    market.assert_online(store)


def test_several_processes_share_one_journal(market: Market, store: OnlineStore) -> None:
    one, other = market.consumer(store), market.consumer(store)
    content = messages(held_back())
    for first in range(0, len(content), 30):
        (one if first % 60 else other).take(content[first : first + 30])
    for consumer in (one, other):
        assert not set(statuses(consumer.take(content))) - {"duplicate", "context"}
    market.assert_online(store)
    market.assert_whole()
    for symbol in SYMBOLS:
        assert one._engine and other._engine
        rows = [compute_tail(consumer._engine.bars(symbol), market.schema) for consumer in (one, other)]
        np.testing.assert_array_equal(*rows)


def test_a_disk_that_refuses_takes_nothing(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = plain.consumer()
    content = messages(held_back())
    consumer.take(content[:20])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tradeloop.journal.os.fsync", full)
        with pytest.raises(StoreError, match=r"000001.journal cannot be written: No space left on device"):
            consumer.take(content[20:40])
    assert len(plain.said()) == sum("symbol" in json.loads(one.text) for one in content[:20])
    assert consumer.position("test") == "20"
    assert set(statuses(consumer.take(content[20:]))) == {"new", "context"}
    plain.assert_whole()
    consumer.close()


def test_without_history_a_market_begins_cold(plain: Market, tmp_path: Path) -> None:
    for symbol in SYMBOLS:
        (tmp_path / "bars" / f"{symbol}.parquet").unlink()
    store = OnlineStore(plain.layout, plain.params)
    consumer = plain.consumer(store)
    bars = [one for one in held_back() if one.get("symbol") == "AAPL"]
    assert set(statuses(consumer.take(messages(bars)))) == {"new"}
    rows = store.read(["AAPL"], plain.schema)
    assert rows.found.all() and np.isfinite(rows.vectors[0, plain.schema.names.index("close_location")])
    store.close()


def newest_stored(market: Market, symbol: str) -> pd.Series:
    """The newest row that the features stage wrote."""
    return pd.read_parquet(partitions.files(market.layout.features, symbol)[-1]).iloc[-1]


def test_the_pipeline_makes_the_rows_that_were_online(plain: Market) -> None:
    """The stages themselves, over the source and the journal: bit for bit what the online store holds."""
    store = OnlineStore(plain.layout, plain.params)
    consumer = plain.consumer(store)
    consumer.take(messages(held_back()))
    for stage in (ingest, check, features):
        stage(plain.layout, plain.params)
    rows = store.read(SYMBOLS, plain.schema)
    for place, symbol in enumerate(SYMBOLS):
        made = newest_stored(plain, symbol)
        assert made["timestamp"].tz_localize(None) == rows.feature_time[place]
        np.testing.assert_array_equal(made[list(plain.schema.names)].to_numpy(np.float32), rows.vectors[place])
    store.close()


@pytest.mark.parametrize(("late_bars", "status"), [(64, "restated"), (0, "too_old")])
def test_the_parameters_say_how_late_a_bar_may_be(tmp_path: Path, late_bars: int, status: str) -> None:
    market = make_market(tmp_path, late_bars=late_bars)
    consumer = market.consumer()
    assert consumer._engine is not None
    kept = pd.read_parquet(tmp_path / "bars" / "IBM.parquet").iloc[-consumer._engine.lookback - 5]
    row = {name: float(kept[name]) for name in ("open", "high", "low", "close")}
    message = {"symbol": "IBM", "timestamp": kept["timestamp"].isoformat(), **row, "volume": 1.0}
    assert statuses(consumer.take([Message(json.dumps(message))])) == [status]
    consumer.close()


def test_data_beyond_bars_comes_from_its_own_files(tmp_path: Path) -> None:
    """Funding rates in a file that grows: the rows are those that the stages would make of the same file."""
    market = make_market(tmp_path)
    inputs = {"funding": InputFiles(path="funding", max_age="30d")}
    mine = market.params.active.model_copy(update={"inputs": inputs, "symbols": ["AAPL"], "context": []})
    families = market.params.features.model_copy(update={"families": ["price_action", "derivatives"]})
    market.params = market.params.model_copy(update={"markets": {"mine": mine}, "features": families})
    content = [one for one in held_back() if one.get("symbol") == "AAPL"]
    times = pd.to_datetime([one["timestamp"] for one in content[:-1]])
    history = pd.read_parquet(tmp_path / "bars" / "AAPL.parquet")["timestamp"]
    rates = pd.DataFrame({"timestamp": [*history, *times]}).assign(hours=8.0)
    rates["rate"] = 1e-4 * np.sin(np.arange(len(rates)))
    rates["known_at"] = rates["timestamp"]
    (tmp_path / "funding").mkdir()
    rates.to_parquet(tmp_path / "funding" / "AAPL.parquet", index=False)
    store = OnlineStore(market.layout, market.params)
    consumer = market.consumer(store)
    assert set(statuses(consumer.take(messages(content)))) == {"new"}
    for stage in (ingest, check, features):
        stage(market.layout, market.params)
    made = newest_stored(market, "AAPL")
    columns = list(market.schema.names)
    assert any("funding" in name for name in columns)
    row = store.read(["AAPL"], market.schema)
    np.testing.assert_array_equal(made[columns].to_numpy(np.float32), row.vectors[0])
    assert np.isfinite(row.vectors[0]).all() and consumer.problem is None
    store.close()
