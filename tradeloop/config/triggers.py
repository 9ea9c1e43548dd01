"""The block of the triggers: what asks for a retraining, and how often it may. Spans are of the market's time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tradeloop.config.base import Block, Count, Share, Span


class AccuracyDropParams(Block):
    """Retrain on the rows since the change: at `min_rows` of them, and at `growth` times as many, `attempts` in all.

    With fewer than `full_rows` before the holdout the `leaves`, parameters by dotted name, shrink in proportion.
    Targets that carry less than `keep_share` of the alarm's evidence are kept as the champion has them, until there are
    `keep_rows` since the change to learn them from.
    """

    enabled: bool = True
    cooldown: Span | None = None
    min_rows: Count = 400
    growth: Annotated[float, Field(gt=1)] = 2.0
    attempts: Count = 4
    full_rows: Count = 800
    keep_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    keep_rows: Count = 4000
    leaves: list[str] = ["train.random_forest.min_samples_leaf", "train.xgboost.min_child_weight"]


class CalibrationDriftParams(Block):
    """Retrain when the probabilities are off and no online adaptation mends them."""

    enabled: bool = True
    cooldown: Span | None = "7d"


class DataDriftParams(Block):
    """Retrain on the newest `recent_rows` when at least `share` of the features have drifted."""

    enabled: bool = True
    cooldown: Span | None = "7d"
    share: Share = 0.2
    recent_rows: Count = 4000


class TimeBasedParams(Block):
    """Retrain when the last training is older than the volatility regime allows."""

    enabled: bool = True
    cooldown: Span | None = None
    low: Span = "14d"
    normal: Span = "7d"
    high: Span = "3d"


class RegimeChangeParams(Block):
    """Retrain when one of `regimes` has begun and lasted for `settled`."""

    enabled: bool = True
    cooldown: Span | None = "14d"
    regimes: list[Literal["low", "normal", "high"]] = ["high"]
    settled: Span = "1d"


class NewDataParams(Block):
    """Retrain whenever so many more bars have closed that the champion was not trained on."""

    enabled: bool = True
    cooldown: Span | None = None
    bars: Count = 2000


class ManualParams(Block):
    """Retrain because a person asked."""

    enabled: bool = True


class Triggers(Block):
    """What all triggers share.

    `cooldown` is the least time between two retrainings, unless the second is more urgent; `daily_budget` bounds those
    of any 24 hours. After a failed job the next waits `patience`, and twice as long after each further failure.
    """

    cooldown: Span = "1d"
    daily_budget: Count = 2
    patience: Span = "6h"
    accuracy_drop: AccuracyDropParams = AccuracyDropParams()
    calibration_drift: CalibrationDriftParams = CalibrationDriftParams()
    data_drift: DataDriftParams = DataDriftParams()
    time_based: TimeBasedParams = TimeBasedParams()
    regime_change: RegimeChangeParams = RegimeChangeParams()
    new_data: NewDataParams = NewDataParams()
    manual: ManualParams = ManualParams()
