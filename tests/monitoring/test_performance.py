from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from tests.outcomes import HOUR, MARKET, closes, random_bars, stream
from tradeloop import backtest
from tradeloop.config import Labels, Params, Performance, load_params
from tradeloop.labels import compute_labels
from tradeloop.layout import Layout
from tradeloop.metrics import METRICS
from tradeloop.monitoring.performance import Key, PerformanceBook
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scorecard import MarketFacts, Metrics, wilson
from tradeloop.state.database import Database
from tradeloop.state.tables import PerformanceNewestRow, PerformanceWindowRow

FACTS = MarketFacts(bars_per_year=8766.0, horizon=1, cost_bps=5.0)
CONFIG = Performance(counts=[7, 40], spans=["6h", "2d"], every=5)
MODEL = "a" * 64
Everything = Sequence[Resolved]


def book_of(outcomes: Everything, config: Performance = CONFIG, facts: MarketFacts = FACTS) -> PerformanceBook:
    book = PerformanceBook(config, facts)
    for resolved in outcomes:
        book.update(resolved)
    return book


def recomputed(outcomes: Everything, facts: MarketFacts = FACTS) -> Metrics:
    """Compute all metrics anew, by `tradeloop.metrics` on all values at once."""
    told, ended = [it.prediction for it in outcomes], [it.outcome for it in outcomes]
    up, ret, log_range = (np.array([getattr(it, name) for it in ended]) for name in ("direction", "ret", "range"))
    p, forecast, spread = (np.array([getattr(it, name) for it in told]) for name in ("p_up", "ret", "range"))
    low, high = (np.array([getattr(it, name) for it in told]) for name in ("ret_low", "ret_high"))
    range_low, range_high = (np.array([getattr(it, name) for it in told]) for name in ("range_low", "range_high"))
    called, rose = p >= 0.5, up > 0.5
    side = np.array([0.0 if it.verdict != "trade" else (1.0 if it.side == "long" else -1.0) for it in told])
    times = np.array([it.feature_time.timestamp() for it in told])  # type: ignore[union-attr]
    traded = np.abs(side) * (1 + np.exp(ret)) / facts.horizon
    net = side * (np.exp(ret) - 1) / facts.horizon - traded * facts.cost_bps / 1e4
    series = np.array([max(net[times == time].mean(), -1.0) for time in np.unique(times)])
    trades = np.array([traded[times == time].mean() for time in np.unique(times)])
    timed = [it.latency for it in told if it.latency is not None]
    moves = np.abs(ret) / spread
    annual = {"bars_per_year": facts.bars_per_year}
    found = {
        "accuracy": METRICS["accuracy"](up, p),
        "precision": np.mean(rose[called]) if called.any() else math.nan,
        "recall": np.mean(called[rose]) if rose.any() else math.nan,
        "f1": 2 * np.sum(called & rose) / (called.sum() + rose.sum()) if (called | rose).any() else math.nan,
        "auc": METRICS["auc"](up, p),
        "brier": METRICS["brier"](up, p),
        "log_loss": METRICS["log_loss"](up, p),
        "ece": METRICS["ece"](up, p),
        "ic": METRICS["ic"](ret, forecast),
        "return_rmse": METRICS["rmse"](ret, forecast),
        "return_mae": METRICS["mae"](ret, forecast),
        "return_r2": METRICS["r2"](ret, forecast),
        "range_rmse": METRICS["rmse"](log_range, np.log(spread)),
        "range_mae": METRICS["mae"](log_range, np.log(spread)),
        "range_r2": METRICS["r2"](log_range, np.log(spread)),
        "return_coverage": METRICS["coverage"](ret, low, high),
        "range_coverage": METRICS["coverage"](np.exp(log_range), range_low, range_high),
        "sharpe": METRICS["sharpe"](series, **annual),
        "sortino": METRICS["sortino"](series, **annual),
        "win_rate": METRICS["hit_rate"](series),
        "profit_factor": METRICS["profit_factor"](series),
        "max_drawdown": METRICS["max_drawdown"](series),
        "total_return": METRICS["total_return"](series),
        "turnover": METRICS["turnover"](trades),
        "adjusted_hit_rate": np.sum(moves[called == rose]) / np.sum(moves),
        "abstention": np.mean(side == 0),
        "latency": np.mean(timed) if timed else math.nan,
    }
    interval = wilson(float(np.sum(called == rose)), len(told), CONFIG.confidence)
    found |= dict(zip(("accuracy_low", "accuracy_high"), interval, strict=True))
    return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}


