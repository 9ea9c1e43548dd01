"""Blocks of the loop: when to act, how to retrain, how to roll out, how to adapt."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tradeloop.config.base import Block, Count, ModelName, NonNegative, Positive


class Loop(Block):
    """The loop's own rhythm, in wall seconds."""

    every: Positive = 10.0


class Retrain(Block):
    """How a retraining runs."""

    timeout: str = "2h"
    attempts: Count = 3


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
