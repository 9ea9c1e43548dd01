"""The engine in a test's own process, behind its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry

from tests.servers import Home
from tradeloop.serving.app import build_app
from tradeloop.serving.engine import Engine


@asynccontextmanager
async def running(
    home: Home, counted: CollectorRegistry | None = None
) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    engine = Engine(home.layout, home.params, counted=counted or CollectorRegistry())
    app = build_app()
    app.state.engine = engine
    watch = asyncio.create_task(engine.run())
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield engine, client
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await asyncio.to_thread(engine.close)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def check(home: Home, body: Callable[[Engine, httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run `body` against a ready engine."""

    async def run() -> None:
        async with running(home) as (engine, client):
            await until(lambda: engine.ready)
            await body(engine, client)

    asyncio.run(run())


async def ask(client: httpx.AsyncClient, *symbols: str, **more: str) -> httpx.Response:
    return await client.post("/predict", json={"symbols": list(symbols), **more})
