"""What tracking adds to an answer: one and three challengers against none, in one run, paired and alternated.

    python -m benchmarks.tracking [--json] [--rounds 30] [--requests 100]

Three services on one core, each with a state of its own: without challengers, with one shadow, with three. The client,
on another core, takes them in turns, in an order drawn anew each round; a round is a block of requests to each. Two
paces: as soon as it is answered (the challengers' work then competes with the next answer), and with a pause between
requests, as a bot asks. CPU is the worker's processor time a request, which other load on the machine does not stretch.
Logging cannot be switched off: its share is what the service itself measures, from handing
the answer's predictions to the log until they are on disk. Needs what `make repro` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.client import Client
from benchmarks.service import OURS, Bench, Served
from tradeloop.bundle_store import BundleStore
from tradeloop.manifest import MANIFEST, Facts, seal, verify
from tradeloop.registry import Registry

CHALLENGERS = (0, 1, 3)
PAUSE_SECONDS = 0.02
_SETTLE_SECONDS = 0.1
_WHO = {"actor": "benchmark", "reason": "benchmark"}


@dataclass
class Arm:
    """One service and the latencies of its blocks, in milliseconds."""

    served: Served
    symbol: str
    blocks: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._worker = self.served.worker

    def ask(self, pace: str, requests: int) -> None:
        """Measure one block."""
        pause = PAUSE_SECONDS if pace == "paused" else 0.0
        seconds = []
        with Client(self.served.port, [self.symbol]) as client:
            client.timed(5)
            before = sum(self._worker.cpu_times()[:2])
            for _ in range(requests):
                seconds += client.timed(1)
                if pause:
                    time.sleep(pause)
        time.sleep(_SETTLE_SECONDS)  # what challengers have still to do shall not fall to the next block
        self.spent[pace] = self.spent.get(pace, 0.0) + sum(self._worker.cpu_times()[:2]) - before
        self.blocks.setdefault(pace, []).append(np.array(seconds) * 1e3)

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = httpx.get(f"http://127.0.0.1:{self.served.port}/metrics", timeout=10).text
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def stage(bench: Bench, count: int) -> None:
    """Store, register and stage `count` twins of the champion as shadows: other hashes, the same graphs."""
    bundle = verify(bench.layout.models / "bundle")
    known = bundle.manifest.model_dump()
    files = {name: body for name, body in bundle.files.items() if name != MANIFEST}
    store, database = BundleStore(bench.layout, bench.params), bench.database()
    registry = Registry(database, bench.params.market)
    for number in range(count):
        facts = {k: v for k, v in known.items() if k in Facts.model_fields} | {"name": f"shadow_{number}"}
        twin = seal(Facts(**facts), bundle.manifest.schema_hash, files)
        store.put(twin)
        registry.register(twin.hash, passed=True, **_WHO)
        registry.stage(twin.hash, mode="shadow", **_WHO)
    database.close()


def wait(served: Served, count: int) -> None:
    """Wait until all challengers take part."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = httpx.get(f"http://127.0.0.1:{served.port}/models", timeout=10).json()
        if sum(one["state"] == "taking part" for one in answer["challengers"]) == count:
            return
        time.sleep(0.1)
    raise SystemExit("the challengers do not take part")


def run(rounds: int, requests: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if len(cores) > 1 else None
    rng = random.Random(20130301)
    with ExitStack() as stack:
        arms: dict[int, Arm] = {}
        for count in CHALLENGERS:
            bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stage(bench, count)
            if len(cores) > 1:
                os.sched_setaffinity(0, set(cores[1:]))
            served = stack.enter_context(Served(bench, OURS, core=core))
            wait(served, count)
            arms[count] = Arm(served, bench.params.active.symbols[0])
        for arm in arms.values():
            arm.ask("warm", 300)
        for pace in ("at once", "paused"):
            for _ in tqdm(range(rounds), desc=pace):
                for count in rng.sample(CHALLENGERS, len(CHALLENGERS)):
                    arms[count].ask(pace, requests)
        return {"cores": len(cores), "rounds": rounds, "requests": requests, **_outcome(arms)}


def _outcome(arms: dict[int, Arm]) -> dict[str, Any]:
    plain = arms[0]
    found: dict[str, Any] = {}
    for pace in ("at once", "paused"):
        base = np.concatenate(plain.blocks[pace])
        for count, arm in arms.items():
            every = np.concatenate(arm.blocks[pace])
            p50, p99 = np.percentile(every, [50, 99])
            entry = {"p50_ms": float(p50), "p99_ms": float(p99), "max_ms": float(every.max())}
            entry["cpu_ms"] = arm.spent[pace] * 1e3 / len(every)
            if count:
                for q in (50, 99):
                    pairs = [
                        np.percentile(block, q) - np.percentile(other, q)
                        for block, other in zip(arm.blocks[pace], plain.blocks[pace], strict=True)
                    ]
                    entry[f"added_p{q}_ms"] = float(np.percentile(every, q) - np.percentile(base, q))
                    entry[f"added_p{q}_ms_paired_median"] = float(np.median(pairs))
            found[f"{count} challengers, {pace}"] = entry
    logged = {count: arm.metric("tradeloop_log_seconds_sum") for count, arm in arms.items()}
    asked = {count: arm.metric("tradeloop_log_seconds_count") for count, arm in arms.items()}
    made = {count: arm.metric("tradeloop_challenger_predictions_total") for count, arm in arms.items()}
    dropped = {count: arm.metric("tradeloop_challenger_drops_total") for count, arm in arms.items()}
    return {
        "latency": found,
        "logging_mean_ms": {count: 1e3 * logged[count] / asked[count] for count in arms},
        "forecasts_a_request": {count: made[count] / asked[count] for count in arms},
        "dropped": dropped,
    }


def show(outcome: dict[str, Any]) -> None:
    console = Console()
    table = Table("challengers, pace", "p50 ms", "p99 ms", "+ p50", "+ p99", "+ p99, median of rounds", "CPU ms")
    for name, entry in outcome["latency"].items():
        added = [entry.get(key) for key in ("added_p50_ms", "added_p99_ms", "added_p99_ms_paired_median")]
        shown = ["–" if value is None else f"{value:+.2f}" for value in added]
        table.add_row(name, f"{entry['p50_ms']:.2f}", f"{entry['p99_ms']:.2f}", *shown, f"{entry['cpu_ms']:.2f}")
    console.print(table)
    asked = outcome["rounds"] * outcome["requests"]
    console.print(f"{asked} requests a line, one symbol each, in {outcome['rounds']} rounds")
    for count in CHALLENGERS:
        console.print(
            f"{count} challengers: logging {outcome['logging_mean_ms'][count]:.2f} ms of each answer, "
            f"{outcome['forecasts_a_request'][count]:.2f} challengers' forecasts a request, "
            f"{outcome['dropped'][count]:.0f} dropped"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=100, help="in each block")
    arguments = parser.parse_args()
    outcome = run(arguments.rounds, arguments.requests)
    if arguments.json:
        print(json.dumps(outcome, indent=2))
    else:
        show(outcome)


if __name__ == "__main__":
    main()
