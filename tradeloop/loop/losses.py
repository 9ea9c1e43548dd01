"""What a forecast lost on an outcome, for two models side by side and for the naive baseline beside them.

========= ====================================================================================================
direction log loss; the baseline is the running base rate of up
return    squared error in units of the forecast variance (the geometric mean of both models'); the baseline is 0
range     squared error in logs; the baseline is the symbol's exponentially weighted mean of past labels, λ = .94
========= ====================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tradeloop.config import Target
from tradeloop.monitoring.records import Resolved

DECAY = 0.94
_PRIOR = 50.0  # outcomes that the base rate of the holdout counts for
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Probability of up, gross log return, and log of the volatility per bar; None where one was withheld."""

    p_up: float | None
    ret: float | None
    log_range: float | None

    @classmethod
    def of(cls, resolved: Resolved) -> Self:
        """Return what was forecast in a prediction."""
        said = resolved.prediction
        return cls(said.p_up, said.ret, math.log(said.range) if said.range else None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models' forecasts of one symbol's bar, and what came of it (labels as in `tradeloop.labels`)."""

    symbol: str
    feature_time: datetime
    label_end: datetime
    champion: Forecasts
    challenger: Forecasts
    direction: float
    ret: float
    range: float


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses on one target; `baseline` is None as long as it has no forecast."""

    champion: float
    challenger: float
    baseline: float | None


class Baselines:
    """The naive forecasts, learned from the outcomes as they come.

    With overlapping labels they know labels that had not ended at the forecast's time: they are a little better than
    anybody could be, and the skill above them a little understated.

    Parameters
    ----------
    base_rate
        Share of up in the champion's holdout; it counts as 50 outcomes. None: one half.
    """

    __slots__ = ("_levels", "_seen", "_up")

    def __init__(self, base_rate: float | None = None) -> None:
        self._up = _PRIOR * (0.5 if base_rate is None else base_rate)
        self._seen = _PRIOR
        self._levels: dict[str, float] = {}

    def losses(self, pair: Pair) -> dict[Target, Losses]:
        """Return the losses of those targets that both models forecast."""
        found: dict[Target, Losses] = {}
        ours, theirs, up = pair.champion, pair.challenger, pair.direction
        if ours.p_up is not None and theirs.p_up is not None:
            base = _log_loss(self._up / self._seen, up)
            found["direction"] = Losses(_log_loss(ours.p_up, up), _log_loss(theirs.p_up, up), base)
        if ours.log_range is None or theirs.log_range is None:
            return found
        if ours.ret is not None and theirs.ret is not None:
            variance = math.exp(ours.log_range + theirs.log_range)
            errors = (pair.ret - ours.ret, pair.ret - theirs.ret, pair.ret)
            found["return"] = Losses(*(error * error / variance for error in errors))
        level = self._levels.get(pair.symbol)
        found["range"] = Losses(
            (pair.range - ours.log_range) ** 2,
            (pair.range - theirs.log_range) ** 2,
            None if level is None else (pair.range - level) ** 2,
        )
        return found

    def learn(self, pair: Pair) -> None:
        """Take an outcome into account."""
        self._up += pair.direction
        self._seen += 1.0
        level = self._levels.get(pair.symbol, pair.range)
        self._levels[pair.symbol] = DECAY * level + (1.0 - DECAY) * pair.range

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"up": self._up, "seen": self._seen, "levels": dict(self._levels)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._up, self._seen = float(state["up"]), float(state["seen"])
        self._levels = {symbol: float(level) for symbol, level in state["levels"].items()}


def _log_loss(p_up: float, up: float) -> float:
    p = min(max(p_up, _EDGE), 1.0 - _EDGE)
    return -math.log(p if up > 0.5 else 1.0 - p)
