from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.package import package as package_stage
from stages.publish import publish as publish_stage
from tests.bundles import NOW, REPOSITORY, SYMBOLS, tiny_graphs, tiny_pipeline, tiny_schema
from tradeloop.assembly import assemble
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.champion import champion_bundle, open_registry
from tradeloop.config import Params, load_params
from tradeloop.errors import BundleError, RegistryError
from tradeloop.layout import Layout
from tradeloop.lifecycle import ModelEvent
from tradeloop.manifest import verify
from tradeloop.publishing import ensure_published, package, publish
from tradeloop.state.database import URL_VARIABLE
from tradeloop.state.online import OnlineStore

# BentoML's and Feast's own, raised while they are imported and used.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BY_HAND = {"actor": "operator", "reason": "losing money"}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for name in ("BENTOML_HOME", URL_VARIABLE, "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    layout = Layout(tmp_path)
    tiny_pipeline(layout)
    return layout


@pytest.fixture
def without_bento(params: Params) -> Params:
    return changed(params, "package", build_bento=False)


def changed(params: Params, block: str, **values: Any) -> Params:
    return params.model_copy(update={block: getattr(params, block).model_copy(update=values)})


def events(layout: Layout, params: Params) -> list[ModelEvent]:
    with open_registry(layout, params) as registry:
        return registry.events()


def kinds(layout: Layout, params: Params) -> list[str]:
    return [event.kind for event in events(layout, params)]


