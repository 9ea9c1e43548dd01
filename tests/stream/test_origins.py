"""Each origin: everything once, in order, from where it was left, and again after it was lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stream.market import REDIS
from tradeloop.config import Stream
from tradeloop.errors import ConfigError, DataError, StoreError
from tradeloop.stream.consumer import Message
from tradeloop.stream.origins import open_origin
from tradeloop.stream.origins.base import Origin
from tradeloop.stream.origins.stdin import StdinOrigin
from tradeloop.stream.pump import Pump

QUICK = Stream(backoff=0.01, max_backoff=0.02)


def first(origin: Origin, count: int, after: str | None = None) -> list[Message]:
    """The first messages that an origin gives."""
    stop = threading.Event()
    found: list[Message] = []
    for message in origin.messages(after, stop):
        if message is not None:
            found.append(message)
        if len(found) == count:
            stop.set()
            break
    return found


def drain(pump: Pump, count: int) -> list[Message]:
    found: list[Message] = []
    for _ in range(1000):
        batch = pump.batch(0.05)
        if batch is None or len(found) >= count:
            break
        found += batch
    pump.close()
    return found


def test_a_file_is_read_from_any_line_on(tmp_path: Path) -> None:
    path = tmp_path / "bars.jsonl"
    path.write_bytes(b'{"a": 1}\n\n  {"a": 2}\r\n{"a": 3}')
    origin = open_origin(str(path))
    found = first(origin, 9)
    assert [message.text for message in found] == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']
    assert origin.name == f"file:{path}"
    for place, message in enumerate(found):
        assert first(origin, 9, after=message.position) == found[place + 1 :]


def test_a_file_that_is_shorter_than_what_was_read_is_another(tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("{}\n")
    with pytest.raises(DataError, match="has 3 bytes, 9 of which were read before: it is another file"):
        first(open_origin(str(tmp_path / "bars")), 1, after="9")
    with pytest.raises(DataError, match="none cannot be read: No such file"):
        first(open_origin(str(tmp_path / "none")), 1)


def test_a_file_is_followed_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "bars"
    path.write_text("1\n2")
    pump = Pump(open_origin(str(path), follow=True), None, QUICK)
    assert [message.text for message in pump.batch(5.0) or []] == [b"1"]
    with path.open("a") as handle:
        handle.write("2\n3\n")
    assert [message.text for message in drain(pump, 2)] == [b"22", b"3"], "a line is one once it has ended"


def test_standard_input_is_read_until_it_is_closed() -> None:
    reading, writing = os.pipe()
    pump = Pump(StdinOrigin(reading), None, QUICK)
    os.write(writing, b'{"a": 1}\n{"a"')
    assert [message.text for message in pump.batch(5.0) or []] == [b'{"a": 1}']
    os.write(writing, b": 2}\n\nlast")
    os.close(writing)
    assert [message.text for message in drain(pump, 9)] == [b'{"a": 2}', b"last"]
    os.close(reading)


@pytest.mark.services
def test_a_redis_stream_is_read_from_any_entry_on(redis: Any) -> None:
    url = address(redis, "bars")
    for number in range(5):
        redis.xadd("bars", {"data": str(number)}, id=f"{number + 1}-1")
    origin = open_origin(url)
    found = first(origin, 5)
    assert [(message.text, message.position) for message in found] == [(str(n), f"{n + 1}-1") for n in range(5)]
    assert first(open_origin(url), 2, after="3-1") == found[3:]
    assert origin.name == f"redis://127.0.0.1:16379/{number_of(redis)}?stream=bars"


@pytest.mark.services
def test_a_group_s_entries_are_acknowledged_once_they_are_on_disk(redis: Any) -> None:
    url = address(redis, "bars", "&group=loop")
    for number in range(1, 7):
        redis.xadd("bars", {"data": str(number)}, id=f"{number}-1")
    origin = open_origin(url)
    assert [message.text for message in first(origin, 4)] == ["1", "2", "3", "4"]
    origin.committed("2-1")
    # All six were delivered; two are on disk. A new process gives what is neither acknowledged nor in the journal.
    assert redis.xpending("bars", "loop")["pending"] == 4
    again = open_origin(url)
    assert [message.text for message in first(again, 3, after="3-1")] == ["4", "5", "6"]
    again.committed("6-1")
    assert redis.xpending("bars", "loop")["pending"] == 0


@pytest.mark.services
def test_what_was_queued_is_not_acknowledged_when_redis_comes_back(redis: Any) -> None:
    url = address(redis, "bars", "&group=loop")
    redis.xadd("bars", {"data": "1"}, id="1-1")
    pump = Pump(origin := open_origin(url), None, QUICK)
    assert [message.position for message in pump.batch(5.0) or []] == ["1-1"]

    def noticed() -> bool:
        """Cut the pump off until it knows: between two reads the client would connect again by itself."""
        for client in redis.client_list() if not pump.reconnects else ():
            if int(client["db"]) == number_of(redis) and int(client["id"]) != redis.client_id():
                redis.client_kill_filter(_id=client["id"])
        return bool(pump.reconnects)

    wait_for(noticed)
    redis.xadd("bars", {"data": "2"}, id="2-1")
    assert [message.position for message in drain(pump, 1)] == ["2-1"]
    assert redis.xpending("bars", "loop")["pending"] == 2, "neither is on disk yet"
    origin.committed("2-1")
    assert redis.xpending("bars", "loop")["pending"] == 0


def number_of(redis: Any) -> int:
    return int(redis.connection_pool.connection_kwargs["db"])


def address(redis: Any, name: str, more: str = "") -> str:
    return f"redis://{REDIS}/{number_of(redis)}?stream={name}{more}"


@contextmanager
def websocket_server(handler: Callable[[Any], None]) -> Iterator[str]:
    from websockets.sync.server import serve

    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/bars?token=secret"
        server.shutdown()
        thread.join()


def test_a_websocket_is_asked_to_go_on_where_it_was_left() -> None:
    asked: list[str] = []

    def handler(socket: Any) -> None:
        asked.append(json.loads(socket.recv())["after"])
        start = int(asked[-1] or 0) + 1
        for number in range(start, min(start + 4, 11)):  # it hangs up after four
            socket.send(json.dumps({"id": number}))

    with websocket_server(handler) as url:
        origin = open_origin(url, subscribe='{"after": "{after}"}')
        assert "secret" not in origin.name
        pump = Pump(origin, "2", QUICK)
        found = drain(pump, 8)
    assert [message.position for message in found] == [str(number) for number in range(3, 11)]
    assert asked[:2] == ["2", "6"] and pump.reconnects >= 1


class Lost(Origin):
    """Gives one message a connection, then is lost; and lost at once in between."""

    name = "lost"

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def messages(self, after: str | None, _: threading.Event) -> Iterator[Message | None]:
        self.asked.append(after)
        if len(self.asked) % 2:
            raise StoreError("nobody is there")
        place = int(after or 0) + 1
        if place == 4:
            return
        yield Message("x", "lost", str(place))
        raise StoreError("gone")


def test_an_origin_that_is_lost_goes_on_behind_what_it_gave() -> None:
    origin = Lost()
    pump = Pump(origin, None, QUICK)
    assert [message.position for message in drain(pump, 9)] == ["1", "2", "3"]
    assert origin.asked == [None, None, "1", "1", "2", "2", "3", "3"]
    assert pump.reconnects == 7 and pump.trouble is not None


def test_the_wait_for_a_lost_origin_doubles_up_to_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Origin):
        name = "away"

        def messages(self, *_: Any) -> Iterator[Message | None]:
            raise StoreError("nobody is there")

    waits: list[float] = []

    class Recorded(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread().name != "stream-origin":
                return super().wait(timeout)
            waits.append(timeout or 0.0)
            if len(waits) == 7:
                self.set()
            return self.is_set()

    monkeypatch.setattr("tradeloop.stream.pump.threading.Event", Recorded)
    monkeypatch.setattr("random.uniform", lambda low, high: high if (low, high) == (0.5, 1.0) else 0.0)
    pump = Pump(Away(), None, Stream(backoff=0.5, max_backoff=5.0))
    pump._thread.join(10)
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


class Endless(Origin):
    """Counts how much was taken of it."""

    name = "endless"
    given = 0

    def messages(self, *_: Any) -> Iterator[Message | None]:
        while True:
            self.given += 1
            yield Message("x", self.name, str(self.given))


def test_an_origin_is_not_read_while_the_queue_is_full() -> None:
    origin = Endless()
    pump = Pump(origin, None, Stream(queue=50, batch=20))
    wait_for(lambda: origin.given == 51)
    time.sleep(0.3)
    assert origin.given == 51
    assert len(pump.batch(1.0) or []) == 20
    wait_for(lambda: origin.given == 71)
    pump.close()


def test_what_cannot_be_read_any_further_is_told() -> None:
    class Broken(Origin):
        name = "broken"

        def messages(self, *_: Any) -> Iterator[Message | None]:
            yield Message("x", self.name, "1")
            raise DataError("it is another file")

    pump = Pump(Broken(), None, QUICK)
    pump._thread.join(5)
    assert len(pump.batch(1.0) or []) == 1, "what it gave before is not lost"
    with pytest.raises(DataError, match="it is another file"):
        pump.batch(1.0)


@pytest.mark.parametrize(
    ("address", "options", "rule"),
    [
        ("http://x", {}, "an origin is -, a file, redis://, ws:// or wss://, got http://x"),
        ("redis://x:1/0", {}, r"a Redis Stream is redis://host:port/db\?stream=NAME.+, got redis://x:1/0"),
        ("redis://x:1/0?stream=a&size=3", {}, "a Redis Stream is .+"),
        ("-", {"follow": True}, "--follow is for a file, got -"),
        ("bars", {"subscribe": "x"}, r"--subscribe is for a WebSocket \(ws://, wss://\), got bars"),
    ],
)
def test_an_address_that_is_none_is_told(address: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=f"^{rule}$"):
        open_origin(address, **options)


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)
