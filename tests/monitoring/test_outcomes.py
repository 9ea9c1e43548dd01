from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select

from tests.outcomes import HOUR, MARKET, Desk, closes, log, logged, random_bars, row_of
from tradeloop.bars import Bars
from tradeloop.config import Labels, Outcomes
from tradeloop.errors import StoreError
from tradeloop.labels import compute_labels
from tradeloop.monitoring.accounts import check, count
from tradeloop.monitoring.ending import Ending
from tradeloop.monitoring.ledger import Ledger, Superseded
from tradeloop.monitoring.records import Logged, Resolved
from tradeloop.monitoring.regimes import REGIMES, regime_codes
from tradeloop.predictor import new_ids
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRevisionRow, OutcomeRow, PredictionRow


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an empty database that does not wait for the disk; `either` is for what may depend on the kind."""
    opened = Database.open(f"sqlite:///{tmp_path / 'outcomes.db'}", durable=False)
    yield opened
    opened.close()


@pytest.fixture
def either(url: str) -> Iterator[Database]:
    opened = Database.open(url, busy_timeout=30)
    yield opened
    opened.close()


def stored(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(OutcomeRow.__table__).order_by(OutcomeRow.seq)).all())


def statuses(database: Database) -> dict[str, tuple[str, str | None]]:
    return {row.prediction_id: (row.status, row.reason) for row in stored(database)}


def without(bars: Bars, bar: int) -> Bars:
    """Return the bars without one of them."""
    keep = np.delete(np.arange(len(bars)), bar)
    series = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.symbol, bars.timestamp[keep], *(values[keep] for values in series))


def changed(bars: Bars, bar: int, factor: float) -> Bars:
    """Return the bars with other prices in one of them."""
    factors = np.ones(len(bars))
    factors[bar] = factor
    prices = (bars.open, bars.high, bars.low, bars.close)
    return Bars(bars.symbol, bars.timestamp, *(values * factors for values in prices), bars.volume)


class TestResolving:
    @pytest.mark.parametrize("horizon", [1, 3])
    @pytest.mark.parametrize("entry", ["close", "next_open"])
    def test_labels_are_those_of_the_whole_history(self, database: Database, horizon: int, entry: str) -> None:
        desk = Desk(database, symbols=("AAA", "BBB"), labels=Labels(horizon=horizon, entry=entry))
        found: list[Resolved] = []
        for bar in range(20, 300, 28):
            desk.at(bar)
            log(database, [logged(bar, symbol) for symbol in desk.bars])
            found += desk.resolver.advance()
        desk.at(399)
        found += desk.resolver.advance()
        assert len(found) == 20
        for symbol, bars in desk.bars.items():
            whole = compute_labels(bars, desk.labels).set_index("timestamp")
            codes = regime_codes(bars, desk.config.regimes)
            mine = [resolved for resolved in found if resolved.prediction.symbol == symbol]
            assert len(mine) == 10
            for resolved in mine:
                outcome, time = resolved.outcome, pd.Timestamp(resolved.prediction.feature_time)
                label = whole.loc[time]
                assert outcome.label_end == label["label_end"]
                assert (outcome.direction, outcome.ret, outcome.range) == (
                    label["direction"],
                    label["return"],
                    label["range"],
                )
                assert outcome.regime == REGIMES[codes[whole.index.get_loc(time)]]
        for row, resolved in zip(stored(database), sorted(found, key=lambda it: it.seq), strict=True):
            assert row.ret == resolved.outcome.ret and row.seq == resolved.seq
            assert np.isclose(np.log(row.exit_price / row.entry_price), row.ret, rtol=0, atol=1e-12)

    def test_resolves_once_the_label_has_ended_and_not_before(self, database: Database) -> None:
        desk = Desk(database, labels=Labels(horizon=2))
        desk.at(10)
        prediction = logged(10)
        log(database, [prediction])
        assert desk.resolver.advance() == []
        desk.clock.time = closes(12) - timedelta(microseconds=1)
        assert desk.resolver.advance() == [] and desk.resolver.pending == 1
        desk.at(12)
        (resolved,) = desk.resolver.advance()
        assert resolved.prediction == prediction and resolved.outcome.label_end == closes(12)
        assert resolved.outcome.resolved_at == closes(12) and resolved.outcome.revision == 0
        assert desk.resolver.advance() == [] and desk.resolver.pending == 0

    def test_numbers_follow_the_labels_end_and_then_the_id(self, either: Database) -> None:
        desk = Desk(either, symbols=("BBB", "AAA"))
        predictions = [logged(bar, symbol) for bar in (30, 10, 20) for symbol in ("BBB", "AAA")]
        log(either, predictions)
        desk.at(200)
        found = desk.resolver.advance()
        order = sorted(predictions, key=lambda it: (it.feature_time, it.id))  # type: ignore[arg-type, return-value]
        assert [resolved.prediction for resolved in found] == order
        assert [resolved.seq for resolved in found] == list(range(1, 7))

    def test_what_was_withheld_is_void_at_once(self, database: Database) -> None:
        desk = Desk(database)
        withheld = [logged(10, p_up=None, ret=None, range=None), logged(None, p_up=None, ret=None, range=None)]
        log(database, withheld)
        assert desk.resolver.advance() == []
        assert statuses(database) == {it.id: ("void", "withheld") for it in withheld}

    def test_repeats_of_a_question_are_marked(self, either: Database) -> None:
        desk = Desk(either)
        ids = new_ids(6)
        asked = [
            logged(10, id=ids[0]),
            logged(10, id=ids[1]),
            logged(10, id=ids[2], arm="shadow", answered=False, parent=ids[0]),
            logged(10, id=ids[3], model="c" * 64),
            logged(11, id=ids[4]),
        ]
        log(either, asked)
        desk.at(50)
        found = {it.prediction.id: it.outcome.repeat for it in desk.resolver.advance()}
        assert [found[it.id] for it in asked] == [False, True, False, False, False]
        log(either, [logged(10, id=ids[5])])  # long after its outcome is known, and by another process
        (late,) = desk.another().advance()
        assert late.outcome.repeat

    def test_noted_predictions_are_not_read_but_count_only_once_logged(self, database: Database) -> None:
        desk = Desk(database)
        first, second = logged(10), logged(11)
        desk.resolver.note([first, second])
        desk.at(60)
        assert desk.resolver.advance() == []
        log(database, [first])
        seen: list[str] = []
        event.listen(database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
        (resolved,) = desk.resolver.advance()
        assert resolved.prediction is first
        assert not [statement for statement in seen if "p_up" in statement]

    def test_other_markets_are_left_alone(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(10)], market="elsewhere")
        desk.at(60)
        assert desk.resolver.advance() == []
        assert count(database, "elsewhere").pending == 1


class TestExpiry:
    CONFIG = Outcomes(expire_after="10h")

    def halted(self, database: Database) -> Desk:
        """Return a desk on which AAA has no bars after 20, while BBB goes on."""
        desk = Desk(database, symbols=("AAA", "BBB"), config=self.CONFIG)
        desk.feed.put(desk.bars["AAA"][:21])
        return desk

    def test_expires_when_bars_of_others_show_that_time_has_passed(self, either: Database) -> None:
        desk = self.halted(either)
        waits = logged(20)
        log(either, [waits])
        desk.at(30)
        assert desk.resolver.advance() == [] and statuses(either) == {}
        desk.at(31)
        assert desk.resolver.advance() == []
        assert statuses(either) == {waits.id: ("expired", "no_bars")}

    def test_patience_is_a_parameter(self, database: Database) -> None:
        desk = self.halted(database)
        desk.config = Outcomes(expire_after="20h")
        log(database, [logged(20)])
        desk.at(31)
        desk.another().advance()
        assert statuses(database) == {}

    def test_bars_that_come_late_still_resolve_and_those_after_expiry_change_nothing(self, database: Database) -> None:
        desk = self.halted(database)
        early, late = logged(18), logged(20)
        log(database, [early, late])
        desk.at(28)
        assert [it.prediction for it in desk.resolver.advance()] == [early]
        desk.feed.put(desk.bars["AAA"])
        assert [it.prediction for it in desk.resolver.advance()] == [late]

        other = self.halted(database)
        other.at(31)
        gone = logged(20)
        log(database, [gone])
        other.resolver.advance()
        other.feed.put(other.bars["AAA"])
        assert other.resolver.advance() == [] and other.another().advance() == []
        assert statuses(database)[gone.id] == ("expired", "no_bars")

    def test_a_clock_that_jumps_ahead_expires_nothing_and_one_set_back_undoes_nothing(self, database: Database) -> None:
        desk = Desk(database, config=self.CONFIG)
        desk.feed.put(desk.bars["AAA"][:31])
        log(database, [logged(25), logged(30)])
        desk.at(30)
        assert len(desk.resolver.advance()) == 1
        desk.at(100_000)  # years ahead, and no bar shows it
        assert desk.resolver.advance() == [] and desk.resolver.pending == 1
        desk.at(5)
        assert desk.resolver.advance() == [] and len(stored(database)) == 1
        desk.feed.put(desk.bars["AAA"])
        assert desk.resolver.advance() == [] and desk.resolver.restated == []
        desk.at(31)
        assert len(desk.resolver.advance()) == 1 and check(database, MARKET) == []

    def test_in_a_silent_market_the_clock_has_to_run_on(self, database: Database) -> None:
        desk = Desk(database, config=self.CONFIG, size=21)
        log(database, [logged(20)])
        for bar in range(21, 41):
            desk.at(bar)
            desk.resolver.advance()
            assert statuses(database) == {}
        desk.at(41)
        desk.resolver.advance()
        assert [status for status, _ in statuses(database).values()] == ["expired"]


class TestRestatement:
    def test_other_prices_with_the_same_label_revise_nothing(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(10), logged(12)])
        desk.at(60)
        desk.resolver.advance()
        desk.feed.put(changed(desk.bars["AAA"], 11, 1.01))  # both ends of the trade move alike
        assert desk.resolver.advance() == [] and desk.resolver.restated == []

    @pytest.fixture
    def revised(self, either: Database) -> tuple[Desk, Resolved, Resolved]:
        desk = Desk(either)
        log(either, [logged(10), logged(12)])
        desk.at(60)
        before, _ = desk.resolver.advance()
        bars = desk.bars["AAA"]
        close = bars.close.copy()
        close[11] = bars.low[11]
        desk.feed.put(replace(bars, close=close))
        assert desk.resolver.advance() == []
        (after,) = desk.resolver.restated
        return desk, before, after

    def test_new_values_are_the_labels_of_the_new_bars(
        self, either: Database, revised: tuple[Desk, Resolved, Resolved]
    ) -> None:
        desk, before, after = revised
        label = compute_labels(desk.feed.bars("AAA"), desk.labels).iloc[10]
        assert (after.outcome.ret, after.outcome.direction) == (label["return"], label["direction"])
        assert after.outcome.ret != before.outcome.ret and after.outcome.revision == 1
        assert stored(either)[0].ret == after.outcome.ret and stored(either)[1].revision == 0
        with either.read() as connection:
            (past,) = connection.execute(select(OutcomeRevisionRow.__table__)).all()
        assert (past.prediction_id, past.revision, past.ret) == (before.prediction.id, 0, before.outcome.ret)
        assert next(it.outcome for it in desk.resolver.replay(0)) == after.outcome

    def test_the_same_restatement_is_told_once(self, revised: tuple[Desk, Resolved, Resolved]) -> None:
        desk, _, _ = revised
        desk.resolver.advance()
        assert desk.resolver.restated == []
        fresh = desk.another()
        fresh.advance()
        assert fresh.restated == []

    def test_a_restatement_while_nobody_looked_is_found_at_the_start(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(10)])
        desk.at(60)
        desk.resolver.advance()
        bars = desk.bars["AAA"]
        desk.feed.put(replace(bars, close=np.where(np.arange(len(bars)) == 11, bars.low, bars.close)))
        fresh = desk.another()
        fresh.advance()
        assert [it.outcome.revision for it in fresh.restated] == [1]

    def test_back_adjusting_all_prices_restates_nothing(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(bar) for bar in range(10, 40)])
        desk.at(60)
        desk.resolver.advance()
        desk.feed.put(changed(desk.bars["AAA"], slice(None), 0.333333))  # type: ignore[arg-type]
        desk.resolver.advance()
        assert desk.resolver.restated == []

    def test_old_outcomes_are_left_alone(self, database: Database) -> None:
        desk = Desk(database, config=Outcomes(restate_within="20h"))
        log(database, [logged(10), logged(50)])
        desk.at(60)
        desk.resolver.advance()
        bars = desk.bars["AAA"]
        desk.feed.put(replace(bars, close=bars.low.copy()))
        desk.resolver.advance()
        assert [it.prediction.feature_time for it in desk.resolver.restated] == [closes(50)]

    def test_an_outcome_whose_bars_are_not_all_there_is_left_alone(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(10)])
        desk.at(60)
        (before,) = desk.resolver.advance()
        desk.feed.put(changed(desk.bars["AAA"], 11, 1.01))
        desk.at(10)  # set back: the bar is there, the one after it is not yet
        assert desk.resolver.advance() == [] and desk.resolver.restated == []
        assert list(desk.resolver.replay(0)) == [before]

    def test_a_bar_that_is_gone_makes_what_waits_void_and_leaves_what_has_ended(self, database: Database) -> None:
        desk = Desk(database)
        ended, waits = logged(10), logged(20)
        log(database, [ended, waits])
        desk.at(20)
        desk.resolver.advance()
        desk.feed.put(without(without(desk.bars["AAA"], 20), 10))
        desk.at(21)
        desk.resolver.advance()
        assert statuses(database) == {ended.id: ("resolved", None)}  # bar 21 may still be the one after a late bar 20
        desk.at(22)
        assert desk.resolver.advance() == []
        assert statuses(database)[waits.id] == ("void", "no_bar")


class TestNothingIsLost:
    def test_a_prediction_committed_late_under_an_old_id_is_found(self, either: Database) -> None:
        desk = Desk(either)
        old, new = (logged(10, id=each) for each in new_ids(2))
        if either.engine.dialect.name == "postgresql":  # its row number is older too
            slow = either.engine.connect()
            slow.execute(insert(PredictionRow), [row_of(old)])
            log(either, [new])
            desk.at(60)
            assert [it.prediction for it in desk.resolver.advance()] == [new]
            slow.commit()
            slow.close()
        else:
            log(either, [new])
            desk.at(60)
            assert [it.prediction for it in desk.resolver.advance()] == [new]
            log(either, [old])
        (found,) = desk.resolver.advance()
        assert found.prediction == old and found.outcome.repeat
        assert check(either, MARKET) == []

    def test_many_writers_and_two_resolvers(self, either: Database) -> None:
        """Every prediction ends once, and each resolver tells of every outcome once and in order."""
        desk = Desk(either, symbols=("AAA", "BBB"))
        desk.at(300)
        done = threading.Event()
        told: list[list[int]] = [[], []]
        failures: list[BaseException] = []

        def write(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(10):
                some = [logged(int(bar), "AAA" if bar % 2 else "BBB") for bar in rng.integers(0, 300, 4)]
                log(either, some)

        def resolve(into: list[int]) -> None:
            resolver = desk.another()
            try:
                while True:
                    last = done.is_set()
                    try:
                        into += [it.seq for it in resolver.advance()]
                    except StoreError:  # the other one was faster five times: call again
                        continue
                    if last:
                        return
            except BaseException as error:
                failures.append(error)

        resolvers = [threading.Thread(target=resolve, args=(into,)) for into in told]
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in resolvers + writers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in resolvers:
            thread.join()
        assert not failures
        counts = count(either, MARKET)
        assert (counts.logged, counts.resolved, counts.pending) == (160, 160, 0) and check(either, MARKET) == []
        everything = [row.seq for row in stored(either)]
        assert len(everything) == 160
        for seqs in told:  # one may have finished before the other's last batch
            assert seqs == everything[: len(seqs)]
        assert max(map(len, told)) == 160

    def test_a_database_that_fails_loses_and_doubles_nothing(
        self, either: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The commit may have happened although the caller got an error."""
        desk = Desk(either)
        predictions = [logged(bar) for bar in range(10, 30)]
        log(either, predictions)
        real = desk.resolver._ledger.write
        told: list[Resolved] = []

        def fail(when: str) -> Callable[..., Any]:
            def write(*args: Any, **options: Any) -> Any:
                if when == "after":
                    real(*args, **options)
                raise StoreError("gone for a minute")

            return write

        for bar, when in ((12, "before"), (15, "after"), (20, "before"), (25, "after")):
            desk.at(bar)
            monkeypatch.setattr(desk.resolver._ledger, "write", fail(when))
            with pytest.raises(StoreError):
                desk.resolver.advance()
            monkeypatch.setattr(desk.resolver._ledger, "write", real)
            told += desk.resolver.advance()
        desk.at(40)
        told += desk.resolver.advance()
        assert [it.prediction for it in told] == predictions
        assert [it.seq for it in told] == [row.seq for row in stored(either)]

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(plan=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8), st.booleans()), min_size=1, max_size=25))
    def test_any_order_of_asking_gives_the_same_outcomes(
        self, tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, int, bool]]
    ) -> None:
        """Turn by turn, with restarts in between, gives what one turn at the end gives."""
        found: list[set[tuple[Any, ...]]] = []
        predictions = [(bar, step, again, logged(bar)) for bar, step, again in plan]
        for stepwise in (True, False):
            database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('db') / 'x.db'}", durable=False)
            desk = Desk(database, size=120)
            told: list[Resolved] = []
            bar = 0
            for _, step, again, prediction in predictions:
                log(database, [prediction])
                bar += step
                if stepwise:
                    desk.at(min(bar, 119))
                    if again:
                        desk.resolver = desk.another()
                    told += desk.resolver.advance()
            desk.at(119)
            told += desk.resolver.advance()
            assert sorted(it.prediction.id for it in told) == sorted(it[-1].id for it in predictions)
            found.append({(it.prediction.id, it.outcome.ret, it.outcome.range, it.outcome.regime) for it in told})
            assert sum(not it.outcome.repeat for it in told) == len({it[0] for it in predictions})
            database.close()
        assert found[0] == found[1]


