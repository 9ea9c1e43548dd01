"""A resolved prediction as the few numbers that statistics on skill need."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tradeloop.monitoring.records import Resolved
from tradeloop.reference.content import MAGNITUDE

SKILL = ("accuracy", "log_loss", "alignment", "range_bias", "range_mse")
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Scored(NamedTuple):
    """One outcome beside its forecast. Plain floats: at one outcome a time they are faster than arrays.

    Attributes
    ----------
    at
        Feature time, microseconds since 1970.
    log_odds
        Of up, as forecast.
    sign
        +1 for up, −1 for not up.
    scaled, size
        Return forecast, and return, over the forecast volatility per bar.
    error
        Log range less its forecast.
    losses
        Log loss; squared error of the return over forecast volatility; squared error of the log range.
    """

    at: int
    symbol: str
    log_odds: float
    sign: float
    scaled: float
    size: float
    error: float
    losses: tuple[float, float, float]

    @property
    def hit(self) -> float:
        """1 if the likelier direction came, else 0."""
        return 1.0 if (self.log_odds >= 0) == (self.sign > 0) else 0.0

    @property
    def skill(self) -> tuple[float, ...]:
        """The values that `SKILL` names."""
        return (self.hit, self.losses[0], self.scaled * self.size, self.error, self.losses[2])

    def covariate(self, share: float) -> float:
        """Return the covariate of the return's sign; see `reference.content.alignment_covariate`."""
        return self.scaled * (1.0 - share + share * min(abs(self.size), MAGNITUDE))


def score(resolved: Resolved) -> Scored | None:
    """Return the numbers of a resolved prediction; None unless its forecasts and labels are all there and finite."""
    p, o = resolved.prediction, resolved.outcome
    given = (p.p_up, p.ret, p.range, o.direction, o.ret, o.range)
    if None in given:
        return None
    p_up, ret, volatility, direction, actual, log_range = given
    assert p_up is not None and ret is not None and volatility is not None  # for the type checker: see above
    assert direction is not None and actual is not None and log_range is not None
    if not math.isfinite(p_up + ret + volatility + direction + actual + log_range) or volatility <= 0:
        return None
    kept = min(max(p_up, _EDGE), 1.0 - _EDGE)
    log_odds = math.log(kept / (1.0 - kept))
    sign = 1.0 if direction > 0.5 else -1.0
    scaled, size = ret / volatility, actual / volatility
    error = log_range - math.log(volatility)
    return Scored(
        at=microseconds(p.feature_time),
        symbol=p.symbol,
        log_odds=log_odds,
        sign=sign,
        scaled=scaled,
        size=size,
        error=error,
        losses=(softplus(-sign * log_odds), (size - scaled) ** 2, error * error),
    )


def softplus(x: float) -> float:
    """Return ``log(1 + exp(x))``."""
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))


def microseconds(time: datetime | None) -> int:
    """Return a time as microseconds since 1970, None as 0."""
    return 0 if time is None else (time - _EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    """Return the time, UTC, of microseconds since 1970."""
    return _EPOCH + at * _MICROSECOND
