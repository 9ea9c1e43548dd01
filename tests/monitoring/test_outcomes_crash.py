"""The process that finds outcomes is killed again and again while predictions are being logged."""

from __future__ import annotations

import os
import random
import signal
import time

import pandas as pd
from sqlalchemy import select

from tests.outcomes import MARKET, Desk, log, logged
from tradeloop.labels import compute_labels
from tradeloop.monitoring.accounts import check, count
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRow, PredictionRow

KILLS = 12
SYMBOLS = ("AAA", "BBB")


def resolve_until_killed(url: str, bar: int) -> int:
    """Start a process that resolves turn by turn from a bar on; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        desk = Desk(Database.open(url, busy_timeout=30), symbols=SYMBOLS)
        while True:
            desk.at(min(bar, 399))
            desk.resolver.advance()
            bar += 1
    finally:
        os._exit(1)


def test_nothing_is_lost_or_doubled_by_kills_at_any_moment(url: str) -> None:
    draw = random.Random(0)
    database = Database.open(url, busy_timeout=30)
    logged_ids: list[str] = []
    for kill in range(KILLS):
        pid = resolve_until_killed(url, 20 * kill)
        deadline = time.monotonic() + draw.uniform(0.05, 0.4)
        while time.monotonic() < deadline:
            some = [logged(draw.randrange(399), draw.choice(SYMBOLS)) for _ in range(draw.randrange(1, 20))]
            log(database, some)
            logged_ids += [it.id for it in some]
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "the resolving process failed before it was killed"
    desk = Desk(database, symbols=SYMBOLS)
    desk.at(399)
    found_by_the_killed = list(desk.resolver.replay(0))
    told = found_by_the_killed + desk.resolver.advance()

    assert len(found_by_the_killed) > len(logged_ids) / 4
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
