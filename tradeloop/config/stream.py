"""Parameters of `tradeloop stream` and of POST /observe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tradeloop.config.base import Block, Count, Positive, Span


class Stream(Block):
    """How streamed bars are taken.

    Attributes
    ----------
    late_bars
        How many bars behind the newest a late or restated bar still brings its own row again.
    batch
        The most messages that are written to the disk together.
    queue
        The most messages that wait between the origin and the disk; beyond them the origin is not read.
    backoff, max_backoff
        Wall seconds before the first attempt to connect again, doubled with each further one, and the most.
    epoch
        The unit of timestamps that are numbers since 1970.
    parity_every, parity_rows
        How often, on the market's clock, and how many served rows are computed again from the bars.
    """

    late_bars: Annotated[int, Field(ge=0, le=10_000)] = 64
    batch: Count = 512
    queue: Count = 10_000
    backoff: Positive = 0.5
    max_backoff: Positive = 30.0
    epoch: Literal["s", "ms", "us"] = "s"
    parity_every: Span = "1h"
    parity_rows: Count = 100
