"""Features and point-in-time joins of large panels: time and memory of all processes, on threads and on a Ray cluster.

    python -m benchmarks.scale [--json] [--panels daily,minute] [--backends local,ray] [--rows 0.1,0.3,1] [--skip-join]

`daily` is 500 symbols × 10 years of daily bars, `minute` 20 symbols × one year of 1-minute bars; `--rows` are shares of
their symbols (0.1, 0.3, 1: one, three and ten times as many rows). The bars are random walks, written as the check
stage writes them and removed afterwards. Each panel runs as ``params.yaml`` has its features, in processes of its own:

- `features`: the stage's own function on empty folders, with two threads, or on a Ray cluster of two nodes of one core
  each that is started on this machine;
- `join`: every label-like row (a sample of at most a million, spread over all files) asked of Feast through the as-of
  store.

Seconds leave out imports; processor seconds and peak memory (PSS: a shared page counts once) are of all processes,
Ray's own too. The exponent is the slope of log processor seconds on log rows. The files of every backend are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tradeloop.atomic import write_parquet
from tradeloop.bars import COLUMNS
from tradeloop.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
ASKED = 1_000_000


@dataclass(frozen=True)
class Panel:
    """`symbols` of `bars` each, one an `interval`."""

    symbols: int
    bars: int
    interval: str


PANELS = {"daily": Panel(500, 2_520, "1d"), "minute": Panel(20, 365 * 1_440, "1m")}
STEP = {"1d": timedelta(days=1), "1m": timedelta(minutes=1)}


def write_panel(root: Path, panel: Panel, backend: str) -> int:
    """Write params.yaml and checked bars; return the number of rows."""
    names = [f"S{number:03d}" for number in range(panel.symbols)]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    market = {"source": "files", "symbols": names, "calendar": "24/7", "interval": panel.interval}
    params["markets"] = {"panel": market | {"files": {"path": "unused"}}}
    params |= {"market": "panel", "compute": {"backend": backend, "workers": 2}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    times = pd.date_range("2015-01-01", periods=panel.bars, freq=STEP[panel.interval], tz="UTC").as_unit("us")
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, panel.bars).clip(-0.05, 0.05)))
        opened = np.r_[100.0, close[:-1]]
        high = np.maximum(opened, close) * np.exp(rng.exponential(0.003, panel.bars))
        low = np.minimum(opened, close) * np.exp(-rng.exponential(0.003, panel.bars))
        values = (times, opened, high, low, close, rng.lognormal(10, 1, panel.bars))
        frame = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
        write_parquet(Layout(root).clean / "bars" / f"{name}.parquet", frame)
    return panel.symbols * panel.bars


def compute_features(root: Path) -> tuple[float, float]:
    """Run the features stage in this process; return its seconds, and this process's processor seconds before it."""
    from stages.features import features
    from tradeloop.compute.features import read_bars
    from tradeloop.config import load_params
    from tradeloop.features import compute, schema_for

    layout = Layout(root)
    params = load_params(layout.params)
    if params.compute.backend == "local":  # load the compiled kernels; Ray's workers have to load theirs
        compute(read_bars(layout, params, params.active.symbols[0])[:2_000], schema_for(params))
    started, before = time.perf_counter(), time.process_time()
    features(layout, params)
    return time.perf_counter() - started, before


def join_features(root: Path) -> tuple[float, float]:
    """Ask Feast for the rows at a sample of all closes; returns as `compute_features`."""
    from tradeloop.config import load_params
    from tradeloop.features import schema_for
    from tradeloop.state.feast_repo import open_store

    layout = Layout(root)
    params = load_params(layout.params)
    schema = schema_for(params)
    store = open_store(layout, params, schema)
    refs = [f"{schema.scalar_view}:{name}" for name in schema.names]
    files = sorted((layout.clean / "bars").glob("*.parquet"))
    frames = [pd.read_parquet(file, columns=["timestamp"]).assign(symbol=file.stem) for file in files]
    entities = pd.concat(frames, ignore_index=True).rename(columns={"timestamp": "event_timestamp"})
    entities = entities.iloc[:: max(1, math.ceil(len(entities) / ASKED))].reset_index(drop=True)
    store.get_historical_features(entities.head(3), refs, filter_by_created_timestamp=True).to_arrow()
    started, before = time.perf_counter(), time.process_time()
    table = store.get_historical_features(entities, refs, filter_by_created_timestamp=True).to_arrow()
    assert table.num_rows == len(entities)
    return time.perf_counter() - started, before


