from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bundles import (
    linear_graph,
    tiny_bundle,
    tiny_facts,
    tiny_graphs,
    tiny_reference,
    tiny_rows,
    tiny_schema,
    tiny_spec,
)
from tradeloop.bundle import FORECASTS, Bundle, write_bundle
from tradeloop.ensemble import Ensemble
from tradeloop.errors import BundleError
from tradeloop.manifest import canonical, place, seal, verify

GRAPH = "xgboost/direction.onnx"
GRAPHS = tiny_graphs(6, 0)
REFERENCE = tiny_reference(Ensemble.load(GRAPHS, tiny_spec(tiny_schema())), tiny_schema())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit manifest.json the way someone would who knows its form."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_bytes(canonical(content))


def replace_file(folder: Path, name: str, body: bytes) -> None:
    """Replace a file and make the manifest agree."""
    verified = verify(folder)
    files = {**verified.files, name: body}
    del files["manifest.json"]
    facts = tiny_facts(tiny_schema())
    place(folder, seal(facts, verified.manifest.schema_hash, files).files)


class TestContent:
    def test_the_same_input_gives_the_same_bytes(self, tmp_path: Path) -> None:
        first, second = (tiny_bundle(tmp_path / name) for name in ("a", "b"))
        assert first.hash == second.hash
        assert verify(tmp_path / "a").files == verify(tmp_path / "b").files

    @pytest.mark.parametrize(
        "change", [{"seed": 1}, {"passed": False}, {"data_hash": "e" * 64}, {"symbols": ["AAPL"]}, {"git_dirty": True}]
    )
    def test_any_other_input_gives_another_hash(self, tmp_path: Path, change: dict[str, Any]) -> None:
        assert tiny_bundle(tmp_path / "a").hash != tiny_bundle(tmp_path / "b", **change).hash

    def test_nothing_in_it_can_execute(self, folder: Path) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == {".json", ".onnx"}
        assert not any(os.access(path, os.X_OK) for path in files)

    def test_loads_what_was_written(self, folder: Path) -> None:
        written, loaded = tiny_bundle(folder.parent / "again"), Bundle.load(folder)
        assert (loaded.hash, loaded.manifest, loaded.schema) == (written.hash, written.manifest, written.schema)
        rows = tiny_rows(50)
        for name in FORECASTS:
            assert np.array_equal(getattr(loaded.forecast(rows), name), getattr(written.forecast(rows), name))
        assert loaded.passed and loaded.version == loaded.hash[:12]

    def test_opens_the_bytes_that_were_verified(self, folder: Path) -> None:
        before = Bundle.load(folder).forecast(tiny_rows(5)).p_up
        verified = verify(folder)
        for name, body in tiny_graphs(6, seed=7).items():
            (folder / name).write_bytes(body)
        assert np.array_equal(Bundle.open(verified).forecast(tiny_rows(5)).p_up, before)


