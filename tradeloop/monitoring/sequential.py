r"""Sequential tests that may be looked at after every outcome: an e-detector over a small family of alternatives.

A *bet* is a ratio L of two likelihoods of an outcome: of an alternative, and of the null hypothesis. Under the null its
mean, given the past, is at most 1. For each bet j of weight w_j (the weights sum to 1), over n outcomes that are
learned together,

.. math:: R_j \leftarrow (w_j\, n + R_j) \prod L_j

so that :math:`\sum_j R_j` less the number of outcomes is a supermartingale. An alarm at :math:`\sum_j R_j \ge A`
therefore comes, without a change, after A outcomes on average or later, whatever the alternatives are (Shin, Ramdas
and Rinaldo 2022, "E-detectors", section 2; for one known alternative it is the test of Shiryaev and Roberts, which is
nearly optimal against Lorden's limit). Everything is kept in logs.

Dependent outcomes: where d of them count as one (the reference's design effect), each ratio is taken to the power 1/d.
With d outcomes at one time that is Hölder's inequality and holds for any dependence; for a smaller d it holds as far as
their sums are nearly normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bet:
    """One alternative: which target it is about, what it says, its share of the weight."""

    target: str
    name: str
    weight: float


class Detector:
    """The recursions over all bets, and when each alternative seems to have begun.

    Beside R_j runs the CUSUM of each bet's log likelihood ratio: the time at which it last stood at zero is the
    likeliest time of change, and `sums` of what the caller hands over since then say what skill is now.

    Parameters
    ----------
    bets
        None is allowed: then there is nothing to find.
    run_length
        The alarm's threshold A.
    width
        How many numbers a row of `sums` has.
    """

    def __init__(self, bets: Sequence[Bet], run_length: float, *, width: int) -> None:
        self.bets = tuple(bets)
        self.threshold = float(np.log(run_length))
        with np.errstate(divide="ignore"):
            self._log_weight = np.log([bet.weight for bet in bets]) if bets else np.empty(0)
        self._width = width
        self.count = 0
        self.clear()

    def clear(self) -> None:
        """Begin again, as if nothing had been seen; the count of outcomes goes on."""
        size = len(self.bets)
        self.log_r: Floats = np.full(size, -np.inf)
        self._cusum: Floats = np.zeros(size)
        self._sums: Floats = np.zeros((size, self._width))
        self._began: Ints = np.full(size, self.count, dtype=np.int64)
        self._since: Ints = np.zeros(size, dtype=np.int64)

    def update(self, log_ratio: Floats, count: int, *, at: int, sums: Floats) -> float:
        """Add `count` outcomes of the time `at` (microseconds since 1970); return the log of the statistic.

        Parameters
        ----------
        log_ratio
            Log of each bet's product of ratios (bets,).
        sums
            What the outcomes add to the sums (width,).
        """
        if not self.bets:
            self.count += count
            return -np.inf
        self.log_r = np.logaddexp(self._log_weight + np.log(count), self.log_r) + log_ratio
        fresh = self._cusum <= 0.0
        if fresh.any():
            self._cusum[fresh] = 0.0
            self._sums[fresh] = 0.0
            self._began[fresh] = self.count
            self._since[fresh] = at
        self._cusum += log_ratio
        self._sums += sums
        self.count += count
        return self.statistic

    @property
    def statistic(self) -> float:
        """Log of the sum over all bets."""
        return float(np.logaddexp.reduce(self.log_r)) if self.bets else -np.inf

    @property
    def crossed(self) -> bool:
        """Whether the statistic has reached the threshold."""
        return self.statistic >= self.threshold

    def shares(self) -> dict[str, float]:
        """Return each target's share of the statistic."""
        total = self.statistic
        shares = dict.fromkeys((bet.target for bet in self.bets), 0.0)
        if np.isfinite(total):
            for bet, value in zip(self.bets, np.exp(self.log_r - total), strict=True):
                shares[bet.target] += float(value)
        return shares

    def leader(self, target: str | None = None) -> int:
        """Return the number of the bet with the largest part of the statistic, of a target's bets if one is named."""
        eligible = [target in (None, bet.target) for bet in self.bets]
        return int(np.argmax(np.where(eligible, self.log_r, -np.inf)))

    def change(self, number: int) -> tuple[int, int, Floats]:
        """Return when a bet's alternative seems to have begun, the outcomes since, and their sums.

        The time is that of the first outcome after the change (microseconds since 1970).
        """
        return int(self._since[number]), self.count - int(self._began[number]), self._sums[number].copy()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {
            "count": self.count,
            "log_r": [value if np.isfinite(value) else None for value in self.log_r.tolist()],
            "cusum": self._cusum.tolist(),
            "sums": self._sums.tolist(),
            "began": self._began.tolist(),
            "since": self._since.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; ValueError if it is that of other bets."""
        if len(state["log_r"]) != len(self.bets):
            raise ValueError(f"the state holds {len(state['log_r'])} bets, this detector has {len(self.bets)}")
        self.count = int(state["count"])
        self.log_r = np.array([-np.inf if value is None else value for value in state["log_r"]], dtype=np.float64)
        self._cusum = np.array(state["cusum"], dtype=np.float64)
        self._sums = np.array(state["sums"], dtype=np.float64).reshape(len(self.bets), self._width)
        self._began = np.array(state["began"], dtype=np.int64)
        self._since = np.array(state["since"], dtype=np.int64)


@dataclass(frozen=True)
class Line:
    """``P(up | x) = sigmoid(intercept + slope · x)``."""

    intercept: float
    slope: float


class SignBets:
    """Bets on the sign of an outcome, given a covariate: ratios of two logistic lines.

    Parameters
    ----------
    lines
        Alternative and null of each bet.
    effect
        Design effect.
    """

    def __init__(self, lines: Sequence[tuple[Line, Line]], effect: float) -> None:
        self._intercept = np.array([[line.intercept for line in pair] for pair in lines]).reshape(-1, 2)
        self._slope = np.array([[line.slope for line in pair] for pair in lines]).reshape(-1, 2)
        self._power = 1.0 / effect

    def log_ratio(self, x: Floats, sign: Floats) -> Floats:
        """Return the log of each bet's product of ratios (bets,) over covariates and signs (±1), both (n,)."""
        margin = -sign[:, None, None] * (self._intercept + self._slope * x[:, None, None])
        loss = np.logaddexp(0.0, margin)
        total: Floats = (loss[:, :, 1] - loss[:, :, 0]).sum(axis=0)
        return total * self._power


class ScoreBets:
    """Bets on a score that is standard normal under the null: that its mean has moved, or its spread grown.

    Parameters
    ----------
    shifts
        (alternative, null) mean of each bet on the mean.
    scales
        (alternative, null) standard deviation of each bet on the spread.
    location_effect, scale_effect
        Design effects of the score and of its square.
    """

    def __init__(
        self,
        shifts: Sequence[tuple[float, float]],
        scales: Sequence[tuple[float, float]],
        *,
        location_effect: float,
        scale_effect: float,
    ) -> None:
        rows = [((b * b - a * a) / 2, a - b, 0.0) for a, b in shifts]
        by_shift = np.array(rows).reshape(-1, 3) / location_effect
        rows = [(np.log(b / a), 0.0, (1 / b**2 - 1 / a**2) / 2) for a, b in scales]
        by_scale = np.array(rows).reshape(-1, 3) / scale_effect
        self._constant, self._linear, self._square = np.vstack([by_shift, by_scale]).T.copy()

    def log_ratio(self, score: Floats) -> Floats:
        """Return the log of each bet's product of ratios (bets,), shifts first, over scores (n,)."""
        total: Floats = (
            len(score) * self._constant + float(score.sum()) * self._linear + float(score @ score) * self._square
        )
        return total
