"""A project with small real bundles and features, and the service running on it, for tests over HTTP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pandas as pd
import psutil

from tests.bundles import NAMES, NOW, SYMBOLS, tiny_bundle, tiny_rows, tiny_schema
from tests.feature_files import write_rows
from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.state.database import Database, database_url

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-for-tests"
DAYS = 30
START_SECONDS = 90


@dataclass
class Home:
    """A project folder with three registered bundles: the second is the champion, the first was before it."""

    root: Path
    layout: Layout = field(init=False)
    params: Params = field(init=False)
    hashes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = Layout(self.root)
        self.params = load_params(self.layout.params)

    @property
    def versions(self) -> list[str]:
        """The bundles' short names."""
        return [name[:12] for name in self.hashes]

    def database(self) -> Database:
        """Open the state database; the caller closes it."""
        return Database.open(database_url(self.layout, self.params))

    def bundle_folder(self, number: int) -> Path:
        """Return where a bundle lies in the model store."""
        return BundleStore(self.layout, self.params).folder(self.hashes[number])

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to work on this project."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRADELOOP_", "BENTOML_", "PROMETHEUS_"))}
        extra = {"TRADELOOP_HOME": str(self.root), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
        return kept | extra | {"FEAST_USAGE": "False"}


def write_features(home: Home, newest: datetime = NOW) -> None:
    """Write `DAYS` daily feature rows of each symbol, the last one at `newest`."""
    for number, symbol in enumerate(SYMBOLS):
        times = pd.date_range(end=newest, periods=DAYS, freq="D").as_unit("us")
        rows = pd.DataFrame(tiny_rows(DAYS, seed=number), columns=list(NAMES))
        rows.insert(0, "created", times)
        rows.insert(0, "timestamp", times)
        rows.insert(0, "symbol", symbol)
        write_rows(home.layout.features, symbol, rows)


def make_home(root: Path, **facts: Any) -> Home:
    """Build the project; `facts` go into the bundles' manifests."""
    root.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    home = Home(root)
    schema = tiny_schema()
    schema.save(home.layout.store / "schema.json")
    write_features(home)
    store = BundleStore(home.layout, home.params)
    database = home.database()
    registry = Registry(database, home.params.market)
    for seed in (1, 2, 3):
        folder = root / "packaged" / str(seed)
        bundle = tiny_bundle(folder, seed=seed, **facts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # BentoML uses what pathspec means to drop
            store.put(verify(folder))
        registry.register(bundle.hash, actor="test", reason="made", passed=True)
        home.hashes.append(bundle.hash)
        if seed < 3:
            registry.promote(bundle.hash, actor="test", reason="made")
    database.close()
    return home


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """The service as a user starts it, in a process group of its own; its output goes to `log`."""

    def __init__(self, home: Home, *command: str, cwd: Path = ROOT, **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.log = home.root / f"server-{self.port}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        program = command or (sys.executable, "-c", "from tradeloop.cli import main; main()", "serve")
        self._command = [*program, "--port", str(self.port)]
        self._cwd = cwd
        self._environment = home.environment | {"TRADELOOP_TOKEN": TOKEN} | environment
        self.seen: set[tuple[int, int]] = set()
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=self.url, timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop(signal.SIGTERM)

    def stop(self, how: int) -> None:
        """Send a signal to the server (`SIGKILL`: to each of its processes) and wait until none is left."""
        if self.process.poll() is not None:
            return
        # The supervisor gives each worker a process group of its own.
        workers = psutil.Process(self.process.pid).children(recursive=True)
        for process in [*workers, self.process] if how == signal.SIGKILL else [self.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        for process in psutil.wait_procs(workers, timeout=20)[1]:
            process.kill()

    def wait_ready(self) -> Self:
        """Wait until /readyz says so; what /livez and /readyz said meanwhile goes into `seen`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                live, ready = (self.client.get(path).status_code for path in ("/livez", "/readyz"))
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            self.seen.add((live, ready))
            if ready == 200:
                return self
            time.sleep(0.1)
        raise AssertionError(f"the server did not get ready:\n{self.output[-4000:]}")

    def predict(self, *symbols: str, **more: Any) -> httpx.Response:
        """Post a question."""
        return self.client.post("/predict", json={"symbols": list(symbols), **more})

    def post(self, path: str, content: dict[str, Any], token: str | None = TOKEN) -> httpx.Response:
        """Post to an endpoint that needs the token."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self.client.post(path, json=content, headers=headers)

    @property
    def output(self) -> str:
        """What the server has printed."""
        return self.log.read_text(errors="replace")
