"""Which alternatives are bet on, against a champion's own validation skill."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, Self

from tradeloop.config import Degradation
from tradeloop.monitoring.scored import Scored
from tradeloop.monitoring.sequential import Bet, Line, ScoreBets, Shift, SignBets
from tradeloop.reference import Range, Reference, Sharpness
from tradeloop.reference.content import score_grid

# Slope as a multiple of the holdout's, and change of the intercept in log odds; shares of the target's weight.
_DIRECTION = (
    ("edge lost", 0.0, 0.0, 0.35),
    ("edge turned round", -1.0, 0.0, 0.5),
    ("edge halved", 0.5, 0.0, 0.09),
    ("more ups", 1.0, 0.4, 0.03),
    ("fewer ups", 1.0, -0.4, 0.03),
)
_RETURN = (("edge lost", 0.0, 0.0, 0.5), ("edge turned round", -1.0, 0.0, 0.5))
# Mean of the normal score at first and later, how many tolerances of it are no fall, share of the weight. A jump of
# volatility is large once: within a few bars the features have seen it.
_SHIFTS = (
    ("level jumped up", 4.5, 2.0, 1.0, 0.55),
    ("wider than forecast", 1.0, 1.0, 1.5, 0.2),
    ("level fell", -4.5, -1.5, 1.5, 0.05),
    ("narrower than forecast", -1.0, -1.0, 1.5, 0.05),
)
_SCALES = (("errors half as large again", 1.5, 0.1), ("errors twice as large", 2.0, 0.05))
_EXTREME = 6.0


class Bets:
    """All bets against one reference; `log_ratios` keeps the last error of each symbol."""

    def __init__(self, reference: Reference, config: Degradation, weights: Mapping[str, float]) -> None:
        margin = config.margin
        self.weights = dict(weights)
        self._direction, direction = _sign_bets("direction", reference.direction, _DIRECTION, margin)
        self._return, ret = _sign_bets("ret", reference.ret, _RETURN, margin)
        self._range, range_ = _score_bets(reference, margin, config.tolerance)
        self._share = reference.ret.size_share
        every = {"direction": direction, "ret": ret, "range": range_}
        self._active = [name for name in every if weights.get(name, 0.0) > 0]
        self.bets = [
            Bet(bet.target, bet.name, bet.weight * weights[name]) for name in self._active for bet in every[name]
        ]
        self._errors = ErrorScores(reference.range)

    @classmethod
    def against(cls, reference: Reference, config: Degradation) -> Self:
        """Return the bets, the weight of targets without information given to the others."""
        informative = {
            "direction": _informative(reference.direction, config.margin),
            "ret": _informative(reference.ret, config.margin),
            "range": True,
        }
        weights = {name: getattr(config.weights, name) if informative[name] else 0.0 for name in informative}
        total = sum(weights.values())
        return cls(reference, config, {name: value / total if total else 0.0 for name, value in weights.items()})

    def log_ratios(self, batch: Sequence[Scored]) -> tuple[list[float], list[float]]:
        """Return the log of each bet's product of ratios over the outcomes of one time, see `Detector.update`.

        First those of a change that has begun before, then those of one that begins here.
        """
        later: list[float] = []
        at_first: list[float] = []
        scores = [self._errors.score(scored) for scored in batch]
        for name in self._active:
            if name == "range":
                ratios, onsets = self._range.log_ratios(scores)
            elif name == "direction":
                ratios = onsets = self._direction.log_ratios([(scored.log_odds, scored.sign) for scored in batch])
            else:
                moved = [(scored.covariate(self._share), scored.sign) for scored in batch if scored.size]
                ratios = onsets = self._return.log_ratios(moved)
            later += ratios
            at_first += onsets
        return later, at_first

    def clear(self) -> None:
        """Forget the last errors."""
        self._errors.clear()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return self._errors.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._errors.restore(state)


class ErrorScores:
    """Errors of the log range as normal scores of the holdout's, freed of what the symbol's errors before foretold."""

    def __init__(self, range_: Range) -> None:
        self._mean, self._memory = range_.mean.value, range_.memory
        self._quantiles = list(range_.scores)
        self._grid: list[float] = score_grid(range_.limit).tolist()
        self._tails = [_tail(self._quantiles, self._grid, 0, 1), _tail(self._quantiles, self._grid, -1, -1)]
        # Errors by themselves are spread more widely than innovations are.
        self._alone = range_.innovation_sd / range_.residual.sd if range_.residual.sd > 0 else 1.0
        self.clear()

    def score(self, scored: Scored) -> float:
        """Return the normal score.

        An error that comes late, behind its successor, is taken by itself; so are a symbol's first ones.
        """
        apart = scored.error - self._mean
        at, before = self._last.get(scored.symbol, (scored.at - 1, []))
        if at >= scored.at:
            return self._interpolate(apart * self._alone)
        foretold = math.fsum(map(mul, self._memory, before))
        if self._memory:
            self._last[scored.symbol] = (scored.at, [apart, *before[: len(self._memory) - 1]])
        else:
            self._last[scored.symbol] = (scored.at, before)
        scale = 1.0 if len(before) == len(self._memory) else self._alone
        return self._interpolate((apart - foretold) * scale)

    def _interpolate(self, innovation: float) -> float:
        quantiles, grid = self._quantiles, self._grid
        right = bisect_right(quantiles, innovation)
        if right == 0 or right == len(quantiles):
            # Beyond the holdout's tail a score grows with the logarithm, as that of a power law's does; a normal one's
            # would grow faster.
            end, steepness = self._tails[right > 0]
            score = grid[right and -1] + steepness * math.log(max(innovation / end, 1.0))
            return min(max(score, -_EXTREME), _EXTREME)
        below, above = quantiles[right - 1], quantiles[right]
        return grid[right - 1] + (grid[right] - grid[right - 1]) * (innovation - below) / (above - below)

    def clear(self) -> None:
        """Forget the last errors."""
        self._last: dict[str, tuple[int, list[float]]] = {}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"last": {symbol: [at, list(before)] for symbol, (at, before) in self._last.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._last = {symbol: (int(at), [float(v) for v in before]) for symbol, (at, before) in state["last"].items()}


def _tail(quantiles: list[float], grid: list[float], end: int, inward: int) -> tuple[float, float]:
    """Return the last quantile of a tail, and the change of the score with the logarithm of the innovation there."""
    near, far = quantiles[end + inward * len(grid) // 12], quantiles[end]
    if near * far <= 0 or abs(far) <= abs(near):
        return far or 1.0, 0.0
    return far, (grid[end] - grid[end + inward * len(grid) // 12]) / math.log(far / near)


def _informative(sharpness: Sharpness, margin: float) -> bool:
    return sharpness.slope.value - margin * sharpness.slope.se > 0


def _sign_bets(
    target: str, sharpness: Sharpness, alternatives: tuple[tuple[str, float, float, float], ...], margin: float
) -> tuple[SignBets, list[Bet]]:
    """Return the bets on a sign; the null has the least slope and the intercept nearest to each alternative's."""
    level, slope = sharpness.intercept, max(sharpness.slope.value - margin * sharpness.slope.se, 0.0)
    lines = []
    for _, multiple, change, _ in alternatives:
        toward = math.copysign(margin * level.se, change) if change else 0.0
        null = Line(level.value + toward, slope)
        lines.append((Line(null.intercept + change, multiple * slope), null))
    bets = [Bet(target, name, weight) for name, _, _, weight in alternatives]
    return SignBets(lines, sharpness.design_effect), bets


def _score_bets(reference: Reference, margin: float, tolerance: float) -> tuple[ScoreBets, list[Bet]]:
    """Return the bets on the range's errors; a mean within the tolerance, a spread within half of it, are no fall."""
    range_ = reference.range
    off = margin * math.sqrt(range_.location_effect / reference.rows)
    spread = 1.0 + tolerance / 2 + margin * math.sqrt(range_.scale_effect / (2 * reference.rows))
    bets = ScoreBets(
        [Shift(mean, onset, math.copysign(times * tolerance + off, mean)) for _, onset, mean, times, _ in _SHIFTS],
        [(spread * scale, spread) for _, scale, _ in _SCALES],
        symbol_effect=range_.symbol_effect,
        location_effect=range_.location_effect,
        scale_effect=range_.scale_effect,
    )
    return bets, [Bet("range", name, weight) for name, *_, weight in (*_SHIFTS, *_SCALES)]
