"""A rollback while eight clients ask: how many requests fail, and how soon the other model answers.

    python -m benchmarks.rollback [--json] [--rounds 5]

Each round waits a second under load, rolls back in the registry as `tradeloop rollback` does (the time to verify the
bundle included), and notes for each client when the first answer by the other model came and when the last by the one
left; then it promotes again. Needs the outputs of `make repro`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.client import Client
from benchmarks.service import OURS, Bench, Served
from tradeloop.bundle_store import BundleStore
from tradeloop.registry import Registry
from tradeloop.serving.champion import promote_verified, roll_back_verified

CLIENTS = 8
_SECONDS = 1.0


@dataclass
class Load:
    """Clients that ask until told to stop, and every answer: when it came and which model gave it."""

    port: int
    symbols: list[str]
    answers: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client get its last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        try:
            with Client(self.port, self.symbols) as client:
                while not self._stop.is_set():
                    status, body = client.post()
                    if status == 200:
                        self.answers.append((time.perf_counter(), orjson.loads(body)["model"]["hash"]))
                    else:
                        self.failures.append(f"{status}: {body[:200].decode(errors='replace')}")
        except OSError as error:
            self.failures.append(str(error))


def one_round(load: Load, registry: Registry, bench: Bench) -> dict[str, float]:
    """Roll back under load; return seconds from the call to its return, to the first and to the last swapped answer."""
    get = BundleStore(bench.layout, bench.params).get
    time.sleep(_SECONDS)
    called = time.perf_counter()
    roll_back_verified(registry, get, None, actor="benchmark", reason="benchmark")
    returned = time.perf_counter()
    time.sleep(_SECONDS)
    after = [(at, model) for at, model in load.answers.copy() if at >= called]
    new = [at for at, model in after if model == bench.twin]
    old = [at for at, model in after if model == bench.champion]
    if not new:
        sys.exit("the service did not follow the rollback within a second")
    promote_verified(registry, get, bench.champion, actor="benchmark", reason="benchmark", force=True)
    time.sleep(_SECONDS)
    return {
        "returned": returned - called,
        "first_new": min(new) - called,
        "last_old": max(old, default=called) - called,
    }


def run(rounds: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:]))
        with Served(bench, OURS, core=cores[0] if len(cores) > 1 else None) as served:
            database = bench.database()
            registry = Registry(database, bench.params.market)
            load = Load(served.port, bench.params.active.symbols[:1])
            try:
                turns = [
                    one_round(load, registry, bench) for _ in tqdm(range(rounds), unit="rollback", file=sys.stderr)
                ]
            finally:
                load.stop()
                database.close()
    return {
        "clients": CLIENTS,
        "rollbacks": rounds,
        "requests": len(load.answers) + len(load.failures),
        "failed": len(load.failures),
        "failures": load.failures[:5],
        "seconds": {key: [turn[key] for turn in turns] for key in turns[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    outcome = run(arguments.rounds)
    if arguments.json:
        print(json.dumps(outcome, indent=2))
        return
    table = Table("seconds from the call", "median", "worst")
    labels = {
        "returned": "the call returns",
        "first_new": "first answer by the other model",
        "last_old": "last by the one left",
    }
    for key, label in labels.items():
        seconds = outcome["seconds"][key]
        table.add_row(label, f"{np.median(seconds):.3f}", f"{max(seconds):.3f}")
    console = Console()
    console.print(table)
    console.print(
        f"{outcome['rollbacks']} rollbacks under {CLIENTS} clients: "
        f"{outcome['failed']} of {outcome['requests']} requests failed"
    )


if __name__ == "__main__":
    main()
