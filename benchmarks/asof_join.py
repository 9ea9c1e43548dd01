"""Point-in-time joins through Feast: the as-of store against Feast's own local stores, time, memory and answers.

    python -m benchmarks.asof_join [--json] [--scale 1.0] [--stores ours,duckdb,file] [--cases panel,minute]

Each store runs as a process of its own over the same files, asked by the same `get_historical_features` with the
created-time cut-off on: 60 features, the default TTL of ten days, one bar in twenty restated, one entity row in a
hundred of an unknown symbol and one in a hundred twice. `us_daily` and `btc_15m` are as large as those markets; the
latter has 960 bars within the TTL, which is what a join of all pairs pays for. Feast's `file` store (Dask) takes
minutes on either and joins `small`. `panel` (100 symbols, 10 years of days) and `minute` (one symbol, one year of
minutes) are read by ours as the pipeline writes them, a folder a symbol and a file a year or month, and by `duckdb`
from one file; `minute` has 14,400 bars within the TTL, so ours alone joins it. Seconds leave out imports, the peak is
that of the process, the answer included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tradeloop.atomic import write_parquet
from tradeloop.partitions import unit_of
from tradeloop.state.feast_views import FOLDER_TAG

FEATURES = [f"f{number:02d}" for number in range(60)]
TTL = timedelta(days=10)
STORES = {"ours": "tradeloop.state.asof.AsOfOfflineStore", "duckdb": "duckdb", "file": "file"}


@dataclass(frozen=True)
class Case:
    """A market to join: `symbols` of `bars` each, `step` apart."""

    symbols: int
    bars: int
    step: timedelta
    stores: tuple[str, ...]
    parts: bool = False


CASES = {
    "small": Case(4, 750, timedelta(days=1), ("ours", "duckdb", "file")),
    "us_daily": Case(4, 3_000, timedelta(days=1), ("ours", "duckdb")),
    "btc_15m": Case(1, 8_700, timedelta(minutes=15), ("ours", "duckdb")),
    "panel": Case(100, 2_520, timedelta(days=1), ("ours", "duckdb"), parts=True),
    "minute": Case(1, 525_600, timedelta(minutes=1), ("ours",), parts=True),
}


def write_case(folder: Path, case: Case, scale: float) -> int:
    """Write features.parquet and entities.parquet; return the number of entity rows."""
    rng = np.random.default_rng(1)
    bars = max(2, int(case.bars * scale))
    times = pd.date_range("2020-01-01", periods=bars, freq=case.step, tz="UTC").as_unit("us")
    frames = []
    for symbol in range(case.symbols):
        restated = np.sort(rng.choice(bars, bars // 20, replace=False))
        event = times.append(times[restated])
        late = pd.to_timedelta(
            np.r_[np.zeros(bars), rng.integers(1, 6, len(restated))] * case.step.total_seconds(), "s"
        )
        frame = pd.DataFrame(rng.normal(size=(len(event), 60)).astype(np.float32), columns=FEATURES)
        frame.insert(0, "symbol", f"S{symbol}")
        frame.insert(1, "timestamp", event)
        frame.insert(2, "created", (event + late).as_unit("us"))
        frames.append(frame)
    rows = pd.concat(frames, ignore_index=True)
    rows.to_parquet(folder / "features.parquet", index=False)
    if case.parts:
        for (symbol, period), part in rows.groupby(["symbol", periods(rows["timestamp"], case.step)]):
            write_parquet(folder / "parts" / symbol / f"{period}.parquet", part)
    entities = rows[["symbol", "timestamp"]].drop_duplicates()
    unknown = entities.head(len(entities) // 100).assign(symbol="unknown")
    twice = entities.tail(len(entities) // 100)
    entities = pd.concat([entities, unknown, twice], ignore_index=True)
    entities = entities.set_axis(["symbol", "event_timestamp"], axis=1).assign(place=np.arange(len(entities)))
    entities.to_parquet(folder / "entities.parquet", index=False)
    return len(entities)


def periods(times: pd.Series, step: timedelta) -> pd.Series:
    """Return the name of the part that each row is in."""
    return times.dt.strftime("%Y" if unit_of(step) == "Y" else "%Y-%m")


def join(folder: Path, kind: str) -> None:
    """Join in this process; write the answer, print the seconds and MiB that it took."""
    warnings.simplefilter("ignore")
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, String

    online = {"type": "sqlite", "path": str(folder / "online.db")}
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / f"{kind}.db"),
            offline_store={"type": STORES[kind]},
            online_store=online,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    parts = kind == "ours" and (folder / "parts").is_dir()
    source = FileSource(
        path=str(folder / ("parts" if parts else "features.parquet")),
        timestamp_field="timestamp",
        created_timestamp_column="created",
        tags={FOLDER_TAG: "symbol"} if parts else {},
    )
    fields = [Field(name="symbol", dtype=String), *(Field(name=name, dtype=Float32) for name in FEATURES)]
    store.apply([symbol, FeatureView(name="rows", entities=[symbol], schema=fields, source=source, ttl=TTL)])
    entities = pd.read_parquet(folder / "entities.parquet")
    refs = [f"rows:{name}" for name in FEATURES]
    # A first join of a few rows takes the imports out of what is measured.
    store.get_historical_features(entities.head(3), refs, filter_by_created_timestamp=True).to_arrow()
    started = time.perf_counter()
    answer = store.get_historical_features(entities, refs, filter_by_created_timestamp=True).to_df()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer[["place", *FEATURES]].sort_values("place").to_parquet(folder / f"{kind}.parquet", index=False)
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "rows": len(answer)}))


def differences(folder: Path, kind: str) -> int:
    """Return how many entity rows of `kind`'s answer are missing, doubled, or differ from ours in any feature."""
    ours, theirs = (pd.read_parquet(folder / f"{name}.parquet").set_index("place") for name in ("ours", kind))
    doubled, theirs_there = int(theirs.index.duplicated().sum()), theirs.index
    theirs = theirs[~theirs.index.duplicated()].reindex(ours.index)
    same = np.isclose(ours.to_numpy(), theirs.to_numpy(dtype=np.float32), rtol=0, atol=0, equal_nan=True).all(axis=1)
    return doubled + int((~same | ~ours.index.isin(theirs_there)).sum())


