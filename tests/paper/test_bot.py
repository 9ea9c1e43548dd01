from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.paper.market import BARS, RULES, bot, feed
from tests.paper.service import Service
from tests.servers import TOKEN, Server, make_home
from tradeloop.cli import paper as cli
from tradeloop.config import load_params
from tradeloop.errors import StoreError
from tradeloop.monitoring.feed import ArrayFeed
from tradeloop.monitoring.fills import costs
from tradeloop.paper.ledger import Ledger
from tradeloop.paper.summary import summary, trades

ROOT = Path(__file__).resolve().parents[2]


def test_it_walks_through_history_and_its_books_agree(
    tmp_path: Path, market: ArrayFeed, client: httpx.Client, service: Service
) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        trader.run(trader.due())
        fills, bars = ledger.fills(), ledger.bars()
        found = summary(trader.state, fills, bars, ledger.statuses())
    assert found["bars"] == BARS
    assert found["asked"] == len(service.predictions) == 2 * BARS - 10
    assert 0 < found["abstained"] < found["asked"]
    assert found["reports"] == {"accepted": len(fills)}
    assert set(service.fills) == {fill.fill_id for fill in fills}
    made = trades(fills)
    assert len(made) > 20
    unrealised = sum(
        p.quantity * (trader.state.account.marks[s] - p.price) for s, p in trader.state.account.positions.items()
    )
    assert found["equity"] == pytest.approx(10_000.0 + sum(trade.net_pnl for trade in made) + unrealised)
    assert found["equity"] == bars[-1].equity
    assert found["cost_bps"] == pytest.approx(RULES.fee_bps + RULES.slippage_bps, abs=1.0)
    assert found["gross_return"] > found["net_return"]


def test_an_order_is_filled_at_the_next_open_for_the_prediction_that_asked_for_it(
    tmp_path: Path, market: ArrayFeed, client: httpx.Client
) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        for at in trader.due():
            wanted = dict(trader.state.targets)
            known = len(ledger.fills())
            held = dict(trader.state.account.positions)
            trader.run([at])
            for fill in ledger.fills()[known:]:
                series = market.bars(fill.symbol)
                (i,) = [n for n, time in enumerate(series.timestamp.tolist()) if time.replace(tzinfo=UTC) == at]
                assert fill.expected_price == series.open[i]
                assert fill.filled_at == at - timedelta(hours=1)
                opener = held[fill.symbol] if fill.pnl is not None else wanted[fill.symbol]
                assert fill.prediction_id == opener.prediction_id


def test_a_bot_that_stops_goes_on_where_it_was(
    tmp_path: Path, market: ArrayFeed, client: httpx.Client, service: Service
) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        trader.run(trader.due()[:20])
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        assert len(trader.due()) == BARS - 20
        trader.run(trader.due())
        assert trader.due() == []
        assert len(ledger.bars()) == BARS
    with Ledger(tmp_path / "b.db") as whole:
        straight = bot(market, client, whole)
        straight.run(straight.due())
        assert straight.state.account.equity == pytest.approx(trader.state.account.equity)


def test_the_window_can_be_bounded(tmp_path: Path, market: ArrayFeed, client: httpx.Client) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        start, end = datetime(2020, 1, 1, 10, tzinfo=UTC), datetime(2020, 1, 1, 12, tzinfo=UTC)
        assert trader.due(start, end) == [start, start + timedelta(hours=1), end]


def test_while_the_service_fails_it_waits_and_what_it_did_stays(
    tmp_path: Path, market: ArrayFeed, client: httpx.Client, service: Service
) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(market, client, ledger)
        service.failures = [503] * 3
        trader.run(trader.due()[:5])
        service.failures = [503] * 1000
        trader._endpoint._patience = 0.0
        with pytest.raises(StoreError, match="no service answers"):
            trader.run(trader.due())
        assert len(ledger.bars()) == 5
        service.failures = []
        trader.report()
        trader.run(trader.due())
        assert len(ledger.bars()) == BARS
        assert ledger.unreported() == []


def test_a_drawdown_sells_everything_and_ends(tmp_path: Path, client: httpx.Client, service: Service) -> None:
    rules = RULES.model_copy(update={"stop_drawdown": 0.02, "allow_short": False, "max_position": 1.0})
    with Ledger(tmp_path / "a.db") as ledger:
        trader = bot(feed(drift=-0.03), client, ledger, rules=rules)
        trader.run(trader.due())
        assert trader.finished
        found = summary(trader.state, ledger.fills(), ledger.bars(), ledger.statuses())
        asked = len(service.predictions)
        trader.run(trader.due())
    assert found["stopped"]
    assert found["positions"] == {}
    assert 0.02 <= found["max_drawdown"] < 0.2
    assert found["bars"] < BARS
    assert found["equity"] == pytest.approx(trader.state.account.cash)
    assert len(service.predictions) == asked


