"""Blocks of the loop: when to act, how to retrain, how to roll out, how to adapt."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tradeloop.config.base import Block, Count, ModelName, NonNegative, Positive, Span


class Loop(Block):
    """The loop's own rhythm, in wall seconds."""

    every: Positive = 10.0


class Retrain(Block):
    """How a retraining runs: when it may start, what it may use, what happens when it fails.

    `hours` (UTC, ``22:00-06:00``) are off-hours beside those in which the market is shut. A job whose priority is at
    least `urgent` does not wait for off-hours. `backoff` doubles with every failed attempt.
    """

    timeout: Span = "2h"
    attempts: Count = 3
    backoff: Span = "10m"
    stale_after: Span = "2m"
    concurrent: Count = 1
    cores: Count = 1
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    memory_mib: Count = 4096
    min_free_mib: Count = 1024
    off_hours: bool = True
    urgent: int = 80
    hours: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = None
    keep_failed: Annotated[int, Field(ge=0)] = 2


class Rollout(Block):
    """How a challenger is proved, promoted, watched and rolled back."""

    improvement: NonNegative = 0.05
    min_outcomes: Count = 100


class Adapt(Block):
    """Online adaptation between retrainings."""

    enabled: bool = False


class Feedback(Block):
    """What the bot's fills teach about costs."""

    min_fills: Count = 30


class Paper(Block):
    """The reference bot and its simulated exchange."""

    cash: Positive = 100_000.0
    stop_drawdown: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Simulate(Block):
    """How `tradeloop simulate` replays a market. `window` null: a scheduled retraining sees the whole past."""

    warm_up: Count = 2_000
    turn_every: Count = 1
    models: Annotated[list[ModelName], Field(min_length=1)] = ["xgboost"]
    schedule: str = "7d"
    window: str | None = None
