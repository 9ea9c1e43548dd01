from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.outcomes import HOUR, MARKET, Desk, closes, log, logged
from tradeloop.errors import FillError
from tradeloop.monitoring.fills import Fill, FillBook, costs, realised
from tradeloop.monitoring.records import Logged
from tradeloop.state.database import Database
from tradeloop.state.tables import FillRow

NOW = closes(60)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'fills.db'}", durable=False)
    yield opened
    opened.close()


@pytest.fixture
def told(database: Database) -> Logged:
    """Return a logged prediction of bar 50, long."""
    prediction = logged(50)
    log(database, [prediction])
    return prediction


def fill(told: Logged, number: int = 1, **changes: Any) -> Fill:
    values: dict[str, Any] = {
        "fill_id": f"f{number}",
        "prediction_id": told.id,
        "side": "buy",
        "quantity": 2.0,
        "price": 100.1,
        "filled_at": closes(50) + timedelta(minutes=1),
        "expected_price": 100.0,
        "fee": 0.05,
    }
    return Fill(**(values | changes))


def rows(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(FillRow)).scalar_one()


class TestFill:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("fill_id", ""),
            ("fill_id", "x" * 65),
            ("side", "long"),
            ("quantity", 0.0),
            ("quantity", float("nan")),
            ("price", -1.0),
            ("price", float("inf")),
            ("expected_price", 0.0),
            ("fee", float("nan")),
            ("pnl", float("inf")),
            ("filled_at", datetime(2020, 1, 1)),
        ],
    )
    def test_refuses_what_no_execution_can_be(self, name: str, value: Any) -> None:
        with pytest.raises(FillError, match=name):
            fill(logged(50), **{name: value})


