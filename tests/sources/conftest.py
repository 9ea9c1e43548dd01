from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradeloop.config import Market
from tradeloop.sources import open_source
from tradeloop.sources.base import Source

Open = Callable[..., Source]


@pytest.fixture
def bundled() -> Open:
    """Open the bundled source on a calendar and an interval."""

    def open_(calendar: str = "XNYS", interval: str = "1d") -> Source:
        market = Market(source="bundled", symbols=["X"], calendar=calendar, interval=interval)
        return open_source(market, root=Path("/nowhere"), seed=0)

    return open_


@pytest.fixture
def files(tmp_path: Path) -> Open:
    """Open the files source on `tmp_path`; keywords go to its files: block."""

    def open_(*, calendar: str = "24/7", interval: str = "1h", path: str = "in", **block: Any) -> Source:
        market = Market(
            source="files", symbols=["X"], calendar=calendar, interval=interval, files={"path": path, **block}
        )
        return open_source(market, root=tmp_path, seed=0)

    return open_
