r"""Sequential tests that may be looked at after every outcome: an e-detector over a small family of alternatives.

A *bet* is a ratio L of two likelihoods of an outcome: of an alternative, and of the null hypothesis. Under the null its
mean, given the past, is at most 1. For each bet j of weight w_j (the weights sum to 1), over n outcomes that are
learned together,

.. math:: R_j \leftarrow w_j\, n \prod L_j^0 + R_j \prod L_j

where :math:`L^0` is the ratio of outcomes with which the change begins, in most bets the same as L. So
:math:`\sum_j R_j` less the number of outcomes is a supermartingale, and an alarm at :math:`\sum_j R_j \ge A`
comes, without a change, after A outcomes on average or later, whatever the alternatives are (Shin, Ramdas
and Rinaldo 2022, "E-detectors", section 2; for one known alternative it is the test of Shiryaev and Roberts, which is
nearly optimal against Lorden's limit).

Dependent outcomes: where d of them count as one (the reference's design effect), each ratio is taken to the power 1/d.
With d outcomes at one time that is Hölder's inequality and holds for any dependence; for a smaller d it holds as far as
their sums are nearly normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log1p
from typing import Any

_LARGEST = 1e250  # a statistic beyond it says nothing more
_STEEPEST = 100.0  # nor does a ratio beyond e to this power


@dataclass(frozen=True)
class Bet:
    """One alternative: which target it is about, what it says, its share of the weight."""

    target: str
    name: str
    weight: float


class Detector:
    """The recursions over all bets, and when each alternative seems to have begun.

    Beside R_j runs the CUSUM of each bet's log likelihood ratio: the time at which it last stood at zero is the
    likeliest time of change, and the sums of what the caller hands over since then say what skill is now.

    Plain floats: on a dozen bets they are faster than arrays.

    Parameters
    ----------
    bets
        None is allowed: then there is nothing to find.
    run_length
        The alarm's threshold A.
    width
        How many numbers the caller sums up.
    """

    def __init__(self, bets: Sequence[Bet], run_length: float, *, width: int) -> None:
        self.bets = tuple(bets)
        self.run_length = run_length
        self.threshold = math.log(run_length)
        self._weights = [bet.weight for bet in bets]
        self._width = width
        self.count = 0
        self.clear()

    def clear(self) -> None:
        """Begin again, as if nothing had been seen; the count of outcomes goes on."""
        size = len(self.bets)
        self._r = [0.0] * size
        self._cusum = [0.0] * size
        self._totals = [0.0] * self._width
        # By bet: count, time of the first outcome and totals where the CUSUM left zero.
        self._began = [(self.count, 0, tuple(self._totals))] * size

    def update(
        self,
        log_ratios: Sequence[float],
        count: int,
        *,
        at: int,
        sums: Sequence[float],
        onsets: Sequence[float] | None = None,
    ) -> bool:
        """Add `count` outcomes of the time `at` (microseconds since 1970); return whether the threshold is reached.

        Parameters
        ----------
        log_ratios
            Log of each bet's product of ratios, if the change has begun before.
        sums
            What the outcomes add to the sums.
        onsets
            Log of each bet's product of ratios, if the change begins here; None: the same.
        """
        weights, r, cusum, began = self._weights, self._r, self._cusum, self._began
        onsets = log_ratios if onsets is None else onsets
        here = None
        for number, (log_ratio, onset) in enumerate(zip(log_ratios, onsets, strict=True)):
            ratio = exp(log_ratio if log_ratio < _STEEPEST else _STEEPEST)
            first = ratio if onset == log_ratio else exp(onset if onset < _STEEPEST else _STEEPEST)
            grown = weights[number] * count * first + r[number] * ratio
            r[number] = grown if grown < _LARGEST else _LARGEST
            if cusum[number] <= 0.0:
                here = here or (self.count, at, tuple(self._totals))
                began[number] = here
                cusum[number] = onset
            else:
                cusum[number] += log_ratio
        self._totals = [total + more for total, more in zip(self._totals, sums, strict=True)]
        self.count += count
        return sum(r) >= self.run_length

    @property
    def statistic(self) -> float:
        """Log of the sum over all bets."""
        total = sum(self._r)
        return math.log(total) if total > 0 else -math.inf

    def shares(self) -> dict[str, float]:
        """Return each target's share of the statistic."""
        total = sum(self._r)
        shares = dict.fromkeys((bet.target for bet in self.bets), 0.0)
        for bet, value in zip(self.bets, self._r, strict=True):
            shares[bet.target] += value / total if total > 0 else 0.0
        return shares

    def leader(self) -> int:
        """Return the number of the bet with the largest part of the statistic."""
        return self._r.index(max(self._r))

    def change(self, number: int) -> tuple[int, int, list[float]]:
        """Return when a bet's alternative seems to have begun, the outcomes since, and their sums.

        The time is that of the first outcome after the change (microseconds since 1970).
        """
        count, at, totals = self._began[number]
        return at, self.count - count, [now - before for now, before in zip(self._totals, totals, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "count": self.count,
            "r": list(self._r),
            "cusum": list(self._cusum),
            "totals": list(self._totals),
            "began": [[count, at, list(totals)] for count, at, totals in self._began],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; ValueError if it is that of other bets."""
        if len(state["r"]) != len(self.bets):
            raise ValueError(f"the state holds {len(state['r'])} bets, this detector has {len(self.bets)}")
        self.count = int(state["count"])
        self._r = [float(value) for value in state["r"]]
        self._cusum = [float(value) for value in state["cusum"]]
        self._totals = [float(value) for value in state["totals"]]
        self._began = [(int(count), int(at), tuple(map(float, totals))) for count, at, totals in state["began"]]


@dataclass(frozen=True)
class Line:
    """``P(up | x) = sigmoid(intercept + slope · x)``."""

    intercept: float
    slope: float


class SignBets:
    """Bets on the sign of an outcome, given a covariate: ratios of two logistic lines.

    Parameters
    ----------
    pairs
        Alternative and null of each bet.
    effect
        Design effect.
    """

    def __init__(self, pairs: Sequence[tuple[Line, Line]], effect: float) -> None:
        lines = list(dict.fromkeys(line for pair in pairs for line in pair))
        self._lines = [(line.intercept, line.slope) for line in lines]
        self._pairs = [(lines.index(alternative), lines.index(null)) for alternative, null in pairs]
        self._power = 1.0 / effect

    def log_ratios(self, outcomes: Sequence[tuple[float, float]]) -> list[float]:
        """Return the log of each bet's product of ratios over outcomes (covariate, sign ±1)."""
        losses = [0.0] * len(self._lines)
        for x, sign in outcomes:
            for number, (intercept, slope) in enumerate(self._lines):
                margin = -sign * (intercept + slope * x)
                losses[number] += margin + log1p(exp(-margin)) if margin > 0 else log1p(exp(margin))
        return [(losses[null] - losses[alternative]) * self._power for alternative, null in self._pairs]


@dataclass(frozen=True)
class Shift:
    """The mean of a standard normal score has moved to `onset` at first, from 0, and then to `mean`, from `null`."""

    mean: float
    onset: float
    null: float


class ScoreBets:
    """Bets on a score that is standard normal under the null: that its mean has moved, or its spread grown.

    Parameters
    ----------
    shifts
        Bets on the mean.
    scales
        (alternative, null) standard deviation of each bet on the spread.
    symbol_effect, location_effect, scale_effect
        Design effects of the scores of one time, of all, and of their squares.
    """

    def __init__(
        self,
        shifts: Sequence[Shift],
        scales: Sequence[tuple[float, float]],
        *,
        symbol_effect: float,
        location_effect: float,
        scale_effect: float,
    ) -> None:
        grown = [(math.log(b / a) / scale_effect, 0.0, (b**-2 - a**-2) / 2 / scale_effect) for a, b in scales]
        self._later = [_moved(shift.mean, shift.null, location_effect) for shift in shifts] + grown
        at_first = [
            _moved(shift.mean, shift.null, location_effect)
            if shift.onset == shift.mean
            else _moved(shift.onset, 0.0, symbol_effect)
            for shift in shifts
        ]
        self._at_first = at_first + grown

    def log_ratios(self, scores: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return the log of each bet's product of ratios over scores, if the change began before, and if it does now.

        Bets on the mean come first.
        """
        count, total, squares = len(scores), sum(scores), sum(score * score for score in scores)
        later, at_first = (
            [constant * count + linear * total + square * squares for constant, linear, square in terms]
            for terms in (self._later, self._at_first)
        )
        return later, at_first


def _moved(mean: float, null: float, effect: float) -> tuple[float, float, float]:
    """Return the coefficients of 1, score and squared score in the log ratio of two normal means."""
    return (null * null - mean * mean) / 2 / effect, (mean - null) / effect, 0.0