class TestRefusals:
    @pytest.mark.parametrize("name", [GRAPH, "stack.json", "golden.json", "manifest.json"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(BundleError, match=f"no {name}" if name == "manifest.json" else f"{name} is missing"):
            Bundle.load(folder)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="cannot be read: No such file"):
            Bundle.load(tmp_path / "nowhere")

    def test_a_truncated_file(self, folder: Path) -> None:
        body = (folder / GRAPH).read_bytes()
        (folder / GRAPH).write_bytes(body[:-1])
        with pytest.raises(BundleError, match=rf"{GRAPH} has {len(body) - 1} bytes, .*truncated"):
            Bundle.load(folder)

    def test_a_grown_file(self, folder: Path) -> None:
        with (folder / GRAPH).open("ab") as file:
            file.write(b"\0")
        with pytest.raises(BundleError, match=f"{GRAPH} is larger than"):
            Bundle.load(folder)

    @settings(deadline=None, max_examples=25)
    @given(data=st.data())
    def test_any_flipped_bit(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        folder = tmp_path_factory.mktemp("flip") / "bundle"
        expected = tiny_bundle(folder).hash
        name = data.draw(st.sampled_from(sorted(verify(folder).files)))
        body = bytearray((folder / name).read_bytes())
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (folder / name).write_bytes(body)
        with pytest.raises(BundleError, match=name):
            Bundle.load(folder, expect=expected)

    def test_an_extra_file(self, folder: Path) -> None:
        (folder / "run.py").write_text("print('hello')")
        with pytest.raises(BundleError, match=r"run.py is in the bundle, but the manifest does not name it"):
            Bundle.load(folder)

    def test_links_in_place_of_files_or_folders(self, folder: Path, tmp_path: Path) -> None:
        (folder / GRAPH).rename(tmp_path / "elsewhere.onnx")
        (folder / GRAPH).symlink_to(tmp_path / "elsewhere.onnx")
        with pytest.raises(BundleError, match=f"{GRAPH} is a link"):
            Bundle.load(folder)
        (folder / GRAPH).unlink()
        (folder / "xgboost").rename(tmp_path / "xgboost")
        (folder / "xgboost").symlink_to(tmp_path / "xgboost")
        with pytest.raises(BundleError, match="xgboost is a link"):
            Bundle.load(folder)

    def test_a_pipe_in_place_of_a_file(self, folder: Path) -> None:
        (folder / GRAPH).unlink()
        os.mkfifo(folder / GRAPH)
        with pytest.raises(BundleError, match="a link or a special file"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        "name", ["../outside.onnx", "/etc/passwd", "a/../../b.onnx", "model.pkl", "x/y.onnx/z", ""]
    )
    def test_names_that_lead_elsewhere_or_are_no_data(self, folder: Path, name: str) -> None:
        reseal(folder, lambda manifest: manifest["files"].update({name: {"size": 1, "sha256": "0" * 64}}))
        (folder.parent / "outside.onnx").write_bytes(b"x")
        with pytest.raises(BundleError, match=r"missing from the bundle|manifest.json names"):
            Bundle.load(folder)

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            (lambda m: m.update(format=2), "reads bundles of format 1, got 2"),
            (lambda m: m.pop("format"), "reads bundles of format 1, got None"),
            (lambda m: m.update(surprise=1), "surprise"),
            (lambda m: m.pop("thresholds"), "thresholds"),
            (lambda m: m["thresholds"].update(cost_bps=-1), "cost_bps"),
            (lambda m: m["files"][GRAPH].update(sha256="zz"), "sha256"),
            (lambda m: m["files"][GRAPH].update(size=-1), "size"),
            (lambda m: m["files"].pop("stack.json"), "lacks"),
            (lambda m: m.update(market="btc_15m"), "one market"),
            (lambda m: m.update(schema_hash="f" * 64), "has feature schema ffffffffffff"),
        ],
    )
    def test_a_manifest_that_breaks_a_rule(self, folder: Path, change: Callable[[Any], None], rule: str) -> None:
        reseal(folder, change)
        with pytest.raises(BundleError, match=rule) as caught:
            Bundle.load(folder)
        assert "manifest.json" in str(caught.value) and "\n" not in str(caught.value)

    def test_an_edited_manifest_is_another_bundle(self, folder: Path) -> None:
        expected = verify(folder).hash
        reseal(folder, lambda manifest: manifest["thresholds"].update(cost_bps=0.5))
        with pytest.raises(BundleError, match=r"manifest.json is that of bundle .* it was edited"):
            Bundle.load(folder, expect=expected)

    def test_a_reformatted_manifest(self, folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(BundleError, match="not in its canonical form"):
            Bundle.load(folder)

    @pytest.mark.parametrize("body", [b" " * 300_000, b"[" * 100_000, b"{", b"\xff\xfe", b"[1]", b""])
    def test_a_manifest_that_is_no_object(self, folder: Path, body: bytes) -> None:
        (folder / "manifest.json").write_bytes(body)
        with pytest.raises(BundleError, match=r"manifest.json"):
            Bundle.load(folder)

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
    @pytest.mark.parametrize("name", ["stack.json", "golden.json", "metrics.json"])
    def test_numbers_that_are_not_finite(self, folder: Path, name: str, constant: str) -> None:
        text = (folder / name).read_text()
        edited = re.sub(r"-?\d+\.\d+", constant, text, count=1)
        replace_file(folder, name, edited.encode())
        with pytest.raises(BundleError, match=f"{name}: numbers must be finite, got {constant}"):
            Bundle.load(folder)

    def test_a_graph_of_another_width(self, folder: Path) -> None:
        replace_file(folder, GRAPH, linear_graph(np.ones(5, dtype=np.float32), 0.0, probability=True))
        with pytest.raises(BundleError, match=GRAPH):
            Bundle.load(folder)

    def test_a_graph_that_forecasts_otherwise(self, folder: Path) -> None:
        replace_file(folder, GRAPH, linear_graph(np.ones(6, dtype=np.float32), 0.0, probability=True))
        with pytest.raises(BundleError, match=r"golden.json: p_up differs by .*, allowed is 1e-06"):
            Bundle.load(folder)

    def test_a_graph_that_is_none(self, folder: Path) -> None:
        replace_file(folder, GRAPH, b"\x80\x04K\x01.")
        with pytest.raises(BundleError, match=f"{GRAPH} is not a readable graph"):
            Bundle.load(folder)

    @pytest.mark.parametrize("body", [b"{}", b"[]", b'{"features": [], "forecast": {}}', b'{"features": 3}'])
    def test_golden_rows_of_another_form(self, folder: Path, body: bytes) -> None:
        replace_file(folder, "golden.json", body)
        with pytest.raises(BundleError, match=r"golden.json"):
            Bundle.load(folder)

    def test_a_file_that_no_ensemble_uses(self, folder: Path) -> None:
        replace_file(folder, "spare/direction.onnx", b"x")
        with pytest.raises(BundleError, match=r"spare/direction.onnx is not part of the ensemble"):
            Bundle.load(folder)


class TestWriting:
    def parts(self, **changes: Any) -> dict[str, Any]:
        schema = tiny_schema()
        parts: dict[str, Any] = {"spec": tiny_spec(schema), "schema": schema, "graphs": GRAPHS, "reference": REFERENCE}
        return parts | {"golden": tiny_rows(3), "metrics": {}, "gate": {"verdict": "pass"}} | changes

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"golden": np.full((1, 6), np.nan, dtype=np.float32)}, "golden rows must be finite"),
            ({"golden": tiny_rows(0)}, "at least one"),
            ({"metrics": {"auc": float("nan")}}, r"metrics.json must hold finite numbers"),
            (
                {"graphs": GRAPHS | {"spare/range.onnx": GRAPHS[GRAPH]}},
                "not part of the ensemble",
            ),
            ({"graphs": {k: v for k, v in GRAPHS.items() if k != GRAPH}}, f"{GRAPH} is missing"),
            ({"schema": tiny_schema(("a", "b", "c", "d", "e", "f"))}, "feature schema"),
        ],
    )
    def test_parts_that_do_not_fit_leave_the_old_bundle(self, folder: Path, change: dict[str, Any], rule: str) -> None:
        before = verify(folder).files
        with pytest.raises(BundleError, match=rule):
            write_bundle(folder, tiny_facts(tiny_schema()), **self.parts(**change))
        assert verify(folder).files == before
        assert [path.name for path in folder.parent.iterdir()] == ["bundle"]

    def test_a_graph_with_its_weights_elsewhere(self, folder: Path, tmp_path: Path) -> None:
        model = onnx.load_from_string(GRAPHS[GRAPH])
        onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        graphs = GRAPHS | {GRAPH: (tmp_path / "m.onnx").read_bytes()}
        with pytest.raises(BundleError, match="keeps its weights in another file"):
            write_bundle(folder, tiny_facts(tiny_schema()), **self.parts(graphs=graphs))

    def test_replaces_what_an_interrupted_write_left(self, folder: Path) -> None:
        leftover = folder.parent / ".bundle.abc.partial" / "new"
        leftover.mkdir(parents=True)
        (leftover / "half.onnx").write_bytes(b"half")
        bundle = tiny_bundle(folder, seed=3)
        assert Bundle.load(folder).hash == bundle.hash
        assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