class TestLedger:
    def ending(self, ledger: Ledger) -> Ending:
        ((ticket, found),) = ledger.pending()
        return Ending(ticket, ledger.read([found])[found], "void", closes(0), "withheld")

    def test_writes_nothing_when_there_are_outcomes_that_the_caller_does_not_know(self, either: Database) -> None:
        desk, ledger = Desk(either), Ledger(either, MARKET)
        log(either, [logged(10)])
        desk.at(60)
        desk.resolver.advance()
        log(either, [logged(100)])
        with pytest.raises(Superseded):
            ledger.write([self.ending(ledger)], after=0)
        assert len(stored(either)) == 1 and count(either, MARKET).pending == 1
        (written,) = ledger.write([self.ending(ledger)], after=1)
        assert written.seq == 2 and check(either, MARKET) == []

    def test_writes_nothing_when_one_of_them_is_not_pending_any_more(self, either: Database) -> None:
        ledger = Ledger(either, MARKET)
        log(either, [logged(10)])
        ending = self.ending(ledger)
        with pytest.raises(Superseded):
            ledger.write([ending, replace(ending, ticket=ending.ticket + 1)], after=0)
        assert stored(either) == [] and count(either, MARKET).pending == 1


class TestReplay:
    def test_gives_what_was_told_after_a_number(self, either: Database) -> None:
        desk = Desk(either)
        log(either, [logged(bar) for bar in range(10, 20)] + [logged(None, p_up=None)])
        desk.at(60)
        told = desk.resolver.advance()
        assert list(desk.resolver.replay(0)) == told
        assert list(desk.another().replay(told[3].seq)) == told[4:]

    def test_leaves_to_advance_what_advance_will_tell(self, database: Database) -> None:
        desk = Desk(database)
        log(database, [logged(10)])
        desk.at(60)
        early, late = desk.another(), desk.another()
        (first,) = early.advance()
        assert list(late.replay(0)) == []
        assert late.advance() == [first]
        assert list(late.replay(0)) == [first]


def test_turns_of_unrelated_bars_cost_no_lookups(database: Database) -> None:
    """Ten thousand that wait for their label are not looked through again at every turn."""
    desk = Desk(database, labels=Labels(horizon=100), size=300)
    log(database, [logged(100) for _ in range(2_000)])
    desk.at(110)
    desk.resolver.advance()
    calls: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: calls.append(args[2]))
    desk.at(111)
    desk.resolver.advance()
    assert calls == [] and desk.resolver.pending == 2_000


def test_predictions_are_the_same_read_or_noted(database: Database) -> None:
    prediction = logged(10, edge=None, side=None, latency=None)
    log(database, [prediction])
    desk = Desk(database)
    desk.at(60)
    (resolved,) = desk.resolver.advance()
    assert resolved.prediction == prediction
    assert Logged.of(prediction) == prediction  # type: ignore[arg-type]  # it has the same attributes
    assert closes(0) - HOUR == closes(-1) and len(random_bars("AAA", 3)) == 3
