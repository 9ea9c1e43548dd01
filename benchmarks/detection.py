"""How soon the skill monitor finds a drift, against the information limit, and how often it cries wolf.

    python -m benchmarks.detection [--json] [--strengths .55 .6 .65 .7 .75] [--seeds 50] [--stationary 1000000]

A champion is fitted for each strength on a market without drift (`drifts`). It then answers markets of other seeds
that drift after 500 outcomes, and its outcomes go one by one into `SkillMonitor` as params.yaml has it. *delay* is the
number of outcomes from the first that the drift has changed to the alarm; *limit* is that of `limits`: of the loss, for
a volatility jump of loss and range error. *within 50* is the share of seeds that were found by then. Three more
monitors listen to one target each, on the same outcomes: what each target adds. *knowing the drift* is the test of
Shiryaev and Roberts with the oracle's own probabilities before and after, from the bars rather than from the forecast:
no monitor can know as much.

Calm markets say how often there is an alarm without a drift: with the champion's own reference, and with a new
reference of only 2,000 rows for every 10,000 outcomes, as a young model has it. After an alarm the monitor begins anew;
alarms within 500 outcomes of the last belong to its *episode*. (A calm market now and then is more volatile than ever
in its champion's training; the champion then errs for a hundred outcomes, and is found at fault again and again.)
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.drifts import SHAPES, WARM_UP, Champion, Market, Shape, fit_champion, make_market, make_params, outcomes
from benchmarks.limits import STRENGTHS, limits
from tradeloop.bars import Floats
from tradeloop.config import Degradation
from tradeloop.config.degradation import Weights
from tradeloop.monitoring.degradation import Alarm, SkillMonitor
from tradeloop.monitoring.records import Resolved

BURN = 500
LONGEST = 4_000
CALM = 50_000  # outcomes of one market without drift
SHORT = 2_000
SHORT_CALM = 10_000
EPISODE = 500
VARIANTS: dict[str, Degradation] = {
    "all": Degradation(),
    "direction": Degradation(weights=Weights(direction=1, ret=0, range=0)),
    "return": Degradation(weights=Weights(direction=0, ret=1, range=0)),
    "range": Degradation(weights=Weights(direction=0, ret=0, range=1)),
}


class Monitor(Protocol):
    """What is driven: `SkillMonitor`, or anything that takes its place."""

    @property
    def alarm(self) -> Alarm | None:
        """The first alarm since the last reset."""

    def update(self, batch: Sequence[Resolved]) -> None:
        """Take the outcomes of one feature time."""

    def reset(self, reason: str) -> None:
        """Begin again."""


@dataclass
class Delays:
    """Delays by seed, infinite where there was no alarm, and alarms before the drift."""

    delays: list[float] = field(default_factory=list)
    early: int = 0

    def summary(self) -> dict[str, Any]:
        """Return mean and 95% quantile (None where a drift was not found), and the share within 50 outcomes."""
        found = np.array(self.delays)
        mean, late = float(found.mean()), float(np.quantile(found, 0.95, method="higher"))
        return {
            "mean": mean if math.isfinite(mean) else None,
            "late": late if math.isfinite(late) else None,
            "median": float(np.median(found)) if math.isfinite(np.median(found)) else None,
            "found": float(np.isfinite(found).mean()),
            "within_50": float((found <= 50).mean()),
            "early": self.early,
        }


def drive(monitors: dict[str, Monitor], stream: Iterator[Resolved], drift: int, into: dict[str, Delays]) -> None:
    """Feed `stream` to the monitors until each has found the drift at outcome `drift`, and note the delays."""
    waiting = dict(monitors)
    for number, resolved in enumerate(stream):
        for name, monitor in list(waiting.items()):
            monitor.update((resolved,))
            if monitor.alarm is None:
                continue
            if number < drift:
                into[name].early += 1
                monitor.reset("before the drift")
            else:
                into[name].delays.append(number - drift + 1)
                del waiting[name]
        if not waiting:
            return
    for name in waiting:
        into[name].delays.append(math.inf)


def detect(champion: Champion, shape: Shape, limit: float, *, seeds: int) -> dict[str, Any]:
    """Return delays of one shape at one strength."""
    after = int(min(max(4 * limit, 1_500), LONGEST))
    params = make_params(champion.accuracy, BURN + after + 1, shape=shape, drift_bar=WARM_UP + BURN)
    delays = {name: Delays() for name in (*VARIANTS, "knowing")}
    for seed in range(seeds):
        market = make_market(params, 40_000 + seed)
        monitors: dict[str, Monitor] = {
            name: SkillMonitor(champion.reference, config) for name, config in VARIANTS.items()
        }
        drive(monitors, outcomes(champion, market), market.drift, delays)
        if shape != "volatility_jump":
            delays["knowing"].delays.append(_knowing(market, _calm_p_up(champion, params, 40_000 + seed, market)))
    summary = {name: delay.summary() for name, delay in delays.items() if delay.delays}
    return {"accuracy": champion.accuracy, "shape": shape, "limit": limit, "delays": summary}


def _calm_p_up(champion: Champion, params: Any, seed: int, market: Market) -> Floats:
    """Return the oracle's probabilities for the same bars, had the market not drifted."""
    from benchmarks.drifts import ROOT
    from tradeloop.sources.synthetic import Synthetic

    calm = make_params(champion.accuracy, params.active.synthetic.bars - WARM_UP)
    probability = Synthetic(calm.active, root=ROOT, seed=seed).oracle(calm.active.symbols[0]).p_up
    return probability[len(probability) - 1 - len(market) : -1]


