"""The content of ``reference.json``, checked as it is read.

The *design effect* of a target says how many dependent outcomes count as one: the long-run variance of the sum of its
scores over the variance that independent outcomes would have. It is 1 for independent ones, about the number of symbols
where these move as one.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from tradeloop.bars import Floats
from tradeloop.config import Block
from tradeloop.errors import BundleError

FORMAT = 1
POINTS = 41
"""Quantiles of a sketch, at equal steps of probability from the smallest value to the largest."""
SCORES = 97
"""Points of the map from range residuals to normal scores."""
MAGNITUDE = 3.0
"""A return counts for at most so many times its forecast volatility."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Estimate(Block):
    """A value and its standard error."""

    value: Finite
    se: Size


class Scores(Block):
    """Mean and standard deviation of a rank score, and how many rows count as one; see `tradeloop.reference.ranks`."""

    mean: Finite
    sd: Size
    effect: Annotated[float, Field(ge=1)]


class Sketch(Block):
    """A distribution in `POINTS` quantiles.

    Attributes
    ----------
    ties
        Share of the most frequent value.
    level, spread
        Rank scores of the rows that the sketch was made from; features and forecasts have them.
    """

    quantiles: Annotated[tuple[Finite, ...], Field(min_length=2)]
    mean: Finite
    sd: Size
    ties: Annotated[float, Field(ge=0, le=1)]
    level: Scores | None = None
    spread: Scores | None = None

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        if any(b < a for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("quantiles must not fall")
        return self


class Sharpness(Block):
    """How well a covariate x tells up from down: ``P(up | x) = sigmoid(intercept + slope · x)``.

    Attributes
    ----------
    correlation
        Between the scores of two symbols at one time; 0 with one symbol.
    design_effect
        How many outcomes count as one; the standard errors hold it already.
    """

    intercept: Estimate
    slope: Estimate
    correlation: Finite
    design_effect: Annotated[float, Field(ge=1)]


class Direction(Sharpness):
    """The probability of up; x is its log odds."""

    base_rate: Annotated[float, Field(ge=0, le=1)]
    accuracy: Estimate
    loss: Estimate
    loss_sd: Size


class Return(Sharpness):
    """The return forecast; x is `alignment_covariate`, so sign and size of the return both count.

    Attributes
    ----------
    size_share
        How much the size counts, as the holdout's returns have it: 0 not at all, 1 as with Gaussian errors.
    residual
        (return − forecast) / forecast volatility per bar.
    alignment
        Forecast times return, both over the forecast volatility.
    coverage
        Share of returns inside their interval.
    loss
        Mean squared residual.
    """

    size_share: Annotated[float, Field(ge=0, le=1)]
    residual: Sketch
    alignment: Sketch
    coverage: Estimate
    loss: Estimate
    loss_sd: Size


class Range(Block):
    """The log range forecast; its residual is label − forecast.

    Attributes
    ----------
    memory
        What the residuals before foretell of one, newest first: the coefficients of an autoregression about `mean`.
        What is left is the *innovation*.
    innovation_sd
        Standard deviation of the innovations.
    scores
        Quantiles of the innovation at the normal scores from ``-limit`` to ``limit`` in equal steps.
    symbol_effect, location_effect, scale_effect
        Design effects of the scores at one time, of the scores over all time, and of their squares.
    """

    residual: Sketch
    mean: Estimate
    memory: tuple[Finite, ...]
    innovation_sd: Size
    scores: Annotated[tuple[Finite, ...], Field(min_length=2)]
    limit: Annotated[float, Field(gt=0)]
    correlation: Finite
    symbol_effect: Annotated[float, Field(ge=1)]
    location_effect: Annotated[float, Field(ge=1)]
    scale_effect: Annotated[float, Field(ge=1)]
    coverage: Estimate
    loss: Estimate
    loss_sd: Size


class Features(Block):
    """Sketches of every feature, in schema order, over the rows that trained and over the newest ones."""

    names: tuple[str, ...]
    train: tuple[Sketch, ...]
    recent: tuple[Sketch, ...]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not len(self.names) == len(self.train) == len(self.recent):
            raise ValueError("every feature needs a sketch of the training rows and one of the recent ones")
        return self


class Forecasts(Block):
    """Sketches of the holdout's forecasts; range is in logs."""

    p_up: Sketch
    ret: Sketch
    range: Sketch


class Reference(Block):
    """The content of ``reference.json``.

    Attributes
    ----------
    rows, times, symbols
        Size of the holdout.
    overlap
        How many later outcomes of a symbol share bars with one.
    """

    format: Literal[1]
    rows: Annotated[int, Field(ge=1)]
    times: Annotated[int, Field(ge=1)]
    symbols: Annotated[int, Field(ge=1)]
    train_rows: Annotated[int, Field(ge=1)]
    overlap: Annotated[int, Field(ge=0)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    direction: Direction
    ret: Return
    range: Range
    features: Features
    forecasts: Forecasts

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Return the reference that `content` describes; a BundleError names what is wrong with it."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise BundleError(f"reference.json: {where}: {first['msg']}") from None


def alignment_covariate(ret: Floats, range_: Floats, actual: Floats, share: float) -> Floats:
    """Return the covariate of the return's sign: forecast over volatility, times ``1 − share + share · size``.

    The size is that of the return over its volatility, up to `MAGNITUDE`. For a forecast with symmetric Gaussian errors
    the log odds that a return of size m is positive are ``2 · ret · m / variance``, a share of 1; where sizes tell
    nothing about signs it is 0. All arguments (n,); `range_` a fraction per bar.
    """
    size = np.minimum(np.abs(actual) / range_, MAGNITUDE)
    covariate: Floats = ret / range_ * (1.0 - share + share * size)
    return covariate


def score_grid(limit: float) -> Floats:
    """Return the normal scores that `Range.scores` are the quantiles of."""
    return np.linspace(-limit, limit, SCORES)


def normal_score_limit(count: int) -> float:
    """Return the normal score of the tenth largest of `count` values, of the largest tenth of fewer than a hundred.

    What lies beyond is too few to be mapped one by one.
    """
    beyond = min(max(count // 10, 1), 10)
    return NormalDist().inv_cdf(1.0 - beyond / (max(count, 2) + 1.0))
