"""Blocks of what is measured on live predictions: outcomes and performance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tradeloop.config.base import Block, Count, Share


class Outcomes(Block):
    """How predictions end. Intervals are ``15m``, ``1h`` or ``5d``."""

    expire_after: str = "30d"


class Performance(Block):
    """Windows over resolved predictions, by count and by time."""

    counts: Annotated[list[Count], Field(min_length=1)] = [50, 200, 1000]
    spans: Annotated[list[str], Field(min_length=1)] = ["7d", "30d", "90d"]
    confidence: Share = 0.95