def _knowing(market: Market, before: Floats) -> float:
    """Return the delay of the test that knows both oracles."""
    up = market.matrix.y["direction"]
    after = market.p_up
    ratios = np.where(up > 0, after / before, (1 - after) / (1 - before))
    # Ahead of the drift both oracles agree and the statistic only counts: it begins as if nothing had been seen.
    statistic = 0.0
    for number, ratio in enumerate(ratios[market.drift :].tolist()):
        statistic = (1.0 + statistic) * ratio
        if statistic >= Degradation().run_length:
            return number + 1.0
    return math.inf


def false_alarms(champion: Champion, count: int, *, short: bool) -> dict[str, Any]:
    """Return how many alarms there were in about `count` outcomes of calm markets, and what each was about."""
    length = SHORT_CALM if short else CALM
    seen, episodes, kinds = 0, 0, Counter[str]()
    for seed in range(max(round(count / length), 1)):
        bars = length + (SHORT if short else 0)
        market = make_market(make_params(champion.accuracy, bars), (20_000 if short else 10_000) + seed)
        first = len(market) - length
        reference = champion.reference_on(market.matrix, np.arange(first)) if short else champion.reference
        monitor, last = SkillMonitor(reference, VARIANTS["all"]), -EPISODE
        for number, resolved in enumerate(outcomes(champion, market, start=first)):
            monitor.update((resolved,))
            seen += 1
            if monitor.alarm is not None:
                kinds[monitor.alarm.alternative] += 1
                episodes += number - last >= EPISODE
                last = number
                monitor.reset("false alarm")
    return {
        "accuracy": champion.accuracy,
        "short": short,
        "outcomes": seen,
        "alarms": sum(kinds.values()),
        "episodes": episodes,
        "kinds": dict(kinds.most_common()),
    }


def rate(count: int, seen: int) -> str:
    """Return alarms in 10,000 outcomes, with the exact 95% interval of a Poisson mean."""
    from scipy.stats import chi2

    low, high = (chi2.ppf(0.025, 2 * count) / 2 if count else 0.0), chi2.ppf(0.975, 2 * count + 2) / 2
    return " ".join(f"{value * 10_000 / seen:.2f}" for value in (count, low, high)).replace(" ", " [", 1) + "]"


def measure(strengths: Sequence[float], *, seeds: int, stationary: int, bars: int) -> dict[str, Any]:
    """Return all that was measured."""
    drifts, calm = [], []
    with tqdm(total=len(strengths) * (len(SHAPES) + 2), desc="detection", unit="part") as bar:
        for accuracy in strengths:
            champion = fit_champion(accuracy, bars=bars, seed=11)
            for shape in SHAPES:
                found = limits(champion, shape, markets=60)
                limit = found["with range" if shape == "volatility_jump" else "loss"]
                drifts.append(detect(champion, shape, limit, seeds=seeds) | {"limits": found})
                bar.update()
            for short in (False, True):
                calm.append(false_alarms(champion, stationary // len(strengths), short=short))
                bar.update()
    return {"drifts": drifts, "calm": calm}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table(title="outcomes from drift to alarm")
    left = ("shape",)
    for name in ("accuracy", "shape", "limit", "mean", "95%", "mean / limit", "within 50"):
        table.add_column(name, justify="left" if name in left else "right")
    for name in ("direction", "return", "range", "knowing"):
        table.add_column(f"{name} only" if name != "knowing" else "knowing the drift", justify="right")
    for row in result["drifts"]:
        every = row["delays"]["all"]
        ratio = every["mean"] / row["limit"] if every["mean"] is not None else None
        cells = [f"{row['accuracy']:.2f}", row["shape"], _number(row["limit"]), _number(every["mean"])]
        cells += [_number(every["late"]), "-" if ratio is None else f"{ratio:.2f}", f"{every['within_50']:.0%}"]
        for name in ("direction", "return", "range", "knowing"):
            part = row["delays"].get(name)
            cells.append("-" if part is None or part["mean"] is None else _number(part["mean"]))
        table.add_row(*cells)
    console = Console(width=140)
    console.print(table)
    calm = Table(title="alarms without drift, in 10,000 outcomes")
    for name in ("accuracy", "reference", "outcomes", "alarms", "rate", "episodes", "rate of episodes"):
        calm.add_column(name, justify="left" if name == "reference" else "right")
    for short in (False, True):
        rows = [row for row in result["calm"] if row["short"] == short]
        for row in [*rows, _together(rows)]:
            counts = row["alarms"], row["episodes"]
            (alarms, own), (episodes, apart) = ((f"{count}", rate(count, row["outcomes"])) for count in counts)
            name = "2,000 rows each" if short else "the champion's"
            calm.add_row(f"{row['accuracy']}", name, f"{row['outcomes']:,}", alarms, own, episodes, apart)
    console.print(calm)
    kinds = sum((Counter(row["kinds"]) for row in result["calm"]), Counter[str]())
    console.print(f"they were about: {dict(kinds.most_common())}")


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    totals = {name: sum(row[name] for row in rows) for name in ("outcomes", "alarms", "episodes")}
    return {"accuracy": "all"} | totals


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--stationary", type=int, default=1_000_000)
    parser.add_argument("--bars", type=int, default=60_000)
    arguments = parser.parse_args()
    result = measure(arguments.strengths, seeds=arguments.seeds, stationary=arguments.stationary, bars=arguments.bars)
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
