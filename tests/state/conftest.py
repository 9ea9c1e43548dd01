from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.feature_files import write_rows
from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.schema import Schema

REPOSITORY = Path(__file__).resolve().parents[2]
REDIS = "127.0.0.1:16379"


@pytest.fixture(scope="session")
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def schema() -> Schema:
    # A hash of its own for each test: views are named by it, and Redis is shared.
    return Schema("us_daily", ("alpha", "beta", "gamma"), uuid.uuid4().hex * 2)


@pytest.fixture
def write_features(layout: Layout, schema: Schema) -> Callable[..., pd.DataFrame]:
    """Write one symbol's feature file; row i holds (i, i + 0.5, -i) plus `offset`."""

    def write(symbol: str, times: list[str], *, created: list[str] | None = None, offset: float = 0.0) -> pd.DataFrame:
        rows = np.arange(len(times), dtype=np.float32) + np.float32(offset)
        frame = pd.DataFrame(
            {
                "symbol": symbol,
                "timestamp": pd.to_datetime(times, utc=True).as_unit("us"),
                "created": pd.to_datetime(created or times, utc=True).as_unit("us"),
                "alpha": rows,
                "beta": rows + np.float32(0.5),
                "gamma": -rows,
            }
        )
        write_rows(layout.features, symbol, frame)
        schema.save(layout.store / "schema.json")
        return frame

    return write


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.services)])
def online_params(request: pytest.FixtureRequest, params: Params) -> Iterator[Params]:
    """Parameters with each online store in turn; Redis has a database for each test worker, emptied afterwards."""
    if request.param == "sqlite":
        yield params
        return
    import redis

    host, port = REDIS.split(":")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    database = 8 + int(worker.removeprefix("gw")) % 8
    client = redis.Redis(host=host, port=int(port), db=database)
    try:
        client.ping()
    except redis.ConnectionError:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"no Redis at {REDIS}: make services")
    yield params.model_copy(
        update={
            "serving": params.serving.model_copy(
                update={"online_store": "redis", "redis_url": f"{REDIS},db={database}"}
            ),
        }
    )
    client.flushdb()
    client.close()
