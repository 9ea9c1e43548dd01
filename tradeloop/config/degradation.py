"""Blocks of what is watched on live predictions: skill, drift, staleness."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tradeloop.config.base import Block, Count, NonNegative, Positive, Share, Span


class Weights(Block):
    """How much of the statistic each target gets; what carries no information gives its part to the others."""

    direction: NonNegative = 0.6
    ret: NonNegative = 0.1
    range: NonNegative = 0.3

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.direction + self.ret + self.range <= 0:
            raise ValueError("one of the weights must be above 0")
        return self


class Degradation(Block):
    """The sequential watch over the champion's skill.

    Attributes
    ----------
    run_length
        Resolved predictions between false alarms, on average at least.
    margin
        How many standard errors of the reference a skill may be below it without being a fall.
    tolerance
        Bias of the range forecast, in standard deviations of its error, that is no fall of skill.
    window, drop
        The plain threshold: mean loss of so many predictions, above the reference by this share.
    adwin
        Confidence of River's ADWIN that looks at the same losses.
    confidence
        Of the confidence sequences that people look at.
    """

    run_length: Annotated[float, Field(ge=100)] = 10_000.0
    weights: Weights = Weights()
    margin: NonNegative = 1.0
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.25
    window: Count = 200
    drop: Positive = 0.05
    adwin: Share = 0.002
    confidence: Share = 0.95


class Drift(Block):
    """Drift of features and forecasts from the training rows, and staleness.

    A feature has drifted if that is significant at `false_discovery` over all features, and large: both PSI and the
    Wasserstein distance, in standard deviations of the training rows, are as large as told.
    """

    rows: Annotated[int, Field(ge=50)] = 250
    min_rows: Annotated[int, Field(ge=30)] = 100
    every: Count = 25
    false_discovery: Share = 0.01
    psi: Positive = 0.1
    wasserstein: Positive = 0.2
    report_every: Span = "7d"
    keep_reports: Count = 4
    late_bars: Count = 2
    model_age: Span = "90d"
    heartbeat: Span = "2m"

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.min_rows > self.rows:
            raise ValueError(f"drift.min_rows must be at most drift.rows ({self.rows}), got {self.min_rows}")
        return self
