"""Resolved predictions as arrays, with the numbers that statistics on skill need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.ensemble import logit
from tradeloop.monitoring.records import Resolved
from tradeloop.reference.content import alignment_covariate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class OutcomeRows:
    """n resolved predictions of one feature time.

    Attributes
    ----------
    at
        Feature time, microseconds since 1970.
    symbols
        (n,) names.
    log_odds
        Of up, as forecast.
    sign
        +1 for up, −1 for not up.
    ret, volatility
        Forecast return; forecast range, as a fraction per bar.
    actual
        Return.
    error
        Log range less its forecast.
    """

    at: int
    symbols: list[str]
    log_odds: Floats
    sign: Floats
    ret: Floats
    volatility: Floats
    actual: Floats
    error: Floats

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def of(cls, batch: Sequence[Resolved]) -> Self:
        """Return the rows of those whose forecasts and labels are all there and finite."""
        table = np.array(
            [
                (p.p_up, p.ret, p.range, o.direction, o.ret, o.range)
                for p, o in ((resolved.prediction, resolved.outcome) for resolved in batch)
            ],
            dtype=np.float64,
        ).reshape(-1, 6)
        usable: NDArray[np.bool_] = np.isfinite(table).all(axis=1) & (table[:, 2] > 0)
        kept = [resolved for resolved, whole in zip(batch, usable.tolist(), strict=True) if whole]
        if len(kept) < len(batch):
            table = table[usable]
        p_up, ret, volatility, direction, actual, log_range = table.T
        return cls(
            at=microseconds(kept[0].prediction.feature_time) if kept else 0,
            symbols=[resolved.prediction.symbol for resolved in kept],
            log_odds=logit(p_up),
            sign=2.0 * (direction > 0.5) - 1.0,
            ret=ret,
            volatility=volatility,
            actual=actual,
            error=log_range - np.log(volatility),
        )

    @property
    def covariate(self) -> Floats:
        """Covariate of the return's sign, see `alignment_covariate`."""
        return alignment_covariate(self.ret, self.volatility, self.actual)

    def sums(self, losses: Floats) -> Floats:
        """Return the sums over the rows of what `SKILL` names, each with its sum of squares (2 · len(SKILL),)."""
        hit = (self.log_odds >= 0) == (self.sign > 0)
        alignment = self.ret * self.actual / self.volatility**2
        values = np.stack([hit, losses[:, 0], alignment, self.error, losses[:, 2]])
        return np.stack([values.sum(axis=1), (values * values).sum(axis=1)], axis=1).ravel()

    def losses(self) -> Floats:
        """Return the losses of the three targets (n, 3): log loss, squared scaled error, squared error of log range."""
        columns = (
            np.logaddexp(0.0, -self.sign * self.log_odds),
            ((self.actual - self.ret) / self.volatility) ** 2,
            self.error**2,
        )
        return np.stack(columns, axis=1)


SKILL = ("accuracy", "log_loss", "alignment", "range_bias", "range_mse")


def microseconds(time: datetime | None) -> int:
    """Return a time as microseconds since 1970, None as 0."""
    return 0 if time is None else (time - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return the time, UTC, of microseconds since 1970."""
    return _EPOCH + microseconds * _MICROSECOND
