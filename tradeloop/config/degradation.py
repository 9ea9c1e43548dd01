"""Blocks of what is watched on live predictions: skill, drift, staleness."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tradeloop.config.base import Block, Count, Positive


class Degradation(Block):
    """The sequential watch over the champion's skill."""

    run_length: Annotated[float, Field(ge=100)] = 10_000.0


class Drift(Block):
    """Drift of the features, and staleness."""

    rows: Count = 250
    psi: Positive = 0.2
