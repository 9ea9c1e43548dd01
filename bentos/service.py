"""The BentoML service: glue between BentoML's server and `tradeloop.serving`.

    tradeloop serve                          from a project
    bentoml serve <tag>                      from the BentoML store, with TRADELOOP_HOME set
    bentoml serve .                          from a built Bento's own folder, likewise

BentoML imports this module in its supervisor too, so nothing heavy is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

import bentoml

from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.serving.app import build_app

# A Bento carries params.yaml and its bundle at its root, beside the folder of this module.
ROOT = Path(__file__).resolve().parents[1]
BAKED = ROOT / "bundle"
BUCKETS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0]

app = build_app()


@bentoml.service(
    name="tradeloop",
    workers=int(os.environ.get("TRADELOOP_WORKERS", "1")),
    # BentoML holds a timer, and the request's memory with it, for this long after every request.
    traffic={"timeout": 2},
    logging={"access": {"enabled": False}},
    metrics={"enabled": True, "namespace": "tradeloop_http", "duration": {"buckets": BUCKETS}},
    # Spans that nobody collects were over half of a request's time. Who sets an exporter in BENTOML_CONFIG sets
    # tracing.excluded_urls there as well.
    tracing={"excluded_urls": [".*"]},
)
@bentoml.asgi_app(app, path="/")
class Tradeloop:
    """Forecasts of direction, return and range, each with an interval and a verdict; every answer is logged first."""

    def __init__(self) -> None:
        from tradeloop.serving.engine import Engine

        logging.getLogger("tradeloop").setLevel(logging.INFO)
        layout = Layout.current()
        params = load_params(layout.params if layout.params.is_file() else ROOT / "params.yaml")
        self._engine = app.state.engine = Engine(layout, params, baked=BAKED if BAKED.is_dir() else None)
        self._watch: asyncio.Task[None] | None = None
        self._orphan: asyncio.Task[None] | None = None

    @bentoml.on_startup
    async def start(self) -> None:
        """Begin to load; the server listens meanwhile and says that it is not ready."""
        self._watch = asyncio.create_task(self._engine.run())
        self._orphan = asyncio.create_task(_stop_with(os.getppid()))

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Stop watching; let what is being written finish."""
        for task in (self._watch, self._orphan):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await asyncio.to_thread(self._engine.close)

    async def __is_ready__(self) -> bool:
        """Whether the champion, its features and the database are there."""
        return self._engine.ready


async def _stop_with(supervisor: int) -> None:
    """End this worker once its supervisor is gone: it would hold the port, and the next start would fail."""
    while os.getppid() == supervisor:
        await asyncio.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
