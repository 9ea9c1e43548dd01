"""What the bot's fills teach: what a trade costs, whether trades pay, and what follows for the thresholds.

From the newest fills (`monitoring.fills.costs`) and closed trades (`monitoring.fills.realised`):

*Cost.* The mean cost of a trade one way, with the outermost tenth of fills at either end drawn in to the next one, and
its interval (winsorised mean, Yuen 1974): one bad fill does not move it, an overall change does. Where the interval
lies above what the champion assumes, the hurdle that an expected edge must clear is raised at once, through the
snapshot that the service applies. In both directions ``evaluate.cost_bps`` is proposed for the next retraining, from
which backtest, thresholds and gate follow.

*Profit.* Where closed trades are proven to lose after costs, a larger ``evaluate.threshold`` is proposed.

Nothing edits params.yaml: proposals are overrides of a retraining, recorded with their evidence, and bounded. The
hurdle comes down again as fills get cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tradeloop.config import Evaluate
from tradeloop.config import Feedback as FeedbackConfig

Decision = Literal["wait", "keep", "raise", "lower"]

_TAIL = 0.1


@dataclass(frozen=True)
class Estimate:
    """A robust mean with its interval, and the number of values behind it."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Advice:
    """What follows from the fills.

    Attributes
    ----------
    decision
        ``wait`` while there are too few fills; ``raise`` and ``lower`` are about the cost that is assumed.
    hurdle_bps
        The cost that the service is to reckon with, one way; None for the champion's own.
    overrides
        Parameters of the next retraining, by dotted name.
    evidence
        ``realised``, ``low``, ``high`` and ``assumed`` costs in basis points, ``fills``; of the profits ``trades`` and
        ``net_bps`` with its interval. Empty while there are too few fills.
    """

    decision: Decision
    reason: str
    hurdle_bps: float | None
    overrides: dict[str, float]
    evidence: dict[str, Any]


def robust_mean(values: Sequence[float], *, confidence: float) -> Estimate:
    """Return the winsorised mean with its interval; at least 5 finite values.

    The outermost tenth at either end is drawn in to the next value; the standard error is that of the trimmed mean,
    ``s_w / ((1 − 2 · 0.1) √n)`` with the winsorised standard deviation.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n < 5 or not np.isfinite(ordered).all():
        raise ValueError(f"a robust mean needs at least 5 finite values, got {n}")
    cut = math.floor(_TAIL * n)
    drawn = np.clip(ordered, ordered[cut], ordered[n - 1 - cut])
    kept = n - 2 * cut
    error = float(drawn.std(ddof=1)) * (n - 1) / (kept - 1) / math.sqrt(n) if kept > 1 else math.inf
    half = float(stats.t.ppf(0.5 + confidence / 2, kept - 1)) * error
    centre = float(drawn.mean())
    return Estimate(centre, centre - half, centre + half, n)


class Feedback:
    """Turns fills into advice; remembers only the hurdle that is in force."""

    def __init__(self, config: FeedbackConfig, assumed: Evaluate) -> None:
        self._config = config
        self._evaluate = assumed
        self.hurdle_bps: float | None = None

    def update(self, costs: Sequence[float], net_bps: Sequence[float] = (), *, assumed: float) -> Advice:
        """Advise.

        Parameters
        ----------
        costs
            Cost of the newest fills, basis points of traded value, one way.
        net_bps
            Net profit of the newest closed trades, basis points of the value of one way.
        assumed
            What the champion reckons with: its bundle's ``thresholds.cost_bps``.
        """
        config = self._config
        if len(costs) < config.min_fills:
            reason = f"{len(costs)} fills, {config.min_fills} are needed"
            return Advice("wait", reason, self.hurdle_bps, {}, {})
        cost = robust_mean(costs[: config.window], confidence=config.confidence)
        evidence: dict[str, Any] = {
            "realised": cost.value,
            "low": cost.low,
            "high": cost.high,
            "assumed": assumed,
            "fills": cost.count,
        }
        self.hurdle_bps = self._hurdle(cost, assumed)
        overrides: dict[str, float] = {}
        decision: Decision = "keep"
        if cost.low > assumed or cost.high < assumed:
            decision = "raise" if cost.low > assumed else "lower"
            overrides["evaluate.cost_bps"] = self._proposal(cost, assumed)
        evidence |= self._profit(net_bps, overrides)
        return Advice(decision, _reason(decision, cost, assumed, overrides), self.hurdle_bps, overrides, evidence)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, as JSON."""
        return {"hurdle_bps": self.hurdle_bps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state` was taken."""
        self.hurdle_bps = state["hurdle_bps"]

    def _hurdle(self, cost: Estimate, assumed: float) -> float | None:
        """Return the hurdle: raised on proof, lowered on proof, otherwise as it is."""
        standing = assumed if self.hurdle_bps is None else max(self.hurdle_bps, assumed)
        if cost.low <= standing <= cost.high:
            return None if standing == assumed else self.hurdle_bps
        return round(min(cost.value, self._config.max_cost_bps), 2) if cost.low > assumed else None

    def _proposal(self, cost: Estimate, assumed: float) -> float:
        """Return the cost for the next retraining; where costs fell, only down to the interval's upper end."""
        factor = self._config.max_factor
        wanted = cost.value if cost.low > assumed else cost.high
        low, high = assumed / factor, max(assumed * factor, 1.0)
        return round(min(max(wanted, low, 0.0), high, self._config.max_cost_bps), 2)

    def _profit(self, net_bps: Sequence[float], overrides: dict[str, float]) -> dict[str, Any]:
        """Judge the closed trades; a proven loss adds a larger threshold to `overrides`."""
        if len(net_bps) < self._config.min_fills:
            return {}
        net = robust_mean(net_bps[: self._config.window], confidence=self._config.confidence)
        if net.high < 0:
            wider = self._evaluate.threshold * self._config.max_factor
            wanted = round(min(max(wider, 0.01), self._config.max_threshold), 4)
            if wanted > self._evaluate.threshold:
                overrides["evaluate.threshold"] = wanted
        return {"trades": net.count, "net_bps": net.value, "net_low": net.low, "net_high": net.high}


def _reason(decision: Decision, cost: Estimate, assumed: float, overrides: dict[str, float]) -> str:
    found = f"{cost.count} fills cost {cost.value:.2f} bps [{cost.low:.2f}, {cost.high:.2f}]; {assumed:g} are assumed"
    changes = ", ".join(f"{name} {value:g}" for name, value in overrides.items())
    if not changes:
        return f"{found}: nothing to change"
    return f"{found}: {decision if decision != 'keep' else 'change'}; for the next retraining {changes}"
