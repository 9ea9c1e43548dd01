"""``tradeloop loop``: outcomes, skill, decisions, retraining and rollout, beside the service, until interrupted."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from tradeloop.cli.output import project


def loop(
    once: Annotated[bool, typer.Option("--once", help="Take one turn and end.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every turn that resolved outcomes.")] = False,
) -> None:
    """Close the loop: watch what becomes of the predictions, and act on it. Several may be started: one acts."""
    from tradeloop.loop.runner import Runner

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(message)s")
    layout, params = project()
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    Runner(layout, params, say=_say).run(stop, once=once)


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}", flush=True)
