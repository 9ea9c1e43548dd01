"""Time and peak memory of each stage, in a fresh clone of this repository.

    python -m benchmarks.pipeline [--json]

Each stage runs as a process of its own, in the DAG's order; the peak is that of its largest process (the kernel's
`ru_maxrss`). The share column is each stage's part of the whole: absolute seconds are the machine's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]


def stage_commands(folder: Path) -> list[tuple[str, str]]:
    """Return (name, command) of each stage in the order in which DVC runs them."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        import networkx

        order = networkx.topological_sort(repo.index.graph.reverse())
        return [(stage.name, stage.cmd) for stage in order if stage.cmd]


def measure(command: str, folder: Path) -> dict[str, float]:
    """Run one stage and return its wall seconds and its peak memory in MiB."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("TRADELOOP_HOME", None)
    environment["BENTOML_HOME"] = str(folder / "data/bentoml")
    started = time.perf_counter()
    process = subprocess.Popen(
        command.split(), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed:\n{errors.decode()[-2000:]}")
    return {"seconds": time.perf_counter() - started, "peak_mib": usage.ru_maxrss / 1024}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        stages = stage_commands(folder)
        rows = {}
        for stage, command in tqdm(stages, desc="stages", unit="stage", file=sys.stderr):
            rows[stage] = measure(command, folder)
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=2))
        return
    total = sum(row["seconds"] for row in rows.values())
    table = Table("stage", "seconds", "share", "peak MiB", title=f"pipeline: {total:.1f} s")
    for stage, row in rows.items():
        table.add_row(stage, f"{row['seconds']:.1f}", f"{row['seconds'] / total:.0%}", f"{row['peak_mib']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
