"""Which challengers are promoted, which champions are rolled back, and what it takes.

    python -m benchmarks.rollout [--seeds 100] [--gate-seeds 20] [--jobs 2] [--json]

Every seed is a synthetic market with a planted edge (accuracy 60% in direction; range and its persistence), and models
that tradeloop's own code fits to it (`benchmarks.challengers`). Each case is played through the real `Rollout` and a
registry, outcome by outcome, with the parameters of params.yaml.

*trials*: a challenger shadows a champion for up to 3,000 outcomes. Bad ones are put on trial as if the gate had let
them through. *watches*: a model has just been promoted over another one; what counts is whether it is rolled back
before the watch ends, and how many of its predictions were answered since it was bad. *gate*: how many of the bad ones
the gate stops before any trial, and by which checks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks import challengers as make
from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Target
from tradeloop.config import Rollout as Config
from tradeloop.loop.actions import ACTOR
from tradeloop.loop.losses import Forecasts
from tradeloop.loop.rollout import Rollout
from tradeloop.loop.trial import Standing
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.registry import Registry
from tradeloop.simulation.training import train_bundle
from tradeloop.state.database import Database

TRAIN, NEW, LIVE = 2_000, 1_500, 3_000
FEW = 300
UNTIL_DRIFT = 100
ACCURACY = 0.6
BARS = 300 + TRAIN + NEW + LIVE
SLIGHT = 4.0
"""Noise over the size of the return that a slight leak is hidden under."""
STANDING = Standing(("direction", "range"))
CHAMPION, CHALLENGER = "c" * 64, "d" * 64

Forecast = dict[Target, Floats]


@dataclass(frozen=True)
class Case:
    """Two models' forecasts of all rows of a market, and the row at which they go live."""

    name: str
    kind: str
    market: make.Market
    champion: Forecast
    challenger: Forecast
    start: int
    turns: int | None = None


def cases(seed: int) -> list[Case]:
    """Return all cases of one seed."""
    market = make.make_market(make.parameters(BARS, accuracy=ACCURACY), seed)
    params, matrix = market.params, market.matrix
    history = make.rows(matrix, 0, TRAIN)

    def fitted(part: Any, x: NDArray[np.float32] = matrix.x, **options: Any) -> Forecast:
        return make.fit(part, params, **options).forecast(x)

    clean = fitted(history)
    few = fitted(make.rows(matrix, TRAIN - FEW, TRAIN))
    dealt = fitted(make.shuffled(history, seed))
    twin = fitted(history, seed=1)
    blind = fitted(history, use=make.blind(matrix, params))
    leaks = {
        noise: fitted(make.leaked(history, seed, noise=noise), make.unleaked(matrix, seed, noise=noise))
        for noise in (0.0, SLIGHT)
    }
    lucky = make.luckiest(clean, matrix, upto=TRAIN, seed=seed)
    found = [
        Case("trained on shuffled labels", "bad", market, clean, dealt, TRAIN),
        Case("the label leaked in training", "bad", market, clean, leaks[0.0], TRAIN),
        Case("the label leaked a little", "bad", market, clean, leaks[SLIGHT], TRAIN),
        Case("luckiest of 50 in a backtest", "bad", market, clean, lucky, TRAIN),
        Case("the champion's twin", "bad", market, clean, twin, TRAIN),
        Case(f"champion saw {FEW} rows", "better", market, few, clean, TRAIN),
        Case("champion knows no direction", "better", market, blind, clean, TRAIN),
        Case("champion learned shuffled labels", "better", market, dealt, clean, TRAIN),
        Case(f"saw {FEW} rows", "turned bad", market, clean, few, TRAIN, TRAIN),
        Case("had a little leak", "turned bad", market, clean, leaks[SLIGHT], TRAIN, TRAIN),
        Case("luckiest of 50", "turned bad", market, clean, lucky, TRAIN, TRAIN),
        Case("is the better one", "still good", market, few, clean, TRAIN),
        Case("is the predecessor's twin", "still good", market, twin, clean, TRAIN),
    ]
    before = drifted(market, TRAIN, seed)
    after = make.fit(make.rows(before.matrix, TRAIN, TRAIN + NEW), params).forecast(before.matrix.x)
    stale = make.fit(history, params).forecast(before.matrix.x)
    found.append(Case("champion is from before a drift", "better", before, stale, after, TRAIN + NEW))
    later = drifted(market, TRAIN + UNTIL_DRIFT, seed)
    struck, sheltered = (
        make.fit(history, params, use=use).forecast(later.matrix.x) for use in (None, make.blind(matrix, params))
    )
    found.append(Case("a drift hits it", "turned bad", later, sheltered, struck, TRAIN, TRAIN + UNTIL_DRIFT))
    return found


