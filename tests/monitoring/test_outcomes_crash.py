"""The process that finds outcomes is killed again and again while predictions are being logged."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time

import pandas as pd
from sqlalchemy import select

from tests.outcomes import MARKET, Desk, log, logged, resolve_for_ever
from tradeloop.labels import compute_labels
from tradeloop.monitoring.accounts import check, count
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRow, PredictionRow

KILLS = 8
SYMBOLS = ("AAA", "BBB")


def test_nothing_is_lost_or_doubled_by_kills_at_any_moment(url: str) -> None:
    # Its children begin with the modules, and with no connection of anybody's.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.outcomes"])
    draw = random.Random(0)
    database = Database.open(url, busy_timeout=30)
    logged_ids: list[str] = []
    for kill in range(KILLS):
        ready = context.Event()
        process = context.Process(target=resolve_for_ever, args=(url, SYMBOLS, 40 * kill, ready))
        process.start()
        assert ready.wait(60)
        deadline = time.monotonic() + draw.uniform(0.0, 0.6)
        while time.monotonic() < deadline:
            time.sleep(0.005)
            some = [logged(draw.randrange(399), draw.choice(SYMBOLS)) for _ in range(draw.randrange(1, 20))]
            log(database, some)
            logged_ids += [it.id for it in some]
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it failed before it was killed"
    desk = Desk(database, symbols=SYMBOLS)
    desk.at(399)
    found_by_the_killed = list(desk.resolver.replay(0))
    told = found_by_the_killed + desk.resolver.advance()

    assert len(found_by_the_killed) > len(logged_ids) / 10
    assert sorted(it.prediction.id for it in told) == sorted(logged_ids)
    assert check(database, MARKET) == [] and count(database, MARKET).resolved == len(logged_ids)
    labels = {symbol: compute_labels(bars, desk.labels).set_index("timestamp") for symbol, bars in desk.bars.items()}
    query = select(OutcomeRow, PredictionRow.feature_time).join(
        PredictionRow, PredictionRow.id == OutcomeRow.prediction_id
    )
    with database.read() as connection:
        for row in connection.execute(query):
            assert row.ret == labels[row.symbol].loc[pd.Timestamp(row.feature_time), "return"]
    questions = {(it.prediction.symbol, it.prediction.feature_time) for it in told}
    assert sum(not it.outcome.repeat for it in told) == len(questions)
    database.close()
