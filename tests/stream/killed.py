"""What a process that will be killed runs: a whole stream over a market that lies there already."""

from __future__ import annotations

import threading
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import feast  # noqa: F401 (loaded once, for all children)
import numpy as np

from tests.stream.market import SERIES, Market, params_of, real
from tradeloop.bars import Bars
from tradeloop.calendars import expected_closes
from tradeloop.features import compute_tail, schema_for
from tradeloop.layout import Layout
from tradeloop.state import online
from tradeloop.stream import runner
from tradeloop.stream.origins import open_origin

# Compiled code, the schema's hash and the calendar are made once, for all children.
expected_closes("XNYS", timedelta(days=1), np.datetime64("2010-06-01"), np.datetime64("2013-06-01"))
compute_tail(Bars.from_frame("AAPL", real()[0]["AAPL"], {SERIES: real()[1]}), schema_for(params_of()))


def run_stream(root: Path, address: str, redis_url: str | None, ready: Event) -> None:
    """Consume in small batches until killed, or until the origin ends; `ready` once the first message is asked for."""
    pump = runner.Pump

    def started(*arguments: Any) -> runner.Pump:
        ready.set()
        return pump(*arguments)

    runner.Pump = started  # type: ignore[assignment,misc]
    online._LOCK_SECONDS = 1  # a lock on Redis outlives who is killed, and the next one would wait for ten
    market = Market(Layout(root), params_of(redis_url=redis_url, batch=5))
    runner.StreamRunner(market.layout, market.params, open_origin(address)).run(threading.Event())
