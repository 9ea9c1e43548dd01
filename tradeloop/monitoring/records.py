"""What monitoring and loop know of a prediction and of how it ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tradeloop.predictor import Prediction

Status = Literal["resolved", "expired", "void"]
Regime = Literal["low", "normal", "high", "unknown"]


@dataclass(frozen=True, slots=True)
class Logged:
    """A prediction as it was logged; the columns of the table ``predictions``.

    Attributes
    ----------
    model
        Bundle hash.
    arm, answered, parent
        Whether it answered the bot (``champion``, ``canary``, ``ab``) or only watched (``shadow``, or any arm with
        `answered` false, whose `parent` is the answered prediction of the same question).
    p_up, ret, ret_low, ret_high, range, range_low, range_high
        The forecasts; `ret` gross log, ranges as fractions of the price per bar. None where it was withheld.
    latency
        Milliseconds from question to forecast.
    """

    id: str
    symbol: str
    model: str
    arm: str
    answered: bool
    parent: str | None
    asked_at: datetime
    feature_time: datetime | None
    clock: str
    verdict: str
    p_up: float | None
    ret: float | None
    ret_low: float | None
    ret_high: float | None
    range: float | None
    range_low: float | None
    range_high: float | None
    side: str | None
    edge: float | None
    latency: float | None
    adaptation: str | None

    @classmethod
    def of(cls, prediction: Prediction) -> Logged:
        """Return what the log says of a prediction, without reading it there."""
        return cls(*_COLUMNS(prediction))


_COLUMNS = attrgetter(*(field.name for field in fields(Logged)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prediction ended.

    Attributes
    ----------
    seq
        Position in the order in which outcomes were learned; grows, with gaps.
    direction, ret, range
        The labels, as `tradeloop.labels` defines them: 0 or 1, gross log return, natural log of the volatility per
        bar. None unless `status` is ``resolved``.
    regime
        Volatility regime at the features' time, as it was told when the outcome was learned.
    revision
        0 for the first outcome; a restatement of the bars behind it makes 1, 2, ...
    repeat
        Whether an earlier outcome belongs to the same question (symbol and bar), model and arm. A bot that asks every
        minute about hourly bars gets sixty answers with one and the same outcome; only the first is new evidence.
    """

    seq: int
    prediction_id: str
    status: Status
    reason: str | None
    label_end: datetime | None
    direction: float | None
    ret: float | None
    range: float | None
    regime: Regime
    revision: int
    resolved_at: datetime
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """A prediction that was forecast (not withheld) and whose labels are known."""

    prediction: Logged
    outcome: Outcome

    @property
    def seq(self) -> int:
        """Position of the outcome."""
        return self.outcome.seq