class TestAssemble:
    def test_says_where_it_comes_from(self, layout: Layout, params: Params) -> None:
        manifest = assemble(layout, params).manifest
        assert (manifest.name, manifest.market, manifest.symbols) == ("tradeloop", "us_daily", list(SYMBOLS))
        matrix = pd.read_parquet(layout.training / "matrix.parquet")
        assert manifest.train_end == matrix["timestamp"].iloc[len(matrix) // 2 - 1]
        assert manifest.labels == params.labels
        assert manifest.thresholds.probability == params.evaluate.threshold
        assert manifest.thresholds.cost_bps == params.evaluate.cost_bps
        assert manifest.edge_proven == {"direction": True, "return": False, "range": True}
        assert {"onnxruntime", "torch", "xgboost-cpu"} <= set(manifest.versions)
        assert manifest.git_revision == "unknown"

    def test_the_same_input_gives_the_same_bytes(self, layout: Layout, params: Params) -> None:
        assemble(layout, params)
        before = verify(layout.models / "bundle").files
        shutil.rmtree(layout.models / "bundle")
        assemble(layout, params)
        assert verify(layout.models / "bundle").files == before

    def test_golden_rows_are_spread_over_the_holdout(self, layout: Layout, params: Params) -> None:
        assemble(layout, params)
        golden = np.array(json.loads((layout.models / "bundle" / "golden.json").read_text())["features"])
        matrix = pd.read_parquet(layout.training / "matrix.parquet")[list(tiny_schema().names)].to_numpy()
        rows = [int(np.flatnonzero((matrix == row.astype(np.float32)).all(axis=1))[0]) for row in golden]
        assert len(rows) == 12
        assert (rows[0], rows[-1]) == (len(matrix) // 2, len(matrix) - 1)

    def test_models_other_than_the_evaluated_are_refused(self, layout: Layout, params: Params) -> None:
        name = "mlp/return.onnx"
        (layout.models / "trained" / name).write_bytes(tiny_graphs(6, seed=9)[name])
        with pytest.raises(BundleError, match=r"ret differs by .* from what was evaluated: run evaluate"):
            assemble(layout, params)

    @pytest.mark.parametrize(
        "name",
        ["models/stack/stack.json", "reports/gate.json", "reports/metrics.json", "models/trained/mlp/range.onnx"],
    )
    def test_a_missing_input_is_named(self, layout: Layout, params: Params, name: str) -> None:
        (layout.data / name).unlink()
        with pytest.raises(BundleError, match=name):
            assemble(layout, params)

    def test_the_revision_is_that_of_code_and_parameters(self, layout: Layout, params: Params) -> None:
        def git(*arguments: str) -> str:
            command = ["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", *arguments]
            done = subprocess.run(command, cwd=layout.root, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        (layout.root / ".gitignore").write_text("data/\n")
        git("init", "-q")
        git("add", "-A")
        git("commit", "-qm", "code")
        revision = git("rev-parse", "HEAD")
        (layout.root / "NOTES").write_text("not code")
        git("add", "-A")
        git("commit", "-qm", "notes")
        manifest = assemble(layout, params).manifest
        assert (manifest.git_revision, manifest.git_dirty) == (revision, False)
        layout.params.write_text(layout.params.read_text() + "# edited\n")
        assert assemble(layout, params).manifest.git_dirty


class TestPackage:
    def test_what_passed_is_stored_built_and_registered(self, layout: Layout, params: Params) -> None:
        report = package(layout, params)
        tag = f"tradeloop_us_daily:{report['version']}"
        assert (report["verdict"], report["model"], report["bento"]) == ("pass", tag, tag)
        assert BundleStore(layout, params).get(report["bundle"]).hash == report["bundle"]
        assert (layout.bentoml / "bentos" / tag.replace(":", "/") / "bento.yaml").is_file()
        (event,) = events(layout, params)
        assert (event.kind, event.model) == ("registered", report["bundle"])
        assert event.evidence["metrics"] == {"direction": {"auc": 0.5}}

    def test_what_failed_is_quarantined_and_no_bento_is_built(self, layout: Layout, params: Params) -> None:
        good = package(layout, params)
        tiny_pipeline(layout, seed=1, passed=False)
        report = package(layout, params)
        assert (report["verdict"], report["model"], report["bento"]) == ("fail", None, None)
        assert report["reason"] == "failed the gate: range R² .1 is below .2"
        assert not BundleStore(layout, params).folder(report["bundle"]).exists()
        bentos = [path.name for path in (layout.bentoml / "bentos" / "tradeloop_us_daily").iterdir() if path.is_dir()]
        assert bentos == [good["version"]]
        assert kinds(layout, params) == ["registered", "quarantined"]

    def test_again_changes_nothing(self, layout: Layout, without_bento: Params) -> None:
        first = package(layout, without_bento)
        assert package(layout, without_bento) == first
        assert kinds(layout, without_bento) == ["registered"]

    def test_the_stage_writes_the_report(
        self, layout: Layout, without_bento: Params, capsys: pytest.CaptureFixture[str]
    ) -> None:
        package_stage(layout, without_bento)
        report = json.loads((layout.reports / "package.json").read_text())
        assert report["verdict"] == "pass" and report["bento"] is None
        assert capsys.readouterr().out == f"package: bundle {report['version']} passed the gate; Bento none\n"


class TestPublish:
    @pytest.fixture(autouse=True)
    def packaged(self, layout: Layout, without_bento: Params) -> Bundle:
        package(layout, without_bento)
        return Bundle.load(layout.models / "bundle")

    def test_promotes_and_fills_the_online_store(self, layout: Layout, without_bento: Params, packaged: Bundle) -> None:
        publish_stage(layout, without_bento)
        report = json.loads((layout.reports / "publish.json").read_text())
        assert report == {
            "bundle": packaged.hash,
            "version": packaged.version,
            "champion": True,
            "reason": "passed the gate",
            "view": packaged.schema.vector_view,
        }
        champion = champion_bundle(layout, without_bento)
        assert champion is not None and champion.hash == packaged.hash
        online = OnlineStore(layout, without_bento)
        rows = online.read(SYMBOLS, packaged.schema)
        online.close()
        assert rows.found.all()
        assert (rows.feature_time == np.datetime64(NOW.replace(tzinfo=None), "us")).all()

    def test_again_changes_nothing(self, layout: Layout, without_bento: Params) -> None:
        first = publish(layout, without_bento)
        assert publish(layout, without_bento) == first
        assert kinds(layout, without_bento) == ["registered", "promoted"]

    def test_a_rolled_back_bundle_stays_so(self, layout: Layout, without_bento: Params) -> None:
        publish(layout, without_bento)
        tiny_pipeline(layout, seed=1)
        package(layout, without_bento)
        publish(layout, without_bento)
        with open_registry(layout, without_bento) as registry:
            kept = registry.rollback(**BY_HAND).champion.hash
        report = publish(layout, without_bento)
        assert not report["champion"]
        assert report["reason"] == "it was rolled back and is not promoted again by a rerun: losing money"
        with open_registry(layout, without_bento) as registry:
            champion = registry.champion()
        assert champion is not None and champion.hash == kept

    @pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"])
    def test_an_experiment_only_registers(
        self, layout: Layout, without_bento: Params, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "deeper-trees")
        report = publish(layout, without_bento)
        assert not report["champion"] and report["reason"].startswith("a DVC experiment registers")
        assert kinds(layout, without_bento) == ["registered"]

    def test_the_parameter_switches_promotion_off(self, layout: Layout, without_bento: Params) -> None:
        report = publish(layout, changed(without_bento, "publish", promote=False))
        assert not report["champion"] and report["reason"] == "publish.promote is false"

    def test_what_failed_the_gate_is_not_promoted(self, layout: Layout, without_bento: Params) -> None:
        tiny_pipeline(layout, seed=1, passed=False)
        package(layout, without_bento)
        report = publish(layout, without_bento)
        assert not report["champion"] and report["reason"].startswith("quarantined: failed the gate")
        assert champion_bundle(layout, without_bento) is None

    def test_a_bundle_of_another_market_is_refused(self, layout: Layout, without_bento: Params) -> None:
        other = without_bento.model_copy(update={"market": "btc_15m"})
        with pytest.raises(BundleError, match="of market us_daily, the active one is btc_15m"):
            publish(layout, other)

    def test_a_promoted_bundle_can_be_loaded_even_if_the_store_was_emptied(
        self, layout: Layout, without_bento: Params, packaged: Bundle
    ) -> None:
        shutil.rmtree(layout.bentoml)
        publish(layout, without_bento)
        assert BundleStore(layout, without_bento).has(packaged.hash)


class TestEnsurePublished:
    @pytest.fixture
    def published(self, layout: Layout, without_bento: Params) -> str:
        package_stage(layout, without_bento)
        publish_stage(layout, without_bento)
        return str(json.loads((layout.reports / "publish.json").read_text())["bundle"])

    def test_a_champion_lost_by_the_store_is_put_back(
        self, layout: Layout, without_bento: Params, published: str
    ) -> None:
        shutil.rmtree(layout.bentoml)
        champion = ensure_published(layout, without_bento)
        assert champion is not None and champion.hash == published
        assert BundleStore(layout, without_bento).has(published)

    def test_a_lost_registry_gets_the_pipelines_champion(
        self, layout: Layout, without_bento: Params, published: str
    ) -> None:
        shutil.rmtree(layout.live)
        champion = ensure_published(layout, without_bento)
        assert champion is not None and champion.hash == published
        assert kinds(layout, without_bento) == ["registered", "promoted"]

    def test_a_registry_with_a_champion_is_left_alone(
        self, layout: Layout, without_bento: Params, published: str
    ) -> None:
        before = events(layout, without_bento)
        ensure_published(layout, without_bento)
        assert events(layout, without_bento) == before
        assert published

    def test_a_champion_that_is_nowhere_is_an_error(
        self, layout: Layout, without_bento: Params, published: str
    ) -> None:
        shutil.rmtree(layout.bentoml)
        tiny_pipeline(layout, seed=1)
        assemble(layout, without_bento)
        with pytest.raises(BundleError, match=f"bundle {published[:12]} is neither in"):
            ensure_published(layout, without_bento)

    def test_before_the_first_run_there_is_none(self, layout: Layout, without_bento: Params) -> None:
        assert ensure_published(layout, without_bento) is None
        with open_registry(layout, without_bento) as registry, pytest.raises(RegistryError):
            registry.rollback(**BY_HAND)


# Imports once, then forks one run after another and kills each at a random moment; the last one may finish.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, str(Path("tests").resolve()))
import bundles
import bentoml.bentos, _bentoml_sdk, fastapi, feast, onnx, onnxruntime, tradeloop.assembly, tradeloop.state.online
from stages.package import package
from stages.publish import publish
from tradeloop.config import load_params
from tradeloop.layout import Layout

layout = Layout(Path(sys.argv[1]))
params = load_params(layout.params)

def run():
    package(layout, params)
    publish(layout, params)

def forked():
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

bundles.tiny_pipeline(layout, note=0.0)
started = time.monotonic()
status = os.waitpid(forked(), 0)[1]
assert status == 0, status
whole = time.monotonic() - started
rng = random.Random(20130301)
killed = 0
for turn in range(int(sys.argv[2])):
    bundles.tiny_pipeline(layout, note=float(turn + 1))
    child = forked()
    time.sleep(rng.uniform(0.0, 0.9 * whole))
    os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    status = os.waitpid(forked(), 0)[1]
    assert status == 0, f"the run after kill {turn} failed"
print(killed)
"""


@pytest.mark.slow
def test_after_any_kill_the_next_run_finishes_without_repair(layout: Layout, params: Params) -> None:
    kills = 12
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(layout.root), str(kills)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 10
    history = events(layout, params)
    models = list(dict.fromkeys(event.model for event in history))
    assert len(models) == kills + 1
    for model in models:
        assert sorted(event.kind for event in history if event.model == model) == ["promoted", "registered"]
        assert BundleStore(layout, params).has(model)
        assert (layout.bentoml / "bentos" / "tradeloop_us_daily" / model[:12] / "bento.yaml").is_file()
    champion = champion_bundle(layout, params)
    assert champion is not None and champion.hash == models[-1]
    assert list((layout.bentoml / "tmp").iterdir()) == []
    assert not list(layout.models.glob(".bundle.*"))
    assert not [path for path in layout.live.rglob("*.partial")]
