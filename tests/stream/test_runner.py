"""The whole stream: from an origin to journal and online store, killed at any moment, and as a command."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.stream.killed import run_stream
from tests.stream.market import REDIS, Market, held_back, make_market
from tests.stream.test_origins import address, number_of, wait_for
from tradeloop.cli import app
from tradeloop.errors import StoreError
from tradeloop.state.database import Database, database_url
from tradeloop.state.heartbeats import Heartbeats
from tradeloop.state.online import OnlineStore
from tradeloop.stream.consumer import Consumer
from tradeloop.stream.origins import open_origin
from tradeloop.stream.runner import Progress, StreamRunner

KILLS = int(os.environ.get("TRADELOOP_KILLS", "10"))


def lines() -> list[str]:
    """What is still to come, with something broken here and there."""
    content = [json.dumps(one) for one in held_back()]
    for place in (250, 100, 3):
        content.insert(place, f'{{"symbol": "AAPL", "broken": {place}}}')
    return content


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("kind", ["file", "redis"])
def test_nothing_is_lost_or_doubled_by_kills_at_any_moment(
    kind: str, tmp_path: Path, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradeloop.state.online._LOCK_SECONDS", 1)  # as in `run_stream`
    redis_url = f"{REDIS},db={number_of(redis)}" if kind == "redis" else None
    market = make_market(tmp_path / "market", redis_url=redis_url, batch=5)
    if kind == "file":
        (tmp_path / "bars.jsonl").write_text("\n".join(lines()))
        origin = str(tmp_path / "bars.jsonl")
    else:
        for text in lines():
            redis.xadd("bars", {"data": text})
        origin = address(redis, "bars", "&group=loop")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.stream.killed"])
    draw, sizes = random.Random(1), []
    for _ in range(KILLS // 2):
        ready = context.Event()
        process = context.Process(target=run_stream, args=(market.layout.root, origin, redis_url, ready))
        process.start()
        assert ready.wait(120)
        enough = market.journal.size().offset + draw.randrange(6000)
        while process.is_alive() and market.journal.size().offset < enough:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0), "it failed before it was killed"
        sizes.append(len(market.commits()))
    run_to_the_end(market, origin)

    assert len(set(sizes)) > 2, "the kills came at different moments"
    market.assert_whole()
    expected = held_back()
    assert Counter((bar.symbol, bar.time) for bar in market.said()).most_common(1)[0][1] == 1
    assert len(market.said()) == sum("symbol" in one for one in expected)
    levels = [level for commit in market.commits() for level in commit.levels]
    assert len(levels) == len(set(levels)) == sum("series" in one for one in expected)
    letters = [json.loads(text) for text in market.refused.read_text().splitlines()]
    assert [json.loads(letter["message"])["broken"] for letter in letters] == [3, 100, 250]
    store = OnlineStore(market.layout, market.params)
    market.assert_online(store)
    store.close()
    if kind == "redis":
        assert redis.xpending("bars", "loop")["pending"] == 0


def run_to_the_end(market: Market, address: str) -> None:
    """Consume until the last bar is in the journal: a Redis Stream has no end of its own."""
    stop = threading.Event()
    runner = StreamRunner(market.layout, market.params, open_origin(address))
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    bars = sum("symbol" in one for one in held_back())
    wait_for(lambda: not thread.is_alive() or len(market.said()) >= bars, seconds=120)
    stop.wait(0.5)  # whatever is given twice would come now
    stop.set()
    thread.join()


def write_lines(market: Market) -> str:
    path = market.layout.root / "bars.jsonl"
    path.write_text("\n".join(lines()))
    return str(path)


def test_a_stream_says_what_it_did_and_leaves_a_sign_of_life(plain: Market) -> None:
    origin = open_origin(write_lines(plain))
    done = StreamRunner(plain.layout, plain.params, origin).run(threading.Event())
    told = done.to_dict()
    assert told["counts"]["new"] == 240 and told["counts"]["refused"] == 3
    assert told["messages"] == len(lines()) and told["newest"] == "2013-03-01T21:00:00+00:00"
    assert told["position"] == str((plain.layout.root / "bars.jsonl").stat().st_size)
    assert (
        told["last_refused"]
        == "unknown key 'broken' (known: close, context, high, id, low, open, symbol, timestamp, volume)"
    )
    assert "240 new" in done.line() and "3 refused" in done.line()
    database = Database.open(database_url(plain.layout, plain.params))
    (beat,) = Heartbeats(database, "mine").read()
    assert (beat.component, beat.state) == ("stream", "stopped") and "240 new" in beat.detail
    database.close()
    again = StreamRunner(plain.layout, plain.params, origin).run(threading.Event())
    assert again.counts.total() == 0, "it goes on from where it was"


def test_a_stream_waits_for_a_store_that_is_away(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Market(
        plain.layout,
        plain.params.model_copy(update={"stream": plain.params.stream.model_copy(update={"backoff": 0.01})}),
    )
    away = 3
    write = OnlineStore.write

    def unsteady(self: OnlineStore, *arguments: Any) -> int:
        nonlocal away
        if away and len(plain.commits()) >= 1:
            away -= 1
            raise StoreError("nobody answers")
        return write(self, *arguments)

    monkeypatch.setattr(OnlineStore, "write", unsteady)
    StreamRunner(plain.layout, plain.params, open_origin(write_lines(plain))).run(threading.Event())
    assert away == 0
    store = OnlineStore(plain.layout, plain.params)
    plain.assert_online(store)
    store.close()


def test_a_batch_is_tried_again_until_the_disk_takes_it(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Market(
        plain.layout,
        plain.params.model_copy(update={"stream": plain.params.stream.model_copy(update={"backoff": 0.01})}),
    )
    failures = [StoreError("full"), StoreError("full")]
    take = Consumer.take

    def unsteady(self: Consumer, messages: Any) -> Any:
        if failures:
            raise failures.pop()
        return take(self, messages)

    monkeypatch.setattr(Consumer, "take", unsteady)
    shown: list[Progress] = []
    done = StreamRunner(plain.layout, plain.params, open_origin(write_lines(plain)), show=shown.append).run(
        threading.Event()
    )
    assert not failures and done.counts["new"] == 240
    plain.assert_whole()


def test_the_command_prints_what_was_done(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeloop.cli.stream.project", lambda: (plain.layout, plain.params))
    path = write_lines(plain)
    done = CliRunner().invoke(app, ["stream", path, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["counts"]["new"] == 240
    again = CliRunner().invoke(app, ["stream", path], catch_exceptions=False)
    assert again.stderr.startswith("stream: no message yet")


def test_a_bad_address_is_one_line(plain: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeloop.errors import ConfigError

    monkeypatch.setattr("tradeloop.cli.stream.project", lambda: (plain.layout, plain.params))
    with pytest.raises(ConfigError, match="an origin is -, a file"):
        CliRunner().invoke(app, ["stream", "http://x"], catch_exceptions=False)
