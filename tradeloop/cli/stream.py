"""``tradeloop stream``: closed bars from a file, standard input, Redis or a WebSocket into the feature store."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from typing import Annotated

import typer

from tradeloop.cli.output import Json, project


def stream(
    origin: Annotated[
        str,
        typer.Argument(help="'-', a file of JSON lines, redis://host:port/0?stream=NAME[&group=NAME], ws://, wss://"),
    ],
    follow: Annotated[bool, typer.Option("--follow", help="Of a file: wait for more at its end.")] = False,
    subscribe: Annotated[
        str | None, typer.Option(help="Of a WebSocket: what to send first; {after} becomes the last id.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take closed bars as they come: into the journal for `dvc repro`, and their features into the online store.

    After a crash it goes on from where the journal ends. Several may run beside each other, and beside the service.
    """
    from tradeloop.stream.origins import open_origin
    from tradeloop.stream.runner import Progress, StreamRunner

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    layout, params = project()
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())

    def show(progress: Progress) -> None:
        if as_json:
            print(json.dumps(progress.to_dict(), ensure_ascii=False), flush=True)
        else:
            print(f"stream: {progress.line()}", file=sys.stderr, flush=True)

    opened = open_origin(origin, follow=follow, subscribe=subscribe)
    show(StreamRunner(layout, params, opened, show=show).run(stop))
