"""Where messages come from. `open_origin` finds the implementation by what its address looks like."""

from __future__ import annotations

from pathlib import Path

from tradeloop.errors import ConfigError
from tradeloop.stream.origins.base import Origin


def open_origin(address: str, *, follow: bool = False, subscribe: str | None = None) -> Origin:
    """Return an origin.

    Parameters
    ----------
    address
        ``-`` for standard input, ``redis://…?stream=NAME``, ``ws://…`` or ``wss://…``, else the path of a file.
    follow
        Of a file: wait for more at its end.
    subscribe
        Of a WebSocket: what to send after connecting.

    Raises
    ------
    ConfigError
        The address is none, or an option is another kind's.
    """
    scheme = address.partition("://")[0] if "://" in address else ""
    if subscribe is not None and scheme not in ("ws", "wss"):
        raise ConfigError(f"--subscribe is for a WebSocket (ws://, wss://), got {address}")
    if follow and (scheme or address == "-"):
        raise ConfigError(f"--follow is for a file, got {address}")
    if address == "-":
        from tradeloop.stream.origins.stdin import StdinOrigin

        return StdinOrigin()
    if scheme in ("redis", "rediss"):
        from tradeloop.stream.origins.redis_stream import RedisOrigin

        return RedisOrigin(address)
    if scheme in ("ws", "wss"):
        from tradeloop.stream.origins.websocket import WebSocketOrigin

        return WebSocketOrigin(address, subscribe=subscribe)
    if scheme:
        raise ConfigError(f"an origin is -, a file, redis://, ws:// or wss://, got {address}")
    from tradeloop.stream.origins.file import FileOrigin

    return FileOrigin(Path(address), follow=follow)
