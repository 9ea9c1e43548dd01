"""What is left after `kill -9`: every answered prediction, and a state that the next start reads by itself."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.bundles import SYMBOLS
from tests.servers import Home, Server, make_home
from tradeloop.bundle_store import BundleStore
from tradeloop.replay import replay
from tradeloop.serving.answers import Answer

pytestmark = pytest.mark.xdist_group("server")


def ask_until_killed(server: Server, answered: list[str]) -> None:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        while True:
            try:
                response = client.post("/predict", json={"symbols": ["AAPL", "IBM"]})
            except httpx.TransportError:
                return
            answered.extend(entry["prediction_id"] for entry in response.json()["predictions"])


def kill_under_load(home: Home) -> list[str]:
    """Kill the whole server while eight clients ask; return the ids of all predictions that they got."""
    answered: list[str] = []
    with Server(home, TRADELOOP_TOKEN="") as server:
        server.wait_ready()
        refused = server.post("/rollback", {})
        assert refused.status_code == 403
        assert "TRADELOOP_TOKEN" in refused.json()["error"]
        threads = [threading.Thread(target=ask_until_killed, args=(server, answered), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(answered) <= 50:
            assert time.monotonic() < deadline, server.output[-3000:]
            time.sleep(0.05)
        time.sleep(0.5)
        server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join(20)
    return answered


def forget(home: Home, *symbols: str) -> None:
    """Delete rows from the online store."""
    with sqlite3.connect(home.layout.live / "feast" / "online.db") as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            for symbol in symbols:
                connection.execute(f'DELETE FROM "{name}" WHERE instr(entity_key, ?)', (symbol.encode(),))
    connection.close()


def test_killed_under_load_nothing_answered_is_lost_and_the_next_start_repairs_the_store(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    answered = kill_under_load(home)
    database = home.database()
    assert set(answered) <= _ids(home)
    bundles = BundleStore(home.layout, home.params)
    assert all(replay(prediction, database, bundles.get).matches for prediction in answered[-3:])
    database.close()

    forget(home, "AAPL", "MSFT")
    with Server(home) as server:
        server.wait_ready()
        assert (200, 503) in server.seen  # alive, and honest about not being ready
        answer = Answer.model_validate(server.predict(*SYMBOLS).json())
        assert all(entry.status == 200 and entry.p_up is not None for entry in answer.predictions)
        assert "lacked AAPL, MSFT of schema" in server.output
        assert set(answered) < _ids(home)
        server.process.kill()  # the supervisor alone: its worker must not go on holding the port
        deadline = time.monotonic() + 20
        while _listens(server):
            assert time.monotonic() < deadline, "the worker outlived its supervisor"
            time.sleep(0.1)


def _ids(home: Home) -> set[str]:
    connection = sqlite3.connect(home.layout.live / "tradeloop.db")
    try:
        return {row[0] for row in connection.execute("SELECT id FROM predictions")}
    finally:
        connection.close()


def _listens(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0