class Watch:
    """Peak memory and processor seconds of a process's descendants, sampled."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._cpu: dict[int, float] = {}
        self._before = {process.pid: _cpu(process) for process in _descendants()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        """What the descendants have used since this was made."""
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._cpu.items())

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            total = 0.0
            for process in _descendants():
                try:
                    total += process.memory_full_info().pss / 2**20
                    self._cpu[process.pid] = _cpu(process)
                except psutil.Error:
                    continue
            self.peak_mib = max(self.peak_mib, total)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


@contextmanager
def cluster(backend: str) -> Iterator[dict[str, str]]:
    """Yield what a process needs in its environment; for Ray, start two nodes of one core each, and stop them."""
    if backend == "local":
        yield {}
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 300 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes.add_node(**node)
        nodes.wait_for_nodes()
        yield {"RAY_ADDRESS": nodes.address}
    finally:
        nodes.shutdown()


def in_process(root: Path, work: str, environment: dict[str, str]) -> dict[str, float]:
    """Do `work` in a process of its own and watch it and all that is started here."""
    command = [sys.executable, "-m", "benchmarks.scale", "--work", work, str(root)]
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
    with Watch() as watch:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | threads | environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{work} failed:\n{done.stderr[-3000:]}")
    seconds, before = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": seconds, "cpu_seconds": watch.cpu_seconds - before, "peak_mib": watch.peak_mib}


def digest(folder: Path) -> str:
    """Return one digest of all files of a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def run_panel(name: str, backends: list[str], shares: list[float], *, joins: bool) -> list[dict[str, Any]]:
    """Measure a panel at each share of its symbols on each backend."""
    results = []
    for share in shares:
        panel = Panel(**asdict(PANELS[name]) | {"symbols": max(1, round(PANELS[name].symbols * share))})
        digests = set()
        for backend in tqdm(backends, desc=f"{name} × {share:g}", file=sys.stderr):
            root = Path(tempfile.mkdtemp(prefix="scale"))
            try:
                rows = write_panel(root, panel, backend)
                with cluster(backend) as environment:
                    for work in ("features", "join") if joins else ("features",):
                        measured = in_process(root, work, environment)
                        results.append({"work": work, "backend": backend, "rows": rows, **measured})
                digests.add(digest(root / "data" / "features"))
            finally:
                shutil.rmtree(root)
        if len(digests) > 1:
            sys.exit(f"{name}: the backends wrote different files")
    return results


def exponents(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the slope of log processor seconds on log rows, by work and backend."""
    found = {}
    for key in dict.fromkeys((row["work"], row["backend"]) for row in results):
        rows = [row for row in results if (row["work"], row["backend"]) == key]
        if len(rows) > 1:
            x, y = (np.log([row[name] for row in rows]) for name in ("rows", "cpu_seconds"))
            found[" ".join(key)] = float(np.polyfit(x, y, 1)[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--panels", default="daily,minute")
    parser.add_argument("--backends", default="local,ray")
    parser.add_argument("--rows", default="0.1,0.3,1", help="shares of each panel's symbols")
    parser.add_argument("--skip-join", action="store_true")
    parser.add_argument("--work", nargs=2, metavar=("WORK", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work, folder = arguments.work
        print(json.dumps({"features": compute_features, "join": join_features}[work](Path(folder))))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a cluster is stopped whatever ends this
    shares = [float(share) for share in arguments.rows.split(",")]
    backends = arguments.backends.split(",")
    found = {
        name: run_panel(name, backends, shares, joins=not arguments.skip_join) for name in arguments.panels.split(",")
    }
    slopes = {name: exponents(results) for name, results in found.items()}
    if arguments.json:
        print(json.dumps({"results": found, "exponents": slopes}, indent=2))
        return
    table = Table("panel", "work", "backend", "rows", "seconds", "processor seconds", "peak MiB")
    for name, results in found.items():
        for row in results:
            table.add_row(
                name, row["work"], row["backend"], f"{row['rows']:,}", f"{row['seconds']:.1f}",
                f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:,.0f}",
            )  # fmt: skip
    Console().print(table)
    for name, slope in slopes.items():
        print(name, {key: round(value, 3) for key, value in slope.items()})


if __name__ == "__main__":
    main()