def in_window(outcomes: Everything, key: Key, window: str, now: datetime) -> list[Resolved]:
    """Return what a window holds, by its definition."""
    mine, newest, ends = [], datetime.min.replace(tzinfo=now.tzinfo), []
    for it in outcomes:
        own = (it.prediction.model, it.prediction.symbol, it.outcome.regime, it.prediction.arm)
        if not it.outcome.repeat and all(a in ("*", b) for a, b in zip(key, own, strict=True)):
            mine.append(it)
            newest = max(newest, it.outcome.label_end or newest)
            ends.append(newest)
    kind, length = window.split(":")
    if kind == "n":
        return mine[-int(length) :]
    span = timedelta(hours=int(length[:-1]) * {"h": 1, "d": 24}[length[-1]])
    return [it for it, end in zip(mine, ends, strict=True) if end > now - span]


def assert_same(found: Metrics, expected: Metrics, *told: object) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        if value is None or expected[name] is None:
            assert value is expected[name], (*told, name, value, expected[name])
        else:
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9), (*told, name)


def assert_exact(book: PerformanceBook, outcomes: Everything, now: datetime) -> None:
    rows = book.snapshot(now)
    assert rows
    for row in rows:
        held = in_window(outcomes, row.key, row.window, now)
        assert row.count == len(held)
        assert_same(row.metrics, recomputed(held), row.key, row.window)


