"""A keep-alive HTTP client that costs next to nothing, so that a load test times the server."""

from __future__ import annotations

import socket
import time
from typing import Self

import orjson


class Client:
    """One connection that posts the same request again and again."""

    def __init__(self, port: int, symbols: list[str], *, path: str = "/predict") -> None:
        body = orjson.dumps({"symbols": symbols})
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self) -> tuple[int, bytes]:
        """Send the request and return the answer's status and body."""
        self._socket.sendall(self._request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        body = received[end + 4 :]
        while len(body) < length:
            body += self._receive()
        return int(head.split(b" ", 2)[1]), body

    def timed(self, count: int) -> list[float]:
        """Post `count` times and return the seconds that each took; anything but a 200 raises RuntimeError."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            status, body = self.post()
            seconds.append(time.perf_counter() - started)
            if status != 200:
                raise RuntimeError(f"the server answered {status}: {body[:300].decode(errors='replace')}")
        return seconds

    def _receive(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