def test_on_the_live_clock_only_the_newest_bar_is_asked_about(
    tmp_path: Path, client: httpx.Client, service: Service
) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        early = bot(feed(datetime(2020, 1, 1, 5, tzinfo=UTC)), client, ledger, replay=False)
        early.run(early.due())
        assert len(service.predictions) == 1
        later = bot(feed(datetime(2020, 1, 1, 9, tzinfo=UTC)), client, ledger, replay=False)
        assert len(later.due()) == 4
        later.run(later.due())
        assert len(service.predictions) == 2
        assert len(ledger.bars()) == 9


def test_on_the_live_clock_the_command_waits_for_bars_and_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", naps.append)

    class Waiting:
        turns = 0

        @property
        def finished(self) -> bool:
            return self.turns == 3

        def report(self) -> None:
            self.turns += 1
            if self.turns == 2:
                raise StoreError("no service answers")

        def due(self) -> list[datetime]:
            return []

        def run(self, times: list[datetime], _: Any) -> None:
            assert times == []

    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"paper": params.paper.model_copy(update={"poll": 7.0})})
    cli._follow(Waiting(), params)  # type: ignore[arg-type]
    assert naps == [7.0] * 3


@contextmanager
def listening(service: Service, victim: dict[str, Any]) -> Iterator[str]:
    """Serve over HTTP; kill the victim's process at the request that it names, before or after it was acted on."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            victim["left"] -= 1
            if victim["left"] == 0 and victim["before"]:
                victim["process"].send_signal(signal.SIGKILL)
                return
            status, body = service.answer(self.path, content)
            if victim["left"] == 0:
                victim["process"].send_signal(signal.SIGKILL)
                return
            answer = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(tmp_path: Path, client: httpx.Client) -> None:
    service, victim = Service(), dict[str, Any]()
    path = tmp_path / "a.db"
    with listening(service, victim) as url:
        # Asking and reporting by turns: the numbers meet both, before and after the service has acted.
        for left, before in ((7, True), (10, False), (5, True), (12, False), (6, False), (9, True), (10**9, False)):
            victim |= {"left": left, "before": before}
            command = [sys.executable, "-m", "tests.paper.market", str(path), url]
            victim["process"] = subprocess.Popen(command, cwd=ROOT)
            code = victim["process"].wait(60)
            assert code == (0 if left == 10**9 else -signal.SIGKILL)
    with Ledger(path) as ledger, Ledger(tmp_path / "b.db") as other:
        straight = bot(feed(), client, other)
        straight.run(straight.due())

        def shape(fill: Any) -> tuple[Any, ...]:
            return (fill.symbol, fill.side, fill.quantity, fill.price, fill.fee, fill.pnl, fill.filled_at)

        assert [shape(fill) for fill in ledger.fills()] == [shape(fill) for fill in other.fills()]
        assert ledger.bars() == other.bars()
        assert ledger.unreported() == []
        assert set(ledger.statuses()) <= {"accepted", "duplicate"}
        assert set(service.fills) == {fill.fill_id for fill in ledger.fills()}
    assert service.repeats > 0  # a report whose answer the bot never saw


@pytest.mark.slow
@pytest.mark.xdist_group("server")
def test_the_command_trades_through_the_real_service_which_comes_up_later(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    command = [sys.executable, "-c", "from tradeloop.cli import main; main()", "paper", "--json"]
    with Server(home, TRADELOOP_TOKEN=TOKEN) as server:
        environment = home.environment | {"TRADELOOP_TOKEN": TOKEN, "TRADELOOP_URL": server.url}
        more = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run([*command, "--bars", "12"], check=False, **more)  # the service is still starting
        assert done.returncode == 0, done.stderr[-2000:]
        first = json.loads(done.stdout)
        assert first["bars"] == 12
        assert first["asked"] == 48
        assert first["fills"] > 4
        assert first["reports"] == {"accepted": first["fills"]}
        again = subprocess.run([*command, "--bars", "12"], check=True, **more)
        assert json.loads(again.stdout) == first  # nothing is left to do, and nothing is done twice
        new = subprocess.run([*command, "--bars", "12", "--new"], check=True, **more)
        assert json.loads(new.stdout)["run"] != first["run"]
        assert json.loads(new.stdout)["equity"] == pytest.approx(first["equity"])
    database = home.database()
    try:
        paid = costs(database, home.params.market, 1000)
    finally:
        database.close()
    assert len(paid) == 2 * first["fills"]
    assert sum(paid) / len(paid) == pytest.approx(first["cost_bps"], rel=0.1)
