"""The built Bento, moved elsewhere, in an environment that has nothing but its own requirements."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.bundles import SYMBOLS, tiny_bundle, tiny_rows
from tests.servers import DAYS, ROOT, Home, Server, make_home
from tradeloop.bento import build_bento
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.serving.answers import Answer

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
    # What the first /observe loads: features and all they are computed with.
    observe = "import tradeloop.features, tradeloop.stream.consumer, tradeloop.serving.observe"
    subprocess.run([python, "-c", observe], cwd=bento / "src", env=os.environ | {"PYTHONPATH": ""}, check=True)
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
