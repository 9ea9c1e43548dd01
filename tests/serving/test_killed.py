"""The service killed again and again while it answers: what was acknowledged is there, once, whatever the moment.

``TRADELOOP_KILLS=100`` kills a hundred times on each database; the service is the real app and engine on a real port,
forked from a process that has the imports behind it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from tests.conftest import ROOT
from tests.servers import Home, free_port, make_home
from tradeloop.bundle_store import BundleStore
from tradeloop.registry import Registry
from tradeloop.replay import replay
from tradeloop.state.tables import PendingRow, PredictionRow

KILLS = int(os.environ.get("TRADELOOP_KILLS", "15"))
CLIENTS = 4
SYMBOLS = ["AAPL", "IBM", "MSFT"]

SERVICE = """
import asyncio, contextlib, os, sys
import uvicorn
from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.serving.app import build_app
from tradeloop.serving.engine import Engine
from tradeloop.state.feast_import import import_feast

import_feast()

def serve(port):
    layout = Layout.current()
    app = build_app()
    app.state.engine = Engine(layout, load_params(layout.params))

    @contextlib.asynccontextmanager
    async def lifespan(_):
        watch = asyncio.create_task(app.state.engine.run())
        yield
        watch.cancel()

    app.router.lifespan_context = lifespan
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        serve(int(line))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


class Service:
    """Starts the service as often as it is killed."""

    def __init__(self, home: Home) -> None:
        self._log = (home.root / "service.log").open("wb")
        self._parent = subprocess.Popen(
            [sys.executable, "-c", SERVICE],
            cwd=ROOT,
            env=home.environment | {k: v for k, v in os.environ.items() if k == "TRADELOOP_DATABASE_URL"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.pid = 0

    def start(self) -> int:
        """Start it and return its port; it begins to answer some time later."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        port = free_port()
        self._parent.stdin.write(f"{port}\n")
        self._parent.stdin.flush()
        self.pid = int(self._parent.stdout.readline())
        return port

    def close(self) -> None:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(20)
        self._parent.stdout.close()
        self._log.close()


def ask(port: int, acknowledged: list[str], stop: threading.Event) -> None:
    """Ask without pause, from before the service listens until it is gone."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        while not stop.is_set():
            try:
                response = client.post("/predict", json={"symbols": SYMBOLS})
            except httpx.TransportError:
                time.sleep(0.01)
                continue
            if response.status_code == 200:
                acknowledged.extend(entry["prediction_id"] for entry in response.json()["predictions"])
            else:
                time.sleep(0.01)


def kill_once(service: Service, rng: random.Random, acknowledged: list[str]) -> None:
    stop = threading.Event()
    port = service.start()
    before = len(acknowledged)
    threads = [threading.Thread(target=ask, args=(port, acknowledged, stop)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    early = rng.random() < 0.15  # some die before they have answered anything
    while not early and len(acknowledged) == before:
        assert time.monotonic() < deadline, "the service does not answer"
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 0.8))
    os.kill(service.pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join(20)


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_no_answer_and_doubles_none(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADELOOP_DATABASE_URL", url)
    home = make_home(tmp_path / "home")
    database = home.database()
    registry = Registry(database, home.params.market)
    registry.stage(home.hashes[0], mode="shadow", actor="test", reason="tried")
    registry.stage(home.hashes[2], mode="canary", share=0.5, actor="test", reason="tried")
    acknowledged: list[str] = []
    rng = random.Random(20130301)
    service = Service(home)
    try:
        for _ in range(KILLS):
            kill_once(service, rng, acknowledged)
    finally:
        service.close()

    table = PredictionRow.__table__
    columns = (table.c.id, table.c.model, table.c.answered, table.c.parent)
    with database.read() as connection:
        rows = connection.execute(select(*columns)).all()
        pending = connection.execute(select(func.count()).select_from(PendingRow)).scalar_one()
    assert len(acknowledged) == len(set(acknowledged)) > 3 * KILLS
    answered = {row.id for row in rows if row.answered}
    assert set(acknowledged) <= answered, "an acknowledged prediction is lost"
    assert len(answered) % len(SYMBOLS) == 0, "a request was written in part"
    # At most one request of each client was on disk and not yet acknowledged when its service died.
    assert len(answered) - len(acknowledged) <= KILLS * CLIENTS * len(SYMBOLS)
    assert pending == len(rows)

    watched = [(row.model, row.parent) for row in rows if not row.answered]
    assert len(watched) == len(set(watched)), "a challenger's forecast is there twice"
    assert {parent for _, parent in watched} <= answered, "a challenger's forecast came before its answer"
    assert len(watched) > KILLS
    bundles = BundleStore(home.layout, home.params)
    sample = rng.sample([row.id for row in rows], 5)
    assert all(replay(prediction, database, bundles.get).matches for prediction in sample)
    database.close()