class TestExactness:
    @settings(max_examples=6, deadline=None)
    @given(st.data())
    def test_every_metric_of_every_window_equals_a_full_recompute(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, 100))
        outcomes = stream(size, seed=data.draw(st.integers(0, 10**6)))
        looks = data.draw(st.sets(st.integers(0, size - 1), max_size=4)) | {size - 1}
        book = PerformanceBook(CONFIG, FACTS)
        for i, resolved in enumerate(outcomes):
            book.update(resolved)
            if i in looks:  # sums follow from one look to the next
                later = data.draw(st.integers(0, 5))
                assert_exact(book, outcomes[: i + 1], closes(i // 2 + 1 + later))

    def test_over_thousands_rounding_does_not_pile_up_and_memory_does_not_grow(self) -> None:
        outcomes = stream(12_000)
        book = PerformanceBook(CONFIG, FACTS)
        for i, resolved in enumerate(outcomes):
            book.update(resolved)
            if i % 9 == 0:
                book.sums(Key(MODEL), "n:40", closes(i // 2 + 1))
                book.sums(Key(MODEL), "t:2d", closes(i // 2 + 1))
        now = closes(6_000)
        exact = recomputed(in_window(outcomes[-500:], Key(MODEL), "t:2d", now))
        for name, value in book.sums(Key(MODEL), "t:2d", now).items():
            assert value == pytest.approx(exact[name], rel=1e-11, abs=1e-13)
        assert book._rows.size - book._rows.first <= 8192 and len(book._numbers) <= 8192

    def test_an_outcome_that_is_learned_late_counts_from_then_on(self) -> None:
        outcomes = stream(60)
        late = outcomes.pop(10)
        outcomes.append(replace(late, outcome=replace(late.outcome, seq=61)))
        assert_exact(book_of(outcomes), outcomes, closes(30))

    def test_repeats_are_not_counted(self) -> None:
        outcomes = stream(20)
        outcomes[7] = replace(outcomes[7], outcome=replace(outcomes[7].outcome, repeat=True))
        assert_exact(book_of(outcomes), outcomes, closes(12))

    def test_one_outcome_has_what_one_outcome_can_have(self) -> None:
        (resolved,) = stream(1, symbols=("AAA",), verdict="abstain", latency=None)
        (row, *_) = book_of([resolved]).snapshot(closes(1))
        undefined = {name for name, value in row.metrics.items() if value is None}
        assert {"auc", "ic", "return_r2", "sharpe", "sortino", "win_rate", "profit_factor", "latency"} <= undefined
        assert row.metrics["abstention"] == 1.0 and row.metrics["turnover"] == 0.0

    @pytest.mark.parametrize("entry", ["next_open", "close"])
    def test_returns_are_those_of_the_backtest(self, entry: str) -> None:
        """To the last digit where trades do not overlap; entering at the close, costs of netted trades are extra."""
        bars = {symbol: random_bars(symbol, 300) for symbol in ("AAA", "BBB")}
        labels = Labels(entry=entry)
        outcomes = stream(400, symbols=tuple(bars))
        known = {symbol: compute_labels(series, labels) for symbol, series in bars.items()}
        for i, it in enumerate(outcomes):
            label = known[it.prediction.symbol].iloc[i // 2]
            outcomes[i] = replace(
                it, outcome=replace(it.outcome, ret=label["return"], direction=label["direction"], range=label["range"])
            )
        cost = 5.0 if entry == "next_open" else 0.0
        facts = replace(FACTS, cost_bps=cost)
        book = book_of(outcomes, Performance(counts=[400], spans=["90d"]), facts)
        row = next(it for it in book.snapshot(closes(200)) if it.key == Key(MODEL) and it.window == "n:400")
        sides = [(it.prediction.verdict == "trade") * (1 if it.prediction.side == "long" else -1) for it in outcomes]
        trades = backtest.trade(
            bars,
            np.array([it.prediction.symbol for it in outcomes], dtype=object),
            np.array([it.prediction.feature_time.replace(tzinfo=None) for it in outcomes], "datetime64[us]"),  # type: ignore[union-attr]
            position=np.array(sides, dtype=np.float64),
            entry=labels.entry,
            horizon=1,
            cost_bps=cost,
        )
        net = trades.net if entry == "next_open" else trades.net[1:]
        for name, options in (("sharpe", {"bars_per_year": 8766.0}), ("max_drawdown", {}), ("total_return", {})):
            assert row.metrics[name] == pytest.approx(METRICS[name](net, **options), rel=1e-12)
        if entry == "next_open":
            assert row.metrics["turnover"] == pytest.approx(METRICS["turnover"](trades.traded), rel=1e-12)


class TestRestating:
    def test_new_labels_take_the_place_of_the_old_ones(self) -> None:
        outcomes = stream(100)
        book = book_of(outcomes)
        now = closes(50)
        book.snapshot(now)
        before = book.sums(Key(MODEL), "n:40", now)
        for i in (99, 70, 2):  # the last is in no window any more
            new = replace(
                outcomes[i].outcome, ret=-outcomes[i].outcome.ret, direction=1 - outcomes[i].outcome.direction
            )  # type: ignore[operator]
            outcomes[i] = replace(outcomes[i], outcome=replace(new, revision=1))
            book.restate(outcomes[i])
        assert_exact(book, outcomes, now)
        assert book.sums(Key(MODEL), "n:40", now) != before

    def test_one_that_was_never_counted_is_ignored(self) -> None:
        book = book_of(stream(30))
        before = book.snapshot(closes(15))
        book.restate(stream(1, seed=5)[0])
        assert book.snapshot(closes(15)) == before


class TestState:
    @pytest.mark.parametrize("cut", [1, 250, 9_000])
    def test_a_restored_book_goes_on_as_the_one_that_was_never_gone(self, cut: int) -> None:
        outcomes = stream(9_500)
        whole, first = book_of(outcomes), book_of(outcomes[:cut])
        second = PerformanceBook(CONFIG, FACTS)
        state = first.state()
        second.restore(state, lambda after: (it for it in outcomes if it.seq > after))
        assert second.state() == state
        for resolved in outcomes[cut:]:
            second.update(resolved)
        now = closes(4_750)
        for ours, theirs in zip(second.snapshot(now), whole.snapshot(now), strict=True):
            assert (ours.key, ours.window, ours.count) == (theirs.key, theirs.window, theirs.count)
            assert_same(ours.metrics, theirs.metrics)

    def test_what_has_to_be_counted_again_is_bounded(self) -> None:
        """The regime of the first days, and a model that is gone, hold nothing back for ever."""
        early = [replace(it, outcome=replace(it.outcome, regime="unknown")) for it in stream(50)]
        rest = stream(9_000, model="c" * 64)[50:]
        book = book_of([*early, *rest], Performance(counts=[7, 40], spans=["6h", "2d"]))
        assert book.state()["after"] > 7_000
        assert not [key for key in book.keys if key.model == MODEL]


class TestWriting:
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        opened = Database.open(f"sqlite:///{tmp_path / 'windows.db'}", durable=False)
        yield opened
        opened.close()

    def test_rows_are_the_snapshot_and_the_newest_of_each_key_is_kept_apart(self, url: str) -> None:
        database = Database.open(url)
        outcomes, book = stream(60), PerformanceBook(CONFIG, FACTS)
        for resolved in outcomes:
            book.update(resolved)
            with database.write() as connection:
                book.write(connection, MARKET, closes(resolved.seq // 2))
        with database.read() as connection:
            rows = connection.execute(select(PerformanceWindowRow.__table__).order_by(PerformanceWindowRow.seq)).all()
            newest = connection.execute(select(PerformanceNewestRow.__table__)).all()
        last = {(row.model, row.symbol, row.regime, row.arm, row.window): row for row in rows}
        assert len(newest) == len(last) and len(rows) > len(newest)
        for row in newest:
            same = last[(row.model, row.symbol, row.regime, row.arm, row.window)]
            assert (row.as_of, row.count, row.metrics) == (same.as_of, same.count, same.metrics)
        row = last[(MODEL, "*", "*", "*", "n:40")]
        held = in_window(outcomes[: row.outcome_seq], Key(MODEL), "n:40", row.as_of)
        assert_same(row.metrics, recomputed(held))
        assert row.count == len(held)
        database.close()

    def test_a_window_is_written_again_after_so_many_outcomes_or_a_tenth_of_it(self, database: Database) -> None:
        config = Performance(counts=[10, 100], spans=["90d"], every=5)
        book, seen = PerformanceBook(config, FACTS), {"n:10": [], "n:100": []}  # type: ignore[var-annotated]
        for resolved in stream(400, symbols=("AAA",)):
            book.update(resolved)
            with database.write() as connection:
                book.write(connection, MARKET, closes(resolved.seq))
        with database.read() as connection:
            query = select(PerformanceWindowRow.window, PerformanceWindowRow.outcome_seq)
            mine = query.where(PerformanceWindowRow.symbol == "*", PerformanceWindowRow.regime == "*")
            for window, seq in connection.execute(mine.where(PerformanceWindowRow.arm == "*")):
                seen.setdefault(window, []).append(seq)
        assert seen["n:10"] == list(range(5, 401, 5))
        assert set(np.diff(seen["n:100"][-20:]).tolist()) == {10}

    def test_nothing_new_nothing_written_and_a_restatement_is_new(self, database: Database) -> None:
        outcomes = stream(20)
        book = book_of(outcomes)
        with database.write() as connection:
            assert book.write(connection, MARKET, closes(10)) > 0
            assert book.write(connection, MARKET, closes(10)) == 0
            book.restate(outcomes[19])
            assert book.write(connection, MARKET, closes(10)) > 0

    def test_a_restored_book_does_not_write_what_was_written(self, database: Database) -> None:
        outcomes = stream(40)
        first, second = book_of(outcomes), PerformanceBook(CONFIG, FACTS)
        with database.write() as connection:
            first.write(connection, MARKET, closes(20))
        second.restore(first.state(), lambda after: outcomes[after:])
        with database.write() as connection:
            assert second.write(connection, MARKET, closes(20)) == 0
            total = connection.execute(select(func.count()).select_from(PerformanceWindowRow)).scalar_one()
        assert total == len(first.snapshot(closes(20)))


def test_parameters_change_the_windows_and_the_interval() -> None:
    outcomes = stream(60)
    narrow = book_of(outcomes, Performance(counts=[9], spans=["3h"], confidence=0.5)).snapshot(closes(30))
    wide = book_of(outcomes, Performance(counts=[9], spans=["3h"], confidence=0.99)).snapshot(closes(30))
    assert {row.window for row in narrow} == {"n:9", "t:3h"}
    spread = [row.metrics["accuracy_high"] - row.metrics["accuracy_low"] for row in (narrow[0], wide[0])]  # type: ignore[operator]
    assert spread[0] < spread[1]


def test_facts_come_from_the_market() -> None:
    params = load_params(Layout(Path(__file__).resolve().parents[2]).params)
    daily = MarketFacts.of(params)
    assert (daily.horizon, daily.cost_bps) == (params.labels.horizon, params.evaluate.cost_bps)
    assert 251 < daily.bars_per_year < 253
    hourly = Params.model_validate(params.model_dump() | {"market": "synthetic"})
    assert MarketFacts.of(hourly).bars_per_year == pytest.approx(24 * 365.2, rel=1e-3)


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (5, 5), (60, 100)])
def test_wilson_interval_solves_its_equation(successes: int, count: int) -> None:
    """Its ends are the shares p that are just z standard errors of p away from what was seen."""
    low, high = wilson(successes, count, 0.95)
    for end in (low, high):
        assert end is not None
        assert abs(successes / count - end) == pytest.approx(1.959963985 * math.sqrt(end * (1 - end) / count), abs=1e-6)
    assert HOUR.total_seconds() == 3600 and wilson(0, 0, 0.95) == (None, None)
