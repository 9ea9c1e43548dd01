from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, text

from tests.conftest import ROOT
from tests.outcomes import MARKET, Desk, closes, log, logged, row_of, stream
from tradeloop.config import Performance
from tradeloop.monitoring.accounts import check, count
from tradeloop.monitoring.performance import PerformanceBook
from tradeloop.monitoring.queries import outcomes, performance, summary
from tradeloop.monitoring.scorecard import MarketFacts
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRow, PendingRow, PredictionRow

A, B = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Return a database with the windows of two models and two symbols."""
    opened = Database.open(f"sqlite:///{tmp_path_factory.mktemp('queries') / 'x.db'}", durable=False)
    book = PerformanceBook(Performance(counts=[10], spans=["1d"], every=5), MarketFacts(8766.0, 1, 5.0))
    for i, resolved in enumerate(stream(60) + stream(60, model=B, arm="shadow", seed=1)):
        book.update(resolved)
        with opened.write() as connection:
            book.write(connection, MARKET, closes(i % 60))
    yield opened
    opened.close()


class TestPerformance:
    def test_gives_the_newest_row_of_every_key(self, database: Database) -> None:
        rows = performance(database, MARKET)
        keys = [(r["model"], r["symbol"], r["regime"], r["arm"], r["window"]) for r in rows]
        assert keys == sorted(set(keys)) and {key[0] for key in keys} == {A, B}
        (whole,) = performance(database, MARKET, model=B, symbol="*", regime="*", arm="*", window="n:10")
        assert whole["count"] == 10 and whole["as_of"] == closes(59) and 0 <= whole["metrics"]["accuracy"] <= 1

    @pytest.mark.parametrize(
        ("name", "value"), [("symbol", "AAA"), ("regime", "low"), ("arm", "shadow"), ("window", "t:1d"), ("model", A)]
    )
    def test_every_filter_keeps_what_it_names(self, database: Database, name: str, value: str) -> None:
        rows = performance(database, MARKET, **{name: value})  # type: ignore[arg-type]
        everything = performance(database, MARKET)
        assert rows == [row for row in everything if row[name] == value]
        assert 0 < len(rows) < len(everything)

    def test_a_version_names_its_model(self, database: Database) -> None:
        assert performance(database, MARKET, model=B[:12]) == performance(database, MARKET, model=B) != []
        assert performance(database, MARKET, model="0" * 12) == []

    def test_since_gives_history_newest_first(self, database: Database) -> None:
        rows = performance(database, MARKET, model=A, window="n:10", since=closes(20))
        times = [row["as_of"] for row in rows]
        assert times == sorted(times, reverse=True) and len(times) > 3 and times[-1] >= closes(20)
        assert {(row["symbol"], row["regime"], row["arm"]) for row in rows} == {("*", "*", "*")}
        assert performance(database, MARKET, model=A, window="n:10", since=closes(20), limit=2) == rows[:2]

    def test_other_markets_are_not_shown(self, database: Database) -> None:
        assert performance(database, "elsewhere") == [] == performance(database, "elsewhere", since=closes(0))


class TestOutcomes:
    def test_lists_and_totals(self, url: str) -> None:
        opened = Database.open(url)
        desk = Desk(opened, symbols=("AAA", "BBB"))
        assert summary(opened, MARKET) == {
            **dict.fromkeys(("logged", "resolved", "expired", "void", "pending"), 0),
            "newest": None,
        }
        first, second, open_ = logged(10), logged(12, "BBB"), logged(100)
        log(opened, [first, second, open_, logged(None, p_up=None)])
        desk.at(60)
        desk.resolver.advance()
        told = summary(opened, MARKET)
        assert (told["logged"], told["resolved"], told["void"], told["pending"]) == (4, 2, 1, 1)
        assert told["newest"]["seq"] == 3 and told["newest"]["label_end"] == closes(13)
        rows = outcomes(opened, MARKET)
        assert [row["prediction_id"] for row in rows[:2]] == [second.id, first.id] and len(rows) == 3
        assert rows[0]["forecast_ret"] == 0.001 and rows[0]["p_up"] == 0.6 and rows[2]["status"] == "void"
        assert [row["seq"] for row in outcomes(opened, MARKET, after_seq=2)] == [3]
        assert [row["seq"] for row in outcomes(opened, MARKET, symbol="AAA")] == [2]
        assert [row["seq"] for row in outcomes(opened, MARKET, limit=1)] == [3]
        opened.close()


class TestAccounts:
    @pytest.fixture
    def books(self, tmp_path: Path) -> Iterator[Database]:
        opened = Database.open(f"sqlite:///{tmp_path / 'accounts.db'}", durable=False)
        desk = Desk(opened)
        log(opened, [logged(10), logged(11), logged(100), logged(None, p_up=None)])
        desk.at(60)
        desk.resolver.advance()
        yield opened
        opened.close()

    def test_they_balance(self, books: Database) -> None:
        counts = count(books, MARKET)
        assert (counts.logged, counts.resolved, counts.expired, counts.void, counts.pending) == (4, 2, 0, 1, 1)
        assert check(books, MARKET) == []

    def test_a_lost_prediction_is_named(self, books: Database) -> None:
        with books.write() as connection:
            lost = connection.execute(delete(PendingRow).returning(PendingRow.prediction_id)).scalar_one()
        assert check(books, MARKET) == [
            f"predictions that have neither an outcome nor are pending: {lost}",
            "4 predictions were logged, but 2 resolved + 0 expired + 1 void + 0 pending are 3",
        ]

    def test_one_that_ended_and_is_pending_is_named(self, books: Database) -> None:
        with books.write() as connection:
            ended = connection.execute(text("SELECT prediction_id FROM outcomes WHERE seq = 2")).scalar_one()
            connection.execute(insert(PendingRow).values(market=MARKET, prediction_id=ended))
        assert check(books, MARKET)[0] == f"predictions that have an outcome and are pending too: {ended}"

    def test_an_outcome_of_nothing_and_a_wrong_total_are_named(self, books: Database) -> None:
        with books.write() as connection:
            gone = connection.execute(text("SELECT prediction_id FROM outcomes WHERE status = 'void'")).scalar_one()
            connection.execute(delete(PredictionRow).where(PredictionRow.id == gone))
            connection.execute(text("UPDATE outcome_totals SET count = 7 WHERE status = 'resolved'"))
        problems = check(books, MARKET)
        assert problems[0] == f"predictions that have an outcome but were never logged: {gone}"
        assert problems[-1] == "outcome_totals says 7 resolved, there are 2"

    def test_a_prediction_deleted_by_hand_stops_nothing(self, books: Database) -> None:
        with books.write() as connection:
            connection.execute(delete(PredictionRow).where(PredictionRow.feature_time == closes(100)))
        desk = Desk(books)
        log(books, [logged(20)])
        desk.at(60)
        assert len(desk.resolver.advance()) == 1 and desk.resolver.advance() == []
        assert "are pending but were never logged" in check(books, MARKET)[0]

    def test_the_log_and_the_queue_are_one_transaction(self, books: Database) -> None:
        before = count(books, MARKET)
        with pytest.raises(RuntimeError), books.write() as connection:
            connection.execute(insert(PredictionRow), [row_of(logged(30))])
            raise RuntimeError
        assert count(books, MARKET) == before
        with books.read() as connection:
            assert connection.execute(OutcomeRow.__table__.select()).first() is not None


def test_what_the_service_imports_is_light() -> None:
    heavy = "pandas", "scipy", "sklearn", "torch", "talib", "exchange_calendars"
    modules = "tradeloop.monitoring.queries, tradeloop.monitoring.fills, tradeloop.monitoring.accounts"
    script = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