def run_case(case: Case, stores: list[str], scale: float) -> list[dict[str, Any]]:
    """Join one case with each of its stores."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_case(folder, case, scale)
        for kind in (store for store in case.stores if store in stores):
            command = [sys.executable, "-m", "benchmarks.asof_join", "--join", name, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{kind} failed:\n{done.stderr[-2000:]}")
            measured = json.loads(done.stdout.splitlines()[-1])
            results.append({"store": kind, "asked": rows, **measured, "differ_from_ours": differences(folder, kind)})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of bars")
    parser.add_argument("--stores", default="ours,duckdb,file")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--join", nargs=2, metavar=("FOLDER", "STORE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.join:
        folder, kind = arguments.join
        join(Path(folder), kind)
        return
    stores = arguments.stores.split(",")
    chosen = {name: CASES[name] for name in arguments.cases.split(",")}
    cases = tqdm(chosen.items(), desc="cases", file=sys.stderr)
    results = {name: run_case(case, stores, arguments.scale) for name, case in cases}
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    table = Table("case", "store", "entity rows", "seconds", "× ours", "peak MiB", "rows that differ")
    for name, rows in results.items():
        ours = rows[0]["seconds"]
        for row in rows:
            table.add_row(
                name, row["store"], f"{row['asked']:,}", f"{row['seconds']:.2f}",
                f"{row['seconds'] / ours:.0f}", f"{row['peak_mib']:,.0f}", f"{row['differ_from_ours']:,}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