class TestReport:
    def test_accepts_once(self, url: str) -> None:
        database = Database.open(url)
        prediction = logged(50)
        log(database, [prediction])
        book = FillBook(database, MARKET)
        (first,) = book.report([fill(prediction)], now=NOW)
        assert first.status == "accepted" and first.slippage_bps == pytest.approx(10.0)
        again = book.report([fill(prediction), fill(prediction, 2), fill(prediction, 2)], now=NOW)
        assert [it.status for it in again] == ["duplicate", "accepted", "duplicate"] and rows(database) == 2
        database.close()

    def test_another_content_under_the_same_id_contradicts_and_the_first_stays(
        self, database: Database, told: Logged
    ) -> None:
        book = FillBook(database, MARKET)
        book.report([fill(told)], now=NOW)
        (result,) = book.report([fill(told, price=100.2)], now=NOW)
        assert result.status == "contradicts"
        assert result.reason == "fill f1 was reported with price 100.1, now with 100.2; the first stays"
        with database.read() as connection:
            assert connection.execute(select(FillRow.price)).scalars().all() == [100.1]

    def test_refuses_what_cannot_be_and_takes_the_rest(self, database: Database, told: Logged) -> None:
        shadow = logged(50, arm="shadow", answered=False, parent=told.id)
        log(database, [shadow])
        elsewhere = logged(50)
        log(database, [elsewhere], market="elsewhere")
        reported = [
            fill(replace(told, id="nobody"), 1),
            fill(shadow, 2),
            fill(elsewhere, 3),
            fill(told, 4, filled_at=closes(50) - timedelta(microseconds=1)),
            fill(told, 5, filled_at=NOW + timedelta(seconds=6)),
            fill(told, 6, filled_at=NOW + timedelta(seconds=4)),
        ]
        found = FillBook(database, MARKET).report(reported, now=NOW)
        expected = ["unknown_prediction", "not_answered", "unknown_prediction", "before_prediction", "future"]
        assert [it.status for it in found] == [*expected, "accepted"] and rows(database) == 1
        assert all((it.reason is None) == (it.status == "accepted") for it in found)

    def test_the_same_fill_from_many_at_once_is_recorded_once(self, url: str) -> None:
        database = Database.open(url, busy_timeout=30)
        prediction = logged(50)
        log(database, [prediction])
        found: list[str] = []

        def report() -> None:
            book = FillBook(database, MARKET)
            for number in range(5):
                found.extend(it.status for it in book.report([fill(prediction, number)], now=NOW))

        threads = [threading.Thread(target=report) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found.count("accepted") == 5 and found.count("duplicate") == 15 and rows(database) == 5
        database.close()

    def test_nothing_is_recorded_when_the_commit_fails(
        self, database: Database, told: Logged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        book = FillBook(database, MARKET)
        monkeypatch.setattr("tradeloop.monitoring.fills.slippage_bps", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            book.report([fill(told)], now=NOW)
        monkeypatch.undo()
        assert rows(database) == 0 and book.report([fill(told)], now=NOW)[0].status == "accepted"


class TestCosts:
    def test_slippage_is_what_was_paid_too_much_and_the_fee_comes_on_top(
        self, database: Database, told: Logged
    ) -> None:
        FillBook(database, MARKET).report(
            [
                fill(told, 1, price=100.1, fee=0.0),
                fill(told, 2, price=99.9, fee=0.0, filled_at=closes(51)),
                fill(told, 3, side="sell", price=99.9, fee=0.0999, quantity=1.0, filled_at=closes(52)),
            ],
            now=NOW,
        )
        assert costs(database, MARKET, 10) == pytest.approx([20.0, -10.0, 10.0])
        assert costs(database, MARKET, 1) == pytest.approx([20.0])

    def test_without_an_expected_price_the_labels_trade_is_the_reference(self, database: Database) -> None:
        desk = Desk(database)
        long, short = logged(50), logged(51, side="short")
        log(database, [long, short])
        book, bars = FillBook(database, MARKET), desk.bars["AAA"]
        reported = [
            fill(long, 1, expected_price=None, fee=0.0, price=bars.open[51] * 1.001),
            fill(long, 2, expected_price=None, fee=0.0, price=bars.close[51] * 0.998, side="sell"),
            fill(
                short, 3, expected_price=None, fee=0.0, price=bars.open[52] * 0.997, side="sell", filled_at=closes(52)
            ),
            fill(short, 4, expected_price=None, fee=0.0, price=bars.close[52] * 1.004, filled_at=closes(53)),
        ]
        assert [it.slippage_bps for it in book.report(reported, now=NOW)] == [None] * 4
        assert costs(database, MARKET, 10) == []
        desk.at(60)
        desk.resolver.advance()
        assert costs(database, MARKET, 10) == pytest.approx([40.0, 30.0, 20.0, 10.0])
        assert [it.slippage_bps for it in book.report(reported, now=NOW)] == pytest.approx([10.0, 20.0, 30.0, 40.0])


class TestRealised:
    def test_a_closed_trade_is_what_was_received_less_what_was_paid_and_fees(
        self, database: Database, told: Logged
    ) -> None:
        FillBook(database, MARKET).report(
            [
                fill(told, 1, quantity=1.0, price=100.0),
                fill(told, 2, quantity=1.0, price=101.0),
                fill(told, 3, quantity=2.0, price=103.0, side="sell", expected_price=103.0, filled_at=closes(52)),
            ],
            now=NOW,
        )
        (result,) = realised(database, MARKET, closes(51))  # of all its fills, the older ones too
        assert result.closed and result.net_pnl == pytest.approx(206.0 - 201.0 - 0.15)
        assert (result.notional, result.fees) == (pytest.approx(407.0), pytest.approx(0.15))
        paid = 1.0 * 0.0 + 101.0 * 100.0 + 206.0 * 0.0 + 0.15 * 1e4
        assert result.cost_bps == pytest.approx(paid / 407.0)
        assert (result.symbol, result.side, result.last_fill_at) == ("AAA", "long", closes(52))
        assert realised(database, MARKET, closes(52) + HOUR) == []

    def test_an_open_trade_has_no_profit_unless_the_bot_booked_one(self, database: Database, told: Logged) -> None:
        book = FillBook(database, MARKET)
        book.report([fill(told, 1)], now=NOW)
        assert realised(database, MARKET, closes(0))[0].net_pnl is None
        book.report([fill(told, 2, side="sell", quantity=1.0, pnl=3.0)], now=NOW)
        (result,) = realised(database, MARKET, closes(0))
        assert not result.closed and result.net_pnl == pytest.approx(3.0 - 0.1)