def drifted(market: make.Market, row: int, seed: int) -> make.Market:
    """Return the same market, in which the direction's sign flips from a row's label on."""
    (bars,) = market.world.bars.values()
    bar = int(np.searchsorted(bars.timestamp, market.matrix.timestamp[row]))
    return make.make_market(make.parameters(BARS, accuracy=ACCURACY, drift_bar=bar + 1), seed)


def play(case: Case, database: Database, config: Config) -> tuple[str, int]:
    """Return how a case ended, and after how many outcomes (since it turned bad, where that is known)."""
    registry = Registry(database, f"{case.kind} {case.name}")
    watched = case.kind in ("turned bad", "still good")
    for model in (CHAMPION, CHALLENGER):
        registry.register(model, actor="benchmark", reason="fitted", passed=True)
    registry.promote(CHAMPION, actor="benchmark", reason="first")
    rollout = Rollout(registry, config, standing_of=lambda _: STANDING)
    if watched:
        registry.promote(CHALLENGER, actor=ACTOR, reason="as if it were proven")
        registry.stage(CHAMPION, mode="shadow", actor=ACTOR, reason="the predecessor")
    matrix = case.market.matrix
    labels = list(zip(*(matrix.y[target].tolist() for target in TARGETS), strict=True))
    streams = {CHAMPION: make.stream(case.champion), CHALLENGER: make.stream(case.challenger)}
    first, last = case.start, min(case.start + LIVE, len(labels))
    now = moment(matrix.timestamp[first])
    if not watched:
        rollout.admit(CHALLENGER, now=now, reason="as if the gate had passed it")
    settle(rollout, now)
    for row in range(first, last):
        now = moment(matrix.label_end[row])
        for model, said in streams.items():
            rollout.observe([resolved(row, model, said[row], labels[row], moment(matrix.timestamp[row]), now)])
        for kind in settle(rollout, now):
            if kind in ("promote", "reject", "give_up", "rollback", "end_watch"):
                return kind, row + 1 - (case.turns or first)
    return "undecided", last - first


def settle(rollout: Rollout, now: datetime) -> list[str]:
    """Do what is decided; return what that was."""
    actions = rollout.advance(now)
    for action in actions:
        rollout.execute(action)
    return [action.kind for action in actions]


def resolved(row: int, model: str, said: Forecasts, labels: Sequence[float], time: datetime, end: datetime) -> Resolved:
    """Return one forecast and its outcome."""
    direction, ret, log_range = labels
    scale = float(np.exp(said.log_range))
    forecasts = (said.p_up, said.ret, None, None, scale, None, None)
    name = f"{row}{model[0]}"
    prediction = Logged(
        name, "SYN", model, "champion", True, None, time, time, "virtual", "trade", *forecasts, None, None, None, None
    )
    return Resolved(prediction, Outcome(row, name, "resolved", None, end, direction, ret, log_range, "normal", 0, end))


def moment(time: np.datetime64) -> datetime:
    """Return an aware datetime."""
    value: datetime = time.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)


