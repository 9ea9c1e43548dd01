"""The information limit: how many outcomes any test needs to find a drift, at a given rate of false alarms.

    python -m benchmarks.limits [--json] [--strengths .55 .6 .65 .7 .75] [--bars 60000] [--markets 60]

Lorden (1971): of all tests whose false alarms are `run_length` outcomes apart, none finds a change sooner, on average
and in the worst case, than about ``ln(run_length) / KL`` outcomes, KL being the divergence of an outcome after the
change from one before. Where the divergence changes with time (an edge that fades, a jump that the features learn) the
limit is the first n at which it has added up to ``ln(run_length)``.

What an outcome is, depends on what is looked at:

*loss*
    the log loss of the probability: how sure the champion was, and whether it was right;
*direction*
    probability and direction themselves, which also tell closes at the top of the range from those at its bottom;
*with return*
    the size and the forecast of the return beside them;
*with range*
    the loss, and the error of the range forecast after what the errors before it foretold.

Probabilities come from the market's oracle, not from drawn directions, so bins of a few hundred rows are exact enough;
divergences of range errors are those of normal distributions with the means and spreads that the markets show at each
outcome after the drift.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drifts import SHAPES, WARM_UP, Champion, Market, Shape, fit_champion, make_market, make_params
from tradeloop.bars import Floats
from tradeloop.ensemble import logit
from tradeloop.reference.content import alignment_covariate

STRENGTHS = (0.55, 0.6, 0.65, 0.7, 0.75)
RUN_LENGTH = 10_000.0
BURN = 500  # outcomes before the drift
BLOCK = 50  # outcomes that are pooled, but for the first ones of the range
SINGLE = 20
BINS = 20
HORIZON = 2_500
PARTS = ("loss", "direction", "with return", "with range")


@dataclass(frozen=True)
class Answers:
    """What a champion said of markets (m, n), and the truth; sign is that of the oracle's probability."""

    log_odds: Floats
    covariate: Floats
    innovation: Floats
    p_up: Floats

    def part(self, rows: slice) -> Answers:
        """Return some of the outcomes of each market."""
        return Answers(*(getattr(self, name)[:, rows] for name in self.__dataclass_fields__))


def answers(champion: Champion, markets: list[Market], *, before: int, after: int) -> Answers:
    """Return what `champion` says of the rows from `before` ahead of the drift to `after` behind it."""
    kept: dict[str, list[Floats]] = {name: [] for name in Answers.__dataclass_fields__}
    range_ = champion.reference.range
    memory = np.array([1.0, *(-value for value in range_.memory)])
    for market in markets:
        forecast = champion.ensemble.forecast(market.matrix.x)
        error = market.matrix.y["range"] - forecast.range - range_.mean.value
        rows = slice(market.drift - before, market.drift + after)
        size = alignment_covariate(
            forecast.ret, np.exp(forecast.range), market.matrix.y["return"], champion.reference.ret.size_share
        )
        kept["log_odds"].append(logit(forecast.p_up)[rows])
        kept["covariate"].append(size[rows])
        kept["innovation"].append(np.convolve(error, memory)[: len(error)][rows] / range_.innovation_sd)
        kept["p_up"].append(market.p_up[rows])
    return Answers(**{name: np.array(values) for name, values in kept.items()})


def divergences(before: Answers, after: Answers) -> dict[str, Floats]:
    """Return the divergence of each outcome after the drift, in nats, by what is looked at."""
    count = after.p_up.shape[1]
    right = {name: _rightness(part) for name, part in (("before", before), ("after", after))}
    bins = {
        "loss": _Bins(np.abs(before.log_odds), right["before"]),
        "direction": _Bins(before.log_odds, before.p_up),
        "with return": _Bins(before.log_odds, before.p_up, before.covariate),
    }
    result = {name: np.empty(count) for name in PARTS}
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        part = after.part(rows)
        result["loss"][rows] = bins["loss"].divergence(np.abs(part.log_odds), right["after"][:, rows])
        result["direction"][rows] = bins["direction"].divergence(part.log_odds, part.p_up)
        result["with return"][rows] = bins["with return"].divergence(part.log_odds, part.p_up, part.covariate)
    result["with range"] = result["loss"] + _range_divergence(before.innovation, after.innovation)
    return result


