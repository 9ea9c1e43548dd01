from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import REPOSITORY, tiny_bundle
from tradeloop.bento import SERVICE, build_bento, included
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.config import Params, load_params
from tradeloop.errors import BundleError, StoreError
from tradeloop.layout import Layout
from tradeloop.manifest import verify

# BentoML's own use of pathspec, pydantic and importlib, which it warns about while it is imported and builds.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Layout(tmp_path / "project")


@pytest.fixture
def store(layout: Layout, params: Params) -> BundleStore:
    return BundleStore(layout, params)


@pytest.fixture
def bundle(layout: Layout) -> Bundle:
    return tiny_bundle(layout.models / "bundle")


def put(store: BundleStore, layout: Layout) -> str:
    return store.put(verify(layout.models / "bundle"))


class TestModelStore:
    def test_holds_what_was_put_under_its_hash(self, store: BundleStore, layout: Layout, bundle: Bundle) -> None:
        assert not store.has(bundle.hash)
        assert put(store, layout) == f"tradeloop_us_daily:{bundle.version}"
        assert store.has(bundle.hash)
        assert store.get(bundle.hash).hash == bundle.hash

    def test_is_one_that_bentoml_reads(self, store: BundleStore, layout: Layout, bundle: Bundle) -> None:
        put(store, layout)
        script = "import bentoml; print(bentoml.models.get('tradeloop_us_daily:latest').path_of('bundle'))"
        environment = {"BENTOML_HOME": str(layout.bentoml), "BENTOML_DO_NOT_TRACK": "True", "PATH": "/usr/bin"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(store.folder(bundle.hash))

    @pytest.mark.usefixtures("bundle")
    def test_again_touches_nothing(self, store: BundleStore, layout: Layout) -> None:
        put(store, layout)
        before = {path: path.stat().st_mtime_ns for path in layout.bentoml.rglob("*") if path.is_file()}
        put(store, layout)
        assert {path: path.stat().st_mtime_ns for path in before} == before

    @pytest.mark.usefixtures("bundle")
    def test_leaves_the_users_own_bentoml_home_alone(self, store: BundleStore, layout: Layout) -> None:
        put(store, layout)
        assert not (layout.root.parent / "home" / "bentoml").exists()
        assert list((layout.bentoml / "tmp").iterdir()) == []

    @pytest.mark.parametrize("damage", ["half", "empty", "edited", "no_yaml"])
    def test_a_damaged_model_is_put_anew(self, store: BundleStore, layout: Layout, bundle: Bundle, damage: str) -> None:
        put(store, layout)
        folder = store.folder(bundle.hash)
        if damage == "half":
            shutil.rmtree(folder / "xgboost")
        elif damage == "empty":
            shutil.rmtree(folder.parent)
            folder.parent.mkdir()
        elif damage == "edited":
            (folder / "stack.json").write_text("{}")
        else:
            (folder.parent / "model.yaml").unlink()
        put(store, layout)
        assert store.get(bundle.hash).hash == bundle.hash
        assert (folder.parent / "model.yaml").is_file()

    def test_get_refuses_what_was_edited(self, store: BundleStore, layout: Layout, bundle: Bundle) -> None:
        put(store, layout)
        with (store.folder(bundle.hash) / "mlp" / "range.onnx").open("r+b") as file:
            file.write(b"\0")
        with pytest.raises(BundleError, match=r"mlp/range.onnx does not have the manifest's SHA-256"):
            store.get(bundle.hash)

    def test_get_refuses_another_bundle_in_its_place(self, store: BundleStore, layout: Layout, bundle: Bundle) -> None:
        put(store, layout)
        tiny_bundle(store.folder(bundle.hash), seed=1)
        with pytest.raises(BundleError, match="it was edited"):
            store.get(bundle.hash)

    def test_get_restores_from_the_pipelines_output(self, store: BundleStore, layout: Layout, bundle: Bundle) -> None:
        put(store, layout)
        shutil.rmtree(layout.bentoml)
        assert store.get(bundle.hash).hash == bundle.hash
        assert store.has(bundle.hash)

    @pytest.mark.usefixtures("bundle")
    def test_get_of_what_is_nowhere_says_so(self, store: BundleStore) -> None:
        with pytest.raises(BundleError, match="bundle ffffffffffff is neither in"):
            store.get("f" * 64)


class TestBento:
    @pytest.fixture(autouse=True)
    def project(self, layout: Layout) -> None:
        for name in ("tradeloop", "bentos"):
            layout.root.mkdir(exist_ok=True)
            shutil.copytree(REPOSITORY / name, layout.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "params.yaml", layout.root)

    def test_holds_service_parameters_requirements_and_bundle(
        self, store: BundleStore, layout: Layout, params: Params, bundle: Bundle
    ) -> None:
        put(store, layout)
        tag = build_bento(layout, params, bundle.hash)
        folder = layout.bentoml / "bentos" / tag.replace(":", "/")
        files = {path.relative_to(folder / "src").as_posix() for path in (folder / "src").rglob("*") if path.is_file()}
        assert {SERVICE, "params.yaml", "bentos/requirements.txt", "tradeloop/predictor.py"} <= files
        assert Bundle.load(folder / "src" / "bundle", expect=bundle.hash).hash == bundle.hash
        assert not [name for name in files if name.endswith((".pyc", ".pkl", ".parquet"))]
        described = (folder / "bento.yaml").read_text()
        assert f"version: {bundle.version}\n" in described and "market: us_daily" in described
        assert (folder / "env/docker/Dockerfile").read_text().count("FROM python:3.11-slim") == 1
        installed = {line.split("==")[0] for line in (folder / "env/python/requirements.txt").read_text().split()}
        assert "onnxruntime" in installed
        assert not installed & {"torch", "scikit-learn", "xgboost-cpu", "xgboost", "dvc", "optuna"}
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size < 2_000_000

    def test_code_is_the_services_own_and_nothing_that_trains(self, layout: Layout) -> None:
        modules = {name for name in included(layout.root) if name.startswith("tradeloop/")}
        for package in ("models", "evaluate", "metrics", "report", "selection", "simulation", "loop"):
            assert not [name for name in modules if name.startswith(f"tradeloop/{package}/")]
        assert not modules & {"tradeloop/training.py", "tradeloop/stacking.py", "tradeloop/tuning.py"}
        # Feast is given these by name.
        assert {"tradeloop/state/asof.py", "tradeloop/state/feast_registry.py"} <= modules

    def test_is_built_once_and_again_when_its_code_changed_or_was_edited(
        self, store: BundleStore, layout: Layout, params: Params, bundle: Bundle
    ) -> None:
        put(store, layout)
        tag = build_bento(layout, params, bundle.hash)
        folder = layout.bentoml / "bentos" / tag.replace(":", "/")
        built = (folder / "bento.yaml").stat().st_mtime_ns
        assert build_bento(layout, params, bundle.hash) == tag
        assert (folder / "bento.yaml").stat().st_mtime_ns == built
        (layout.root / "params.yaml").write_text((layout.root / "params.yaml").read_text() + "# changed\n")
        build_bento(layout, params, bundle.hash)
        assert (folder / "src" / "params.yaml").read_text().endswith("# changed\n")
        (folder / "src" / SERVICE).unlink()
        build_bento(layout, params, bundle.hash)
        assert (folder / "src" / SERVICE).is_file()
        assert list((layout.bentoml / "tmp").iterdir()) == []

    def test_without_a_stored_bundle_there_is_none(self, layout: Layout, params: Params, bundle: Bundle) -> None:
        with pytest.raises(StoreError, match="built from a stored bundle only"):
            build_bento(layout, params, bundle.hash)
        assert not (layout.bentoml / "bentos" / "tradeloop_us_daily").exists()

    def test_without_requirements_there_is_none(
        self, store: BundleStore, layout: Layout, params: Params, bundle: Bundle
    ) -> None:
        put(store, layout)
        (layout.root / "bentos" / "requirements.txt").unlink()
        with pytest.raises(StoreError, match=r"requirements.txt is missing"):
            build_bento(layout, params, bundle.hash)