def one_seed(seed: int, config: Config) -> list[tuple[str, str, str, int]]:
    """Return kind, name, end and outcomes of every case of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(f"sqlite:///{folder}/state.db", durable=False)
        try:
            return [(case.kind, case.name, *play(case, database, config)) for case in cases(seed)]
        finally:
            database.close()


def gate_seed(seed: int) -> list[tuple[str, bool, list[str]]]:
    """Return name, verdict and failed checks of each kind of challenger at the gate, against a good champion."""
    market = make.make_market(make.parameters(300 + TRAIN, accuracy=ACCURACY), seed)
    matrix, bars, params = market.matrix, market.bars(len(market.matrix)), market.params
    train: Callable[..., Any] = partial(train_bundle, bars=bars, params=params, models=("xgboost",))
    known = len(matrix) - round(params.split.holdout * len(matrix))
    kinds = {
        "clean (for comparison)": matrix,
        "trained on shuffled labels": make.shuffled(matrix, seed, before=known),
        "the label leaked in training": make.leaked(matrix, seed, noise=0.0),
        "the label leaked a little": make.leaked(matrix, seed, noise=SLIGHT),
    }
    found, champion = [], None
    with tempfile.TemporaryDirectory() as folder:
        for name, part in kinds.items():
            trained = train(part, folder=Path(folder), champion=champion)
            champion = champion or trained.bundle
            failed = [f"{reason['target']} {reason['check']}" for reason in trained.gate["reasons"] if not reason["ok"]]
            found.append((name, trained.passed, failed))
    return found


def summary(found: Sequence[tuple[str, str, str, int]]) -> list[dict[str, Any]]:
    """Return one row a case."""
    rows = []
    for kind, name in dict.fromkeys((kind, name) for kind, name, _, _ in found):
        ends = [(end, outcomes) for k, n, end, outcomes in found if (k, n) == (kind, name)]
        wanted = "rollback" if kind in ("turned bad", "still good") else "promote"
        took = [outcomes for end, outcomes in ends if end == wanted]
        counts = Counter(end for end, _ in ends)
        rows.append(
            {
                "kind": kind,
                "case": name,
                "seeds": len(ends),
                wanted: counts[wanted],
                "median_outcomes": float(np.median(took)) if took else None,
                "p95_outcomes": float(np.quantile(took, 0.95)) if took else None,
                "other": {end: count for end, count in counts.items() if end != wanted},
                "median_outcomes_other": float(np.median([n for end, n in ends if end != wanted] or [0])),
            }
        )
    return rows


def show(rows: Sequence[dict[str, Any]], gate: Sequence[tuple[str, bool, list[str]]], config: Config) -> None:
    """Print the tables."""
    table = Table("", "case", "seeds", "yes", "median", "95%", "otherwise", title="promoted / rolled back")
    for row in rows:
        wanted = "rollback" if "rollback" in row else "promote"
        took = [f"{row[name]:.0f}" if row[name] is not None else "" for name in ("median_outcomes", "p95_outcomes")]
        other = ", ".join(f"{count} {end}" for end, count in row["other"].items())
        table.add_row(row["kind"], row["case"], str(row["seeds"]), f"{row[wanted]} {wanted}", *took, other)
    Console(width=130).print(table)
    print(f"outcomes are counted from the start of the trial or since it was bad; watch of {config.watch_outcomes}")
    if gate:
        table = Table("challenger", "seeds", "passed the gate", "stopped by", title="gate")
        for name in dict.fromkeys(name for name, _, _ in gate):
            mine = [(passed, failed) for n, passed, failed in gate if n == name]
            reasons = Counter(check for _, failed in mine for check in failed).most_common(4)
            text = ", ".join(f"{check} ({count})" for check, count in reasons)
            table.add_row(name, str(len(mine)), str(sum(passed for passed, _ in mine)), text)
        Console(width=130).print(table)


def main() -> None:
    """Measure, and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--gate-seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    config = make.parameters(BARS, accuracy=ACCURACY).rollout
    with get_context("spawn").Pool(arguments.jobs) as pool:
        work = pool.imap(partial(one_seed, config=config), range(arguments.seeds))
        found = [each for part in tqdm(work, "seeds", arguments.seeds) for each in part]
        gated = pool.imap(gate_seed, range(arguments.gate_seeds))
        gate = [each for part in tqdm(gated, "gate", arguments.gate_seeds) for each in part]
    if arguments.json:
        print(json.dumps({"cases": summary(found), "gate": gate}, indent=2))
        return
    show(summary(found), gate, config)


if __name__ == "__main__":
    main()
