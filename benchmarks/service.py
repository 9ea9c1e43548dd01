"""What the serving benchmarks share: a project of their own over the pipeline's outputs, servers pinned to a core."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
import psutil

from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.manifest import MANIFEST, Facts, Verified, seal, verify
from tradeloop.registry import Registry
from tradeloop.state.database import Database, database_url

ROOT = Path(__file__).resolve().parents[1]
OURS = "bentos.service:Tradeloop"
_NEEDED = (
    "data/models/bundle/manifest.json",
    "data/features",
    "data/store/schema.json",
    "data/training/matrix.parquet",
)
_START_SECONDS = 180


class Bench:
    """A temporary project: the pipeline's outputs by link, live state of its own, so that nothing real is touched.

    Its champion is the pipeline's bundle; `twin` is the same bundle under another hash, and was champion before.
    """

    def __init__(self, folder: Path) -> None:
        project = Layout.current()
        if missing := [name for name in _NEEDED if not (project.root / name).exists()]:
            sys.exit(f"{project.root / missing[0]} is missing: this benchmark needs what `make repro` makes")
        for name in ("features", "store", "training", "models"):
            (folder / "data").mkdir(parents=True, exist_ok=True)
            (folder / "data" / name).symlink_to(project.data / name)
        shutil.copy(project.params, folder / "params.yaml")
        self.layout = Layout(folder)
        self.params: Params = load_params(self.layout.params)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRADELOOP_", "BENTOML_"))} | {
            "TRADELOOP_HOME": str(folder),
            "BENTOML_HOME": str(folder / "data" / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "FEAST_USAGE": "False",
            "OMP_NUM_THREADS": "1",
        }
        os.environ["BENTOML_HOME"] = self.environment["BENTOML_HOME"]
        bundle = verify(self.layout.models / "bundle")
        self.champion, self.twin = bundle.hash, self._register(bundle)

    def database(self) -> Database:
        """Open the state database; the caller closes it."""
        return Database.open(database_url(self.layout, self.params))

    def _register(self, bundle: Verified) -> str:
        """Register and promote the twin, then the bundle; return the twin's hash."""
        manifest = bundle.manifest
        facts = Facts(**{k: v for k, v in manifest.model_dump().items() if k in Facts.model_fields} | {"name": "twin"})
        files = {name: body for name, body in bundle.files.items() if name != MANIFEST}
        twin = seal(facts, manifest.schema_hash, files)
        store, database = BundleStore(self.layout, self.params), self.database()
        registry = Registry(database, self.params.market)
        for version in (twin, bundle):
            store.put(version)
            registry.register(version.hash, actor="benchmark", reason="benchmark", passed=True)
            registry.promote(version.hash, actor="benchmark", reason="benchmark")
        database.close()
        return twin.hash


class Served:
    """A BentoML service in processes of its own, on one core; whatever happens it is stopped at the end."""

    def __init__(self, bench: Bench, target: str, *, core: int | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._core = core
        self._command = [
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            target,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self._environment = bench.environment
        self._log = bench.layout.root / f"{target.split('.')[-1]}.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        if self._core is not None:
            os.sched_setaffinity(self._process.pid, {self._core})  # the worker inherits it
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=_START_SECONDS) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
        sys.exit(f"the service did not start:\n{self._log.read_text()[-3000:]}")

    def _stop(self) -> None:
        children = self._children()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()

    def _children(self) -> Sequence[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @property
    def worker(self) -> psutil.Process:
        """The process that answers."""
        return next(child for child in self._children() if any("worker.service" in part for part in child.cmdline()))
