"""The built Bento, moved elsewhere, in an environment that has nothing but its own requirements."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml

from tests.bundles import SYMBOLS, tiny_bundle, tiny_rows
from tests.servers import DAYS, ROOT, Home, Server, make_home
from tests.stream.market import held_back, make_market
from tradeloop.bento import build_bento
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.config import load_params
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.serving.answers import Answer
from tradeloop.state.online import OnlineStore

pytestmark = [pytest.mark.xdist_group("server"), pytest.mark.slow]

HEAVY = ("torch", "sklearn", "xgboost", "dvc", "optuna", "matplotlib", "skl2onnx", "onnxmltools", "polars", "scipy")


def build(folder: Path) -> tuple[Path, Bundle]:
    """Build a Bento in a project of its own and move it to `folder`; return it and its bundle."""
    project = make_home(folder / "project")
    for name in ("tradeloop", "bentos"):
        shutil.copytree(ROOT / name, project.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BentoML uses what pathspec means to drop
        tag = build_bento(project.layout, project.params, project.hashes[2])
    moved = folder / "bento"
    shutil.move(project.layout.bentoml / "bentos" / tag.replace(":", "/"), moved)
    bundle = BundleStore(project.layout, project.params).get(project.hashes[2])
    shutil.rmtree(project.root)
    return moved, bundle


def environment(folder: Path, requirements: Path) -> Path:
    """Make a virtual environment with `requirements` and return its interpreter."""
    uv = Path(sys.executable).with_name("uv")
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    variables = os.environ | {"UV_FIND_LINKS": links, "VIRTUAL_ENV": str(folder)}
    for command in (
        ["venv", "-q", "-p", sys.executable, str(folder)],
        ["pip", "install", "-q", "-r", str(requirements)],
    ):
        subprocess.run([uv, *command], env=variables, check=True)
    return folder / "bin" / "python"


def data_only(folder: Path) -> Home:
    """Return a project that has features and nothing else: no code, no registry, no model store."""
    home = make_home(folder)
    for path in (home.layout.live, home.layout.bentoml, home.root / "packaged"):
        shutil.rmtree(path)
    home.hashes.clear()
    return home


def test_the_bento_serves_from_its_own_folder_with_its_own_requirements(tmp_path: Path) -> None:
    bento, baked = build(tmp_path / "built")
    python = environment(tmp_path / "environment", bento / "src" / "bentos" / "requirements.txt")
    for module in HEAVY:
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 1, module
    takes_bars(python, bento / "src", tmp_path / "market")
    home = data_only(tmp_path / "home")
    command = (str(python), "-m", "bentoml", "serve", str(bento))
    with Server(home, *command, "--host", "127.0.0.1", cwd=tmp_path, PYTHONPATH="") as server:
        server.wait_ready()
        answer = Answer.model_validate(server.predict(*SYMBOLS).json())
        assert (answer.model.hash, answer.model.source) == (baked.hash, "bento")
        agrees(server, baked)

        champion = add_champion(home)
        deadline = time.monotonic() + 10
        while server.predict("AAPL").json()["model"]["hash"] != champion.hash:
            assert time.monotonic() < deadline, server.output[-3000:]
            time.sleep(0.05)
        assert server.predict("AAPL").json()["model"]["source"] == "registry"
        agrees(server, champion)


OBSERVE = """
import asyncio, sys
from types import SimpleNamespace
import httpx
from tradeloop.config import load_params
from tradeloop.layout import Layout
from tradeloop.serving import observe
from tradeloop.serving.app import build_app

async def main():
    layout, app = Layout.current(), build_app()
    observe.WAIT_SECONDS = 600.0
    app.state.engine = SimpleNamespace(layout=layout, params=load_params(layout.params), bundle=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=600) as client:
        response = await client.post("/observe", content=sys.stdin.read())
    print(response.status_code, response.text)

asyncio.run(main())
"""


def takes_bars(python: Path, source: Path, folder: Path) -> None:
    """Let the Bento's code, in its own environment, take bars: their features online are those of batch here."""
    market = make_market(folder)
    everything = load_params(ROOT / "params.yaml").features.model_copy(update={"columns": None})
    market.params = market.params.model_copy(update={"features": everything})
    market.layout.params.write_text(yaml.safe_dump(market.params.model_dump(mode="json")))
    done = subprocess.run(
        [python, "-c", OBSERVE],
        input=json.dumps({"bars": held_back()}),
        cwd=source,
        env=os.environ | {"PYTHONPATH": "", "TRADELOOP_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    status, answer = done.stdout.split(" ", 1)
    assert status == "200", answer
    assert {one["status"] for one in json.loads(answer)["bars"]} == {"new", "context"}
    market.assert_whole()
    store = OnlineStore(market.layout, market.params)
    market.assert_online(store)
    store.close()


def add_champion(home: Home) -> Bundle:
    """Store another bundle and promote it, as a pipeline elsewhere would."""
    champion = tiny_bundle(home.root / "packaged", seed=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        BundleStore(home.layout, home.params).put(verify(home.root / "packaged"))
    database = home.database()
    registry = Registry(database, home.params.market)
    registry.register(champion.hash, actor="test", reason="made", passed=True)
    registry.promote(champion.hash, actor="test", reason="made")
    database.close()
    return champion


def agrees(server: Server, bundle: Bundle) -> None:
    """Check every number of the answers against the same bundle in this process."""
    for number, symbol in enumerate(SYMBOLS):
        forecast = bundle.forecast(tiny_rows(DAYS, seed=number)[-1:])
        (entry,) = server.predict(symbol).json()["predictions"]
        assert entry["p_up"] == pytest.approx(forecast.p_up[0], abs=1e-6)
        for name in ("value", "low", "high"):
            suffix = "" if name == "value" else f"_{name}"
            expected = getattr(forecast, f"ret{suffix}")[0]
            assert entry["expected_return"][name] == pytest.approx(expected, abs=1e-6)
