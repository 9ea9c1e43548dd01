"""``kill -9`` at any moment leaves every change whole or not begun, and the next process goes on from there."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime

from sqlalchemy import select

from tests.conftest import ROOT
from tests.test_lifecycle import check
from tradeloop.lifecycle import Lifecycle
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.tables import ModelEventRow, ModelVersionRow

KILLS = 12
# Forks one worker after another, which registers, stages, promotes and rolls back until it is killed.
WORKERS = """
import os, random, signal, sys, time
from datetime import UTC, datetime
from tradeloop.errors import RegistryError
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.version_facts import VersionFacts

why = {"actor": "worker", "reason": "because"}
facts = VersionFacts("s" * 64, datetime(2020, 1, 1, tzinfo=UTC), 1, {}, {})

def work(turn, ready):
    registry = Registry(Database.open(sys.argv[1]), "us_daily")
    registry.champion()
    os.write(ready, b".")
    for route in registry.state().routes:  # what the one before was killed over
        registry.unstage(route.model, **why)
    number = 0
    while True:
        model = f"{turn:032x}{number:032x}"
        registry.register(model, version=model, passed=True, facts=facts, **why)
        champion = registry.champion()
        if champion is not None:
            registry.stage(model, mode="canary", share=0.5, **why)
        registry.promote(model, expected_champion=champion.hash if champion else None, **why)
        if champion is not None:
            registry.stage(champion.hash, mode="shadow", **why)
            registry.rollback(expected_champion=model, **why)
        number += 1

rng = random.Random(20130301)
Database.open(sys.argv[1]).close()  # imports the driver once for all
for turn in range(int(sys.argv[2])):
    begun, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(turn, ready)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    os.read(begun, 1)
    time.sleep(rng.uniform(0.02, 0.3))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "a worker failed"
"""


def test_a_kill_leaves_no_half_change(url: str, database: Database) -> None:
    command = [sys.executable, "-c", WORKERS, url, str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    registry = Registry(database, "us_daily")
    history = registry.events()
    assert len(history) > 2 * KILLS
    with database.read() as connection:
        versions = set(connection.execute(select(ModelVersionRow.model)).scalars())
        numbers = connection.execute(select(ModelEventRow.seq).order_by(ModelEventRow.seq)).scalars().all()
    assert versions == {event.model for event in history if event.kind == "registered"}
    assert list(numbers) == sorted(set(numbers))
    state = Lifecycle()
    for event in history:
        left = state.champion
        if event.kind in ("promoted", "rolled_back"):
            assert event.previous == (left.hash if left else None)  # decided on what was so when it was written
        state.apply(event)
        check(state)
    # What the last one left half done, the next one finishes; nothing is locked.
    started = time.monotonic()
    model = f"{random.Random(1).getrandbits(256):064x}"
    registry.register(model, passed=True, actor="next", reason="after the kills")
    registry.promote(model, actor="next", reason="after the kills")
    champion = registry.served("AAPL", datetime.now(UTC))
    assert champion is not None and champion.hash == model
    assert time.monotonic() - started < 5
