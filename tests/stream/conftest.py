from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stream.market import REDIS, Market, make_market
from tradeloop.state.online import OnlineStore


@pytest.fixture
def redis() -> Iterator[Any]:
    """Return a client of an empty Redis database, one for each test worker."""
    import redis as package

    host, port = REDIS.split(":")
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    client = package.Redis(host=host, port=int(port), db=1 + worker % 7, decode_responses=True)
    try:
        client.ping()
    except package.ConnectionError:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"no Redis at {REDIS}: make services")
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.services)])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Market:
    """Return a market whose newest bars are still to come, once with each kind of online store."""
    if request.param == "sqlite":
        return make_market(tmp_path)
    number = request.getfixturevalue("redis").connection_pool.connection_kwargs["db"]
    return make_market(tmp_path, redis_url=f"{REDIS},db={number}")


@pytest.fixture
def plain(tmp_path: Path) -> Market:
    """Return the market with SQLite, for what has nothing to do with the online store."""
    return make_market(tmp_path)


@pytest.fixture
def store(market: Market) -> Iterator[OnlineStore]:
    """Return the market's online store."""
    opened = OnlineStore(market.layout, market.params)
    yield opened
    opened.close()