def _rightness(part: Answers) -> Floats:
    """Return the probability that the likelier direction comes."""
    return np.where(part.log_odds >= 0, part.p_up, 1 - part.p_up)


class _Bins:
    """The probability of up, or of being right, before the drift, in cells of equal count."""

    def __init__(self, x: Floats, p: Floats, *more: Floats) -> None:
        bins = BINS if not more else BINS // 2
        self._edges = [np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]) for values in (x, *more)]
        self._bins = bins
        cell = self._cell(x, *more)
        size = bins ** len(self._edges)
        self._p = np.bincount(cell, weights=p.ravel(), minlength=size) / np.bincount(cell, minlength=size).clip(1)

    def _cell(self, *values: Floats) -> np.ndarray:
        cell = np.zeros(values[0].size, dtype=np.intp)
        for edges, column in zip(self._edges, values, strict=True):
            cell = cell * self._bins + np.searchsorted(edges, column.ravel())
        return cell

    def divergence(self, x: Floats, p: Floats, *more: Floats) -> float:
        cell = self._cell(x, *more)
        count = np.bincount(cell, minlength=len(self._p))
        kept = (count > 0) & (self._p > 0)
        after = np.bincount(cell, weights=p.ravel(), minlength=len(self._p))[kept] / count[kept]
        before = self._p[kept]
        nats = after * np.log(after / before) + (1 - after) * np.log((1 - after) / (1 - before))
        return float(nats @ count[kept] / count[kept].sum())


def _range_divergence(before: Floats, after: Floats) -> Floats:
    """Return the divergence of normal innovations (m, n) from those before, by outcome; less than by chance is none."""
    mean, sd = float(before.mean()), float(before.std())
    result = np.empty(after.shape[1])
    blocks = [(at, at + 1) for at in range(SINGLE)]
    blocks += [(at, min(at + BLOCK, after.shape[1])) for at in range(SINGLE, after.shape[1], BLOCK)]
    for start, stop in blocks:
        part = (after[:, start:stop] - mean) / sd
        spread = float(part.std())
        nats = (spread**2 + float(part.mean()) ** 2 - 1) / 2 - math.log(spread)
        # Mean and spread of m markets are estimates: a divergence of 1 / m comes by chance.
        result[start:stop] = nats if nats > 4 / len(part) else 0.0
    return result


def first_reach(nats: Floats, needed: float) -> float:
    """Return the count of outcomes at which `nats` have added up to `needed`; beyond the last they go on as in it."""
    total = np.cumsum(nats)
    if total[-1] >= needed:
        at = int(np.searchsorted(total, needed))
        return at + float(1 - (total[at] - needed) / nats[at])
    return len(nats) + float((needed - total[-1]) / nats[-1]) if nats[-1] > 0 else math.inf


def limits(champion: Champion, shape: Shape, *, markets: int, run_length: float = RUN_LENGTH) -> dict[str, float]:
    """Return the information limit in outcomes by what is looked at."""
    bars = BURN + HORIZON + 50
    params = make_params(champion.accuracy, bars, shape=shape, drift_bar=WARM_UP + BURN)
    drifted = [make_market(params, 70_000 + seed) for seed in range(markets)]
    found = answers(champion, drifted, before=BURN - 50, after=HORIZON)
    calm = make_market(make_params(champion.accuracy, 100_000), 69_999)
    before = answers(champion, [calm], before=len(calm), after=0)
    nats = divergences(before, found.part(slice(BURN - 50, None)))
    return {name: first_reach(values, math.log(run_length)) for name, values in nats.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--markets", type=int, default=60)
    arguments = parser.parse_args()
    rows = []
    for accuracy in arguments.strengths:
        champion = fit_champion(accuracy, bars=arguments.bars, seed=11)
        rows += [
            {"accuracy": accuracy, "shape": shape} | limits(champion, shape, markets=arguments.markets)
            for shape in SHAPES
        ]
    if arguments.json:
        print(json.dumps(rows))
        return
    table = Table(title=f"outcomes that any test needs at one false alarm in {RUN_LENGTH:,.0f}")
    for name in ("accuracy", "shape", *PARTS):
        table.add_column(name, justify="left" if name == "shape" else "right")
    for row in rows:
        table.add_row(f"{row['accuracy']:.2f}", str(row["shape"]), *(f"{row[name]:.1f}" for name in PARTS))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
