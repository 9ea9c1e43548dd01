"""Served rows computed again: the same where nothing is wrong, and an alarm where something is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stream.market import SYMBOLS, Market, held_back, make_market, messages
from tradeloop.bars import Bars
from tradeloop.clock import LiveClock
from tradeloop.features import compute
from tradeloop.loop.runner import Runner
from tradeloop.monitoring.feed import SourceFeed
from tradeloop.monitoring.overview import status
from tradeloop.monitoring.parity import Parity, ParityMonitor, relative
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction
from tradeloop.sources import open_source
from tradeloop.state.database import Database, database_url

NOW = datetime(2013, 3, 1, 21, tzinfo=UTC)


@pytest.fixture
def market(tmp_path: Path) -> Market:
    return make_market(tmp_path)


@pytest.fixture
def database(market: Market) -> Any:
    opened = Database.open(database_url(market.layout, market.params))
    yield opened
    opened.close()


def served(market: Market, symbol: str, place: int) -> tuple[datetime, np.ndarray]:
    """Return time and values of a symbol's row, counted from the end of what its file has."""
    source = open_source(market.params.active, root=market.layout.root, seed=1, streamed=market.layout.streamed("mine"))
    bars = Bars.from_frame(symbol, source.read(symbol), {"SP500": source.read_context("SP500")})
    return bars.timestamp[place].item().replace(tzinfo=UTC), compute(bars, market.schema)[place]


def log(database: Database, of: Market, *rows: tuple[str, datetime, np.ndarray], **changes: Any) -> None:
    """Log a prediction for each row, as the service does."""
    with PredictionLog(database) as writer:
        for number, (symbol, time, values) in enumerate(rows):
            writer.append([replace(prediction(of, f"p{number}", symbol, time, values), **changes)]).result()


def prediction(market: Market, name: str, symbol: str, time: datetime, values: np.ndarray) -> Prediction:
    given: dict[str, Any] = {field: None for field in Prediction.__dataclass_fields__}
    given |= {"id": name, "market": "mine", "symbol": symbol, "asked_at": NOW, "feature_time": time, "max_age": 60.0}
    given |= {"model": "m" * 64, "version": "m", "schema_hash": market.schema.hash, "features": values}
    given |= {"verdict": "abstain", "reasons": (), "clock": "live", "arm": "champion", "answered": True}
    return Prediction(**given)


def monitor(market: Market, database: Database) -> ParityMonitor:
    return ParityMonitor(market.layout, market.params, SourceFeed(market.layout, market.params, LiveClock()), database)


def rows_of(market: Market, places: tuple[int, ...] = (-1, -2, -40)) -> list[tuple[str, datetime, np.ndarray]]:
    return [(symbol, *served(market, symbol, place)) for symbol in SYMBOLS for place in places]


def compared(found: Parity | None) -> Parity:
    assert found is not None
    return found


def test_what_was_served_is_what_the_bars_say(market: Market, database: Database) -> None:
    log(database, market, *rows_of(market))
    found = compared(monitor(market, database).step(NOW))
    assert (found.compared, found.restated, found.different, found.state) == (6, 0, [], "same")
    assert found.line == "6 served rows computed again, 0 differ"


@pytest.mark.parametrize(("factor", "differs"), [(1 + 1e-7, False), (1 + 4e-6, True), (np.nan, True)])
def test_a_difference_is_told_with_its_feature(
    market: Market, database: Database, factor: float, differs: bool
) -> None:
    (symbol, time, values), *others = rows_of(market)
    place = int(np.nanargmax(np.abs(values)))
    wrong = values.copy()
    wrong[place] *= factor
    log(database, market, *others, (symbol, time, wrong))
    found = compared(monitor(market, database).step(NOW))
    assert len(found.different) == differs
    if differs:
        assert found.different[0].startswith(f"{symbol} at {time.isoformat()}, prediction p5: ")
        assert market.schema.names[place] in found.line and found.state == "differs"


def test_a_row_of_a_bar_that_is_not_there_differs(market: Market, database: Database) -> None:
    symbol, time, values = rows_of(market)[0]
    log(database, market, (symbol, time + timedelta(hours=1), values))
    assert compared(monitor(market, database).step(NOW)).different[0].endswith("there is no bar of that time")


def test_it_looks_each_hour_of_the_market_at_what_came_since(market: Market, database: Database) -> None:
    watch = monitor(market, database)
    assert watch.step(NOW) is None, "nothing was served"
    log(database, market, *rows_of(market))
    assert watch.step(NOW + timedelta(minutes=59)) is None
    assert compared(watch.step(NOW + timedelta(minutes=60))).compared == 6
    assert watch.step(NOW + timedelta(minutes=120)) is None, "nothing new"


def test_the_parameters_say_how_often_and_how_many(market: Market, database: Database) -> None:
    stream = market.params.stream.model_copy(update={"parity_rows": 2, "parity_every": "5m"})
    watch = monitor(Market(market.layout, market.params.model_copy(update={"stream": stream})), database)
    watch.step(NOW)
    log(database, market, *rows_of(market))
    assert watch.step(NOW + timedelta(minutes=4)) is None
    assert compared(watch.step(NOW + timedelta(minutes=5))).compared == 2


@pytest.mark.parametrize("changes", [{"answered": False}, {"schema_hash": "0" * 64}, {"market": "other"}])
def test_what_was_not_answered_from_these_features_is_left_out(
    market: Market, database: Database, changes: dict[str, Any]
) -> None:
    log(database, market, *rows_of(market)[:1], **changes)
    assert monitor(market, database).step(NOW) is None


def test_what_was_restated_since_is_left_out(market: Market, database: Database) -> None:
    consumer = market.consumer()
    content = held_back()[:20]
    consumer.take(messages(content))
    log(database, market, *rows_of(market, (-1,)))
    newest = next(one for one in reversed(content) if one.get("symbol") == "IBM")
    consumer.take(messages([newest | {"volume": newest["volume"] + 1, "open": newest["low"]}], "again"))
    found = compared(monitor(market, database).step(NOW))
    assert (found.compared, found.restated, found.different) == (1, 1, [])
    assert "1 restated since" in found.line
    consumer.close()


def test_the_loop_raises_the_alarm_and_status_shows_it(market: Market, database: Database) -> None:
    symbol, time, values = rows_of(market)[0]
    log(database, market, (symbol, time, values + 1))
    said: list[str] = []
    runner = Runner(market.layout, market.params, say=said.append)
    runner._database = database
    runner._parity = monitor(market, database)
    runner._compare(NOW)
    assert len(said) == 1 and said[0].startswith("parity: 1 served rows computed again, 1 differ: AAPL at ")
    found = status(database, "mine", clock="live", now=NOW)
    (alarm,) = found["alarms"]
    assert alarm["watch"] == "parity" and alarm["text"].startswith("1 served rows")
    assert found["errors"][0]["kind"] == "parity"
    log(database, market, (symbol, time, values), id="later")
    runner._compare(NOW + timedelta(hours=1))
    assert status(database, "mine", clock="live", now=NOW)["alarms"] == []


def test_relative_difference() -> None:
    nan = np.nan
    left, right = np.array([1.0, 0.0, nan, nan, 0.0, -2.0]), np.array([1.1, 0.0, nan, 1.0, 1e-30, 2.0])
    np.testing.assert_allclose(relative(left, right), [0.1 / 1.1, 0, 0, np.inf, 1, 2])
