"""Models that only watch: the very rows of the answer, in threads of their own, and no harm to anybody."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from tests.bundles import NAMES, NOW, SYMBOLS, tiny_bundle, tiny_rows, tiny_schema
from tradeloop.bundle import Bundle
from tradeloop.errors import StoreError
from tradeloop.prediction_log import PredictionLog, unpack
from tradeloop.predictor import Prediction, Predictor
from tradeloop.routes import Route
from tradeloop.serving import watchers as module
from tradeloop.serving.breaker import FAILURES, Breaker
from tradeloop.serving.champion import Loaded
from tradeloop.serving.lineup import Challenger, Lineup
from tradeloop.serving.pace import Pace
from tradeloop.serving.questions import Question
from tradeloop.serving.watchers import Watcher, Watchers
from tradeloop.state.database import Database
from tradeloop.state.feature_rows import OnlineRows
from tradeloop.state.tables import PredictionRow

WEEK = timedelta(days=7)
BUDGET = 5.0


@dataclass
class Tally:
    """Remembers what it hears."""

    made: Counter[str] = field(default_factory=Counter)
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def watched(self, version: str, _arm: str, count: int, _seconds: float) -> None:
        self.made[version] += count

    def dropped(self, version: str, why: str, count: int) -> None:
        self.drops[version, why] += count

    def failed(self, version: str, reason: str) -> None:
        self.failures.append((version, reason))

    def fell_back(self, *_: object) -> None:
        raise AssertionError("nobody who watches answers")


class Broken:
    """An ensemble that fails, hangs until told otherwise, or answers after a while."""

    def __init__(self, bundle: Bundle, how: Callable[[], None]) -> None:
        self._ensemble, self._how = bundle.ensemble, how

    def forecast(self, x: Any) -> Any:
        self._how()
        return self._ensemble.forecast(x)


@dataclass
class Bench:
    """A champion, challengers by number, and everything that a watcher needs."""

    root: Path
    database: Database
    log: PredictionLog
    tally: Tally = field(default_factory=Tally)
    read: Callable[..., OnlineRows] | None = None
    most: int = 1000
    pace: Pace = field(default_factory=Pace)
    watchers: Watchers = field(init=False)

    def __post_init__(self) -> None:
        self.watchers = Watchers(self.make, BUDGET)
        self.champion = self.model(0)

    def model(self, seed: int, how: Callable[[], None] | None = None, **facts: Any) -> Loaded:
        bundle = tiny_bundle(self.root / f"{seed}-{len(facts)}", seed=seed, **facts)
        if how is not None:
            bundle = replace(bundle, ensemble=Broken(bundle, how))  # type: ignore[arg-type]  # quacks like one
        return Loaded(Predictor(bundle), bundle.version)

    def make(self, model: Loaded, arm: Any, breaker: Breaker) -> Watcher:
        def read(*asked: Any) -> OnlineRows:
            assert self.read is not None, "the answer's own rows were to be used"
            return self.read(*asked)

        return Watcher(
            model,
            arm,
            breaker,
            writer=self.log,
            read=read,
            tally=self.tally,
            pace=self.pace,
            max_age=WEEK,
            most=self.most,
        )

    def lineup(self, *models: Loaded, mode: Any = "shadow", breaker: Breaker | None = None) -> Lineup:
        challengers = tuple(
            Challenger(one, Route(one.hash, one.version, mode, 0.0, NOW), breaker or Breaker(BUDGET)) for one in models
        )
        return Lineup("us_daily", self.champion, tuple(one.route for one in challengers), challengers)

    def follow(self, *models: Loaded, **how: Any) -> Lineup:
        lineup = self.lineup(*models, **how)
        self.watchers.follow(lineup)
        return lineup

    def ask(self, *symbols: str, seed: int = 0, by: Loaded | None = None) -> Question:
        """Answer as the engine does, log it, and show it to those who watch."""
        model = by or self.champion
        times = np.full(len(symbols), np.datetime64(NOW.replace(tzinfo=None), "us"))
        rows = OnlineRows.of(tiny_rows(len(symbols), len(model.schema), seed=seed), times)
        answers = model.predictor.predict(symbols, rows, now=NOW, max_age=WEEK, clock="replay")
        self.log.append(answers).result(timeout=10)
        question = Question(answers, rows, model.schema.hash, 0.0, None)
        self.watchers.offer(question)
        return question

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.tally, self.rows())
            time.sleep(0.01)

    def rows(self) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(select(PredictionRow.__table__).order_by(PredictionRow.id)).all())

    def watched(self) -> list[Any]:
        return [row for row in self.rows() if not row.answered]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = Database.open(f"sqlite:///{tmp_path / 'state.db'}")
    with PredictionLog(database) as log:
        made = Bench(tmp_path, database, log)
        yield made
        made.watchers.close()
    database.close()


def test_every_challenger_sees_every_answer_on_its_very_rows(bench: Bench) -> None:
    one, two = bench.model(1), bench.model(2)
    bench.follow(one, two)
    questions = [bench.ask("AAPL", "NOPE", "MSFT", seed=1), bench.ask("IBM", seed=2)]
    bench.until(lambda: len(bench.watched()) == 6)
    parents = {answer.id: answer for question in questions for answer in question.answered if answer.id}
    for row in bench.watched():
        parent = parents[row.parent]
        assert (row.symbol, row.feature_time, row.asked_at) == (parent.symbol, parent.feature_time, parent.asked_at)
        assert (row.arm, row.adaptation) == ("shadow", None)
        assert np.array_equal(unpack(row.features), parent.features)
        model = one if row.model == one.hash else two
        expected = model.bundle.forecast(parent.features[None, :])
        assert row.p_up == pytest.approx(expected.p_up[0], abs=1e-6)
        assert row.latency > 0
    assert Counter(row.model for row in bench.watched()) == {one.hash: 3, two.hash: 3}
    assert bench.tally.made == {one.version: 3, two.version: 3}
    assert not bench.tally.drops


def test_where_an_arm_answers_the_champion_watches(bench: Bench) -> None:
    canary = bench.model(1)
    bench.follow(canary, mode="canary")
    bench.ask("AAPL", by=canary)
    bench.ask("IBM")
    bench.until(lambda: len(bench.watched()) == 2)
    assert {(row.symbol, row.model, row.arm) for row in bench.watched()} == {
        ("AAPL", bench.champion.hash, "champion"),
        ("IBM", canary.hash, "canary"),
    }


def test_one_that_hangs_or_fails_touches_neither_the_answer_nor_the_others(bench: Bench) -> None:
    release = threading.Event()

    def fail() -> None:
        raise RuntimeError("broken weights")

    hung, failing, fine = bench.model(1, release.wait), bench.model(2, fail), bench.model(3)  # type: ignore[arg-type]
    bench.most = 10
    bench.follow(hung)
    bench.most = 1000
    bench.follow(hung, failing, fine)
    slowest = 0.0
    for seed in range(60):
        question = bench.ask("AAPL", seed=seed)
        started = time.perf_counter()
        bench.watchers.offer(replace(question, answered=[]))
        slowest = max(slowest, time.perf_counter() - started)
        time.sleep(0.002)
    bench.until(lambda: bench.tally.made[fine.version] == 60)
    bench.until(lambda: bench.tally.drops[failing.version, "breaker"] > 0)
    assert slowest < 1
    assert bench.tally.drops[hung.version, "queue"] >= 60 - 10 - module.BATCH_ROWS
    assert {version for version, _ in bench.tally.failures} == {failing.version}
    assert bench.tally.failures[0][1] == "RuntimeError: broken weights"
    assert bench.tally.drops[failing.version, "failure"] + bench.tally.drops[failing.version, "breaker"] == 60
    release.set()
    bench.until(lambda: bench.tally.made[hung.version] + bench.tally.drops[hung.version, "queue"] == 60)


def test_one_that_failed_gets_another_chance(bench: Bench) -> None:
    broken = threading.Event()
    broken.set()

    def how() -> None:
        if broken.is_set():
            raise RuntimeError("broken")

    now = [0.0]
    breaker = Breaker(BUDGET, lambda: now[0])
    model = bench.model(1, how)
    bench.follow(model, breaker=breaker)
    for number in range(FAILURES):
        bench.ask("AAPL")
        bench.until(lambda n=number: len(bench.tally.failures) == n + 1)  # type: ignore[misc]  # bound at once
    bench.ask("AAPL")
    assert bench.tally.drops[model.version, "breaker"] == 1
    broken.clear()
    now[0] += 1000
    bench.ask("AAPL")
    bench.until(lambda: breaker.closed)
    bench.ask("AAPL")
    bench.until(lambda: bench.tally.made[model.version] == 2)


def test_another_schema_means_its_own_rows_of_the_same_bar(bench: Bench) -> None:
    schema = tiny_schema((*NAMES, "one_more"))
    other = bench.model(1, schema=schema)
    asked: list[Any] = []

    def read(symbols: Sequence[str], of: Any, as_of: Any) -> OnlineRows:
        asked.append((tuple(symbols), of.hash, as_of))
        at = NOW - timedelta(days=len(asked) - 1)  # the second time its store is a day behind
        times = np.full(len(symbols), np.datetime64(at.replace(tzinfo=None), "us"))
        return OnlineRows.of(tiny_rows(len(symbols), len(schema), seed=7), times)

    bench.read = read
    bench.follow(other)
    bench.ask("AAPL", "IBM")
    bench.until(lambda: len(bench.watched()) == 2)
    assert asked == [(("AAPL", "IBM"), schema.hash, None)]
    assert {row.schema_hash for row in bench.watched()} == {schema.hash}
    bench.ask("AAPL")
    bench.until(lambda: bench.tally.drops[other.version, "other_bar"] == 1)
    assert len(bench.watched()) == 2


def test_rows_that_are_not_to_be_had_say_nothing_about_the_model(bench: Bench) -> None:
    other = bench.model(1, schema=tiny_schema((*NAMES, "one_more")))

    def read(*_: Any) -> OnlineRows:
        raise StoreError("the online store does not answer")

    bench.read = read
    lineup = bench.follow(other)
    for number in range(FAILURES + 1):
        bench.ask("AAPL")
        bench.until(lambda n=number: bench.tally.drops[other.version, "no_rows"] == n + 1)  # type: ignore[misc]
    assert lineup.challengers[0].breaker.closed and not bench.tally.failures


def test_many_symbols_are_watched_in_pieces(bench: Bench) -> None:
    sizes: list[int] = []
    bundle = tiny_bundle(bench.root / "many", seed=1)

    @dataclass
    class Counting:
        def forecast(self, x: Any) -> Any:
            sizes.append(len(x))
            return bundle.ensemble.forecast(x)

    model = Loaded(Predictor(replace(bundle, ensemble=Counting())), bundle.version)  # type: ignore[arg-type]
    bench.follow(model)
    bench.ask(*(SYMBOLS[i % 4] for i in range(100)))
    bench.until(lambda: bench.tally.made[model.version] == 100)
    assert max(sizes) <= module.BATCH_ROWS and len(sizes) < 20


def test_while_answers_are_under_way_they_wait_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.serving.pace.IDLE_SECONDS", 0.5)
    model = bench.model(1)
    bench.follow(model)
    bench.pace.begin()
    bench.pace.begin()
    started = time.monotonic()
    bench.ask("AAPL")
    bench.until(lambda: bench.tally.made[model.version] == 1)
    assert time.monotonic() - started >= 0.5
    bench.pace.end()
    started = time.monotonic()
    bench.ask("AAPL")
    threading.Timer(0.1, bench.pace.end).start()
    bench.until(lambda: bench.tally.made[model.version] == 2)
    assert 0.1 <= time.monotonic() - started < 0.45


def test_a_log_that_does_not_take_it_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.model(1)
    bench.follow(model)

    def refuse(_: Sequence[Prediction]) -> Any:
        raise StoreError("20,000 rows behind")

    monkeypatch.setattr(bench.log, "follow", refuse)
    bench.ask("AAPL", "IBM")
    bench.until(lambda: bench.tally.drops[model.version, "log"] == 2)


def test_who_leaves_stops_and_who_stays_goes_on(bench: Bench) -> None:
    before = threading.active_count()
    one, two = bench.model(1), bench.model(2)
    bench.follow(one, two)
    bench.ask("AAPL")
    bench.until(lambda: len(bench.watched()) == 2)
    bench.follow(two, mode="ab")
    bench.until(lambda: threading.active_count() == before + 2)  # the champion watches beside an arm
    bench.ask("IBM")
    bench.until(lambda: len(bench.watched()) == 3)
    assert bench.watched()[-1].arm == "ab"
    bench.watchers.close()
    assert threading.active_count() == before
