"""The service over HTTP against the plain way, in one run: one worker on one core, the client on another.

    python -m benchmarks.serving [--json] [--requests 5000]

Full stack, one symbol a request: HTTP, features from Feast's SQLite, the ensemble, a prediction on disk before the
answer leaves. The plain way (benchmarks/plain_service.py) is a BentoML service at its defaults that reads one scalar a
feature with `get_online_features`, asks scikit-learn, XGBoost and torch, and inserts and commits. Both answer with nine
models. Latencies are of one client that asks again as soon as it is answered; req/s is with eight. CPU is the worker's
own processor time for a request, which other load on the machine does not stretch. Needs what `make repro` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.client import Client
from benchmarks.service import OURS, Bench, Served

PLAIN = "benchmarks.plain_service:Plain"
CLIENTS = 8
_IMPORT = """
import sys, time
import psutil
sys.path.insert(0, {root!r})
started = time.perf_counter()
{statement}
print(time.perf_counter() - started, psutil.Process().memory_info().rss / 2**20)
"""


def measure(served: Served, symbol: str, requests: int) -> dict[str, float]:
    """Return latencies in ms, requests a second, ms of processor time a request, and the worker's memory in MiB."""
    with Client(served.port, [symbol]) as client:
        client.timed(max(20, requests // 10))
        before = sum(served.worker.cpu_times()[:2])
        latencies = np.array(client.timed(requests)) * 1e3
        spent = sum(served.worker.cpu_times()[:2]) - before
    return {
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "max_ms": float(latencies.max()),
        "requests_per_second": throughput(served.port, symbol, requests),
        "cpu_ms": spent * 1e3 / requests,
        "memory_mib": served.worker.memory_info().rss / 2**20,
        "requests": float(requests),
    }


def throughput(port: int, symbol: str, requests: int) -> float:
    """Return answers a second to several clients at once."""
    each = max(1, requests // CLIENTS)

    def ask() -> None:
        with Client(port, [symbol]) as client:
            client.timed(each)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CLIENTS * each / (time.perf_counter() - started)


def import_cost(statement: str) -> dict[str, float]:
    """Return the seconds that `statement` takes in a fresh process, and that process's memory in MiB."""
    code = _IMPORT.format(root=str(Path(__file__).parents[1]), statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return {"seconds": seconds, "memory_mib": memory}


def run(requests: int) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0] if len(cores) > 1 else None
    outcome: dict[str, Any] = {"cores": len(cores)}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        symbol = bench.params.active.symbols[0]
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:]))
        with Served(bench, OURS, core=server_core) as served:
            outcome["ours"] = measure(served, symbol, requests)
        with Served(bench, PLAIN, core=server_core) as served:
            outcome["plain"] = measure(served, symbol, max(50, requests // 20))
    outcome["import"] = {
        "nothing": import_cost("pass"),
        "feast": import_cost("import feast"),
        "feast, as the service imports it": import_cost(
            "from tradeloop.state.feast_import import import_feast; import_feast()"
        ),
    }
    return outcome


def show(outcome: dict[str, Any]) -> None:
    ours, plain = outcome["ours"], outcome["plain"]
    table = Table("one symbol a request", "ours", "plain way", "ratio")
    rows = [("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("max_ms", "max ms"), ("cpu_ms", "CPU ms a request")]
    for key, label in rows:
        table.add_row(label, f"{ours[key]:.2f}", f"{plain[key]:.2f}", f"{plain[key] / ours[key]:.1f}")
    rates = ours["requests_per_second"], plain["requests_per_second"]
    table.add_row(f"req/s, {CLIENTS} clients", f"{rates[0]:.0f}", f"{rates[1]:.0f}", f"{rates[0] / rates[1]:.1f}")
    table.add_row("memory MiB", f"{ours['memory_mib']:.0f}", f"{plain['memory_mib']:.0f}", "")
    table.add_row("requests timed", f"{ours['requests']:.0f}", f"{plain['requests']:.0f}", "")
    console = Console()
    console.print(table)
    console.print(f"one worker on one of {outcome['cores']} cores, the client on the rest")
    for name, cost in outcome["import"].items():
        console.print(f"a process that imports {name}: {cost['seconds']:.1f} s, {cost['memory_mib']:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--requests", type=int, default=5000, help="timed requests; the plain way gets a twentieth")
    arguments = parser.parse_args()
    outcome = run(arguments.requests)
    if arguments.json:
        print(json.dumps(outcome, indent=2))
    else:
        show(outcome)


if __name__ == "__main__":
    main()
