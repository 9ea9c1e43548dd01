"""Calibration drift: whether probabilities and intervals still mean what they said on the holdout.

Three sequential tests in one statistic (`sequential`), so it may be looked at after every outcome:

``p_up``
    The line that recalibrates the probability is no longer the holdout's: forecasts have become too sure of themselves
    (slope halved or gone), not sure enough (slope half as large again), or too low or high (intercept).
``ret``, ``range``
    Fewer outcomes lie inside the interval than on the holdout, or more.

Skill may fall without this (sharper forecasts are missing) and this may happen without a loss of rank (everything is
said too boldly): the first asks for new training, the second for new calibration only. Effect sizes are over the last
`window` outcomes: slope and intercept now, expected calibration error, coverage. As in `degradation`, the null is
taken `margin` standard errors from the holdout's estimate towards each alternative, and restated outcomes are left out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from tradeloop.config import Degradation
from tradeloop.ensemble import sigmoid
from tradeloop.metrics.calibration import ece
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scored import microseconds, moment, score
from tradeloop.monitoring.sequential import Bet, Detector, Line, SignBets
from tradeloop.reference import Estimate, Reference, Sharpness, fit_line

Json = dict[str, Any]

_TARGETS = ("p_up", "ret", "range")
# Slope as a multiple of the holdout's, and change of the intercept.
_LINES = (
    ("too sure", 0.5, 0.0, 0.3),
    ("without meaning", 0.0, 0.0, 0.2),
    ("not sure enough", 1.5, 0.0, 0.1),
    ("too low", 1.0, 0.3, 0.2),
    ("too high", 1.0, -0.3, 0.2),
)
# Change of the log odds of lying inside.
_COVERAGE = (("too narrow", -0.8, 0.5), ("far too narrow", -2.0, 0.3), ("too wide", 1.0, 0.2))


class CalibrationMonitor:
    """The watch over one champion's calibration; parameters are those of the skill monitor, ``params.degradation``."""

    def __init__(self, reference: Reference, config: Degradation) -> None:
        self._reference = reference
        self._config = config
        bets, self._p_up = _line_bets(reference.direction, config.margin)
        self._inside = []
        for target, coverage in (("ret", reference.ret.coverage), ("range", reference.range.coverage)):
            more, sign_bets = _coverage_bets(target, coverage, config.margin, rows=reference.rows)
            bets += more
            self._inside.append(sign_bets)
        self._detector = Detector(bets, config.run_length, width=0)
        self._recent: deque[list[float]] = deque(maxlen=config.window)
        self._alarm: Json | None = None

    @property
    def alarm(self) -> Json | None:
        """The first alarm since the last reset: seq, time, alternative, change, outcomes, targets."""
        return self._alarm

    def update(self, batch: Sequence[Resolved]) -> None:
        """Take the outcomes of one feature time, of all symbols together, in the order of their `seq`."""
        rows, last = [], None
        for resolved in batch:
            row = _row(resolved)
            if row is not None:
                rows.append(row)
                last = resolved
        if last is None:
            return
        self._recent.extend(rows)
        ratios = self._p_up.log_ratios([(row[0], row[1]) for row in rows])
        for number, bets in enumerate(self._inside):
            ratios += bets.log_ratios([(0.0, row[2 + number]) for row in rows])
        at = microseconds(last.prediction.feature_time)
        if self._detector.update(ratios, len(rows), at=at, sums=()) and self._alarm is None:
            self._alarm = self._raise(last)

    def _raise(self, last: Resolved) -> Json:
        number = self._detector.leader()
        at, outcomes, _ = self._detector.change(number)
        bet = self._detector.bets[number]
        return {
            "seq": last.seq,
            "time": last.outcome.resolved_at.isoformat(),
            "alternative": f"{bet.target}: {bet.name}",
            "change": moment(at).isoformat(),
            "outcomes": outcomes,
            "targets": self._detector.shares(),
        }

    def evidence(self) -> Json:
        """Return all that is known, as JSON with finite numbers; null where there are no outcomes yet."""
        statistic = self._detector.statistic
        return {
            "outcomes": self._detector.count,
            "statistic": statistic if math.isfinite(statistic) else None,
            "threshold": self._detector.threshold,
            "targets": self._detector.shares(),
            "alarm": self._alarm,
            "window": self._window(),
        }

    def _window(self) -> Json | None:
        """Return the effect sizes over the recent outcomes, beside the holdout's."""
        if not self._recent:
            return None
        table = np.array(self._recent)
        log_odds, up = table[:, 0], (table[:, 1] > 0).astype(np.float64)
        (intercept, slope), covariance = fit_line(log_odds, up)
        z = NormalDist().inv_cdf((1 + self._config.confidence) / 2)
        direction = self._reference.direction
        radii = z * np.sqrt(np.diag(covariance) * direction.design_effect)
        shown: Json = {
            "outcomes": len(table),
            "intercept": _interval(intercept, float(radii[0]), direction.intercept),
            "slope": _interval(slope, float(radii[1]), direction.slope),
            "ece": float(ece(up, sigmoid(log_odds))),
        }
        for number, target in enumerate(("ret", "range")):
            expected = getattr(self._reference, target).coverage
            share = float((table[:, 2 + number] > 0).mean())
            radius = z * math.sqrt(max(share * (1 - share), 1 / len(table)) / len(table))
            shown[f"{target}_coverage"] = _interval(share, radius, expected)
        return shown

    def reset(self) -> None:
        """Forget all evidence, and begin again."""
        self._detector.clear()
        self._recent.clear()
        self._alarm = None

    def state(self) -> Json:
        """Return what `restore` needs, as JSON."""
        return {"detector": self._detector.state(), "recent": [list(row) for row in self._recent], "alarm": self._alarm}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; ValueError if it is that of other bets."""
        self._detector.restore(state["detector"])
        self._recent.clear()
        self._recent.extend(list(row) for row in state["recent"])
        self._alarm = state["alarm"]


def _row(resolved: Resolved) -> list[float] | None:
    """Return log odds, sign, and ±1 for inside or outside of each interval; None for what cannot be used."""
    scored = None if resolved.outcome.revision else score(resolved)
    p, o = resolved.prediction, resolved.outcome
    ends = (p.ret_low, p.ret_high, p.range_low, p.range_high)
    ret_low, ret_high, range_low, range_high = (math.nan if end is None else end for end in ends)
    if scored is None or o.ret is None or o.range is None or math.isnan(ret_low + ret_high + range_low + range_high):
        return None
    inside = (ret_low <= o.ret <= ret_high, range_low <= math.exp(o.range) <= range_high)
    return [float(f"{scored.log_odds:.6g}"), scored.sign, *(1.0 if held else -1.0 for held in inside)]


def _interval(value: float, radius: float, expected: Estimate) -> Json:
    return {"value": float(value), "low": value - radius, "high": value + radius, "expected": expected.value}


def _line_bets(direction: Sharpness, margin: float) -> tuple[list[Bet], SignBets]:
    """Return the bets on the line; those on its slope only where the holdout's slope can be told from none."""
    level, slope = direction.intercept, direction.slope
    told = slope.value - margin * slope.se > 0
    bets, pairs = [], []
    for name, multiple, change, weight in _LINES:
        if multiple != 1.0 and not told:
            continue
        off_level = math.copysign(margin * level.se, change) if change else 0.0
        off_slope = math.copysign(margin * slope.se, multiple - 1) if multiple != 1.0 else 0.0
        null = Line(level.value + off_level, slope.value + off_slope)
        pairs.append((Line(null.intercept + change, multiple * null.slope), null))
        bets.append(Bet("p_up", name, weight / len(_TARGETS)))
    return bets, SignBets(pairs, direction.design_effect)


def _coverage_bets(target: str, coverage: Estimate, margin: float, *, rows: int) -> tuple[list[Bet], SignBets]:
    # A holdout in which all or none lay inside says that of `rows` outcomes less than one does otherwise.
    share = min(max(coverage.value, 0.5 / rows), 1 - 0.5 / rows)
    variance = share * (1 - share)
    odds, se = math.log(share / (1 - share)), max(coverage.se, math.sqrt(variance / rows)) / variance
    effect = max(coverage.se**2 * rows / variance, 1.0)
    pairs = []
    for _, change, _ in _COVERAGE:
        null = odds + math.copysign(margin * se, change)
        pairs.append((Line(null + change, 0.0), Line(null, 0.0)))
    return [Bet(target, name, weight / len(_TARGETS)) for name, _, weight in _COVERAGE], SignBets(pairs, effect)
