"""Blocks of the loop: when to act, how to retrain, how to roll out, how to adapt."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tradeloop.config.base import Block, Count, ModelName, NonNegative, Positive, Share, Span, Target


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
    """How a challenger is proved, promoted, watched and rolled back; see `tradeloop.loop.paired` and `rollout`.

    `improvement` and `tolerance` are shares of the champion's live gain over the naive baseline, `floor` is one of the
    baseline's own loss. Spans are of market time.
    """

    improvement: NonNegative = 0.05
    floor: NonNegative = 0.001
    tolerance: NonNegative = 0.1
    weights: dict[Target, NonNegative] = {"direction": 0.4, "return": 0.2, "range": 0.4}
    alpha: Share = 0.05
    min_outcomes: Count = 100
    max_outcomes: Count = 5_000
    max_age: Span = "180d"
    challengers: Count = 3
    canary: Annotated[float, Field(ge=0, lt=1)] = 0.0
    canary_outcomes: Count = 100
    watch: Literal["loop", "all"] = "loop"
    alpha_watch: Share = 0.05
    watch_outcomes: Count = 500
    watch_for: Span = "7d"

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, value: dict[Target, float]) -> dict[Target, float]:
        if not sum(value.values()) > 0:
            raise ValueError(f"at least one target must have a weight above 0, got {value}")
        return value

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_outcomes < self.min_outcomes:
            rule = f"max_outcomes must be at least min_outcomes = {self.min_outcomes}"
            raise ValueError(f"{rule}, got {self.max_outcomes}")
        return self


class Adapt(Block):
    """Online adaptation between retrainings; see docs/adaptation.md.

    Attributes
    ----------
    rate, share
        Step of the members' weights, and what of the weight flows back to the packaged forecast.
    memory
        Outcomes that recalibration, shift and usual sizes remember.
    width_step
        Step of the log width of an interval's side after a miss.
    learning_rate
        Of the linear member, over all features together.
    max_step, max_weight, max_width
        The most that a number may move an outcome, that members may weigh together, that a side may grow.
    every
        Outcomes between snapshots.
    apply, prove, min_bars
        When a target's adaptation is applied: once it has been proven better, ``prove`` being the probability of an
        error, or after so many bars without proof that it is worse.
    pause
        Bars that a target stays as packaged after its adaptation was taken back.
    drift
        ADWIN's δ: a change of the adapted loss at this level makes a target forget.
    """

    enabled: bool = False
    rate: Positive = 0.03
    share: Annotated[float, Field(ge=0, lt=1)] = 0.002
    memory: Annotated[int, Field(ge=10)] = 500
    width_step: Annotated[float, Field(gt=0, le=0.5)] = 0.015
    learning_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    max_step: Annotated[float, Field(gt=0, le=1)] = 0.05
    max_weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_width: Annotated[float, Field(gt=1, le=4)] = 3.0
    every: Count = 25
    apply: Literal["proven", "not_worse"] = "proven"
    prove: Share = 0.05
    min_bars: Count = 100
    pause: Count = 500
    drift: Share = 0.002


class Feedback(Block):
    """What the bot's fills teach about costs.

    Attributes
    ----------
    min_fills, window
        Below so many fills nothing is concluded; the newest `window` count.
    max_factor
        The most by which one retraining may change the cost, or the threshold.
    max_cost_bps, max_threshold
        Bounds of both.
    """

    min_fills: Annotated[int, Field(ge=10)] = 30
    window: Annotated[int, Field(ge=10)] = 500
    confidence: Share = 0.95
    max_factor: Annotated[float, Field(gt=1)] = 2.0
    max_cost_bps: Annotated[float, Field(gt=0, le=1000)] = 100.0
    max_threshold: Annotated[float, Field(gt=0, lt=0.5)] = 0.1


class Paper(Block):
    """The reference bot and its simulated exchange; shares are of equity, costs in basis points of traded value.

    Attributes
    ----------
    max_position, max_exposure
        The most that one symbol, and all together, may weigh.
    participation
        The most of a bar's volume that one order gets.
    fee_bps, slippage_bps
        Fee, and mean slippage against the order; the slippage of each fill is drawn, exponentially distributed.
    poll
        Wall seconds between looks for a new bar, on the live clock.
    patience
        Wall seconds for which a question is tried again before the bot stops.
    """

    cash: Positive = 100_000.0
    stop_drawdown: Annotated[float, Field(gt=0, lt=1)] = 0.2
    max_position: Annotated[float, Field(gt=0, le=1)] = 0.25
    max_exposure: Annotated[float, Field(gt=0, le=1)] = 1.0
    allow_short: bool = True
    participation: Annotated[float, Field(gt=0, le=1)] = 0.05
    fee_bps: Annotated[float, Field(ge=0, le=1000)] = 1.0
    slippage_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    poll: Positive = 5.0
    patience: Positive = 60.0


class Simulate(Block):
    """How `tradeloop simulate` replays a market. `window` null: a scheduled retraining sees the whole past."""

    warm_up: Count = 2_000
    turn_every: Count = 1
    models: Annotated[list[ModelName], Field(min_length=1)] = ["xgboost"]
    training_bars: Annotated[int, Field(ge=0)] = 1
    schedule: str = "7d"
    window: str | None = None
