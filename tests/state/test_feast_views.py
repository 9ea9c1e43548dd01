"""Definitions, configuration and registry: the same from code and from Feast's command line."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tradeloop.config import Params
from tradeloop.errors import StoreError
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.state.feast_repo import feast_config, file_lock, open_store
from tradeloop.state.feast_views import FEATURE_TIME, SOURCE, VECTOR, VECTOR_TAG, scalar_view, vector_view

REPOSITORY = Path(__file__).resolve().parents[2]


def test_views_hold_the_schema_in_its_order(schema: Schema) -> None:
    scalars, vector = (make(schema, timedelta(days=10)) for make in (scalar_view, vector_view))
    from feast.types import Array, Float32, Int64

    assert (scalars.name, vector.name) == (schema.scalar_view, schema.vector_view)
    assert [(field.name, field.dtype) for field in scalars.features] == [
        *((name, Float32) for name in schema.names),
        (FEATURE_TIME, Int64),
    ]
    assert [(field.name, field.dtype) for field in vector.features] == [(VECTOR, Array(Float32)), (FEATURE_TIME, Int64)]
    assert json.loads(vector.batch_source.tags[VECTOR_TAG]) == list(schema.names)
    assert (scalars.online, vector.online) == (False, True)
    assert scalars.ttl == vector.ttl == timedelta(days=10)
    assert {view.batch_source.path for view in (scalars, vector)} == {SOURCE}
    assert vector.tags["schema"] == schema.hash


def test_the_yaml_says_what_the_code_says(layout: Layout, params: Params, tmp_path: Path) -> None:
    built = feast_config(layout, params)
    from feast.repo_config import load_repo_config

    folder = tmp_path / "feature_repo"
    shutil.copytree(REPOSITORY / "feature_repo", folder, ignore=shutil.ignore_patterns("__pycache__"))
    said = load_repo_config(folder, folder / "feature_store.yaml")
    for name in ("project", "provider", "entity_key_serialization_version", "offline_store", "repo_path"):
        assert getattr(said, name) == getattr(built, name), name
    for block in ("registry", "online_store"):
        one, other = (getattr(config, block).model_dump() for config in (said, built))
        one["path"] = os.path.normpath(folder / one["path"])
        assert one == other, block
    keys = set(yaml.safe_load((folder / "feature_store.yaml").read_text()))
    assert keys == {
        "project", "provider", "registry", "offline_store", "online_store", "entity_key_serialization_version"
    }  # fmt: skip


def test_redis_by_setting(layout: Layout, params: Params) -> None:
    serving = params.serving.model_copy(update={"online_store": "redis", "redis_url": "cache:6379,db=3,ssl=true"})
    online = feast_config(layout, params.model_copy(update={"serving": serving})).online_store
    assert online.type == "redis"
    assert online.connection_string.startswith("cache:6379,db=3,ssl=true,")
    assert online.key_ttl_seconds == 30 * 24 * 3600


def view_names(store: Any) -> set[str]:
    return {view.name for view in store.list_feature_views()}


def test_open_store_is_idempotent(layout: Layout, params: Params, schema: Schema) -> None:
    registry = layout.live / "feast" / "registry.db"
    assert view_names(open_store(layout, params, schema)) == {schema.scalar_view, schema.vector_view}
    before = registry.read_bytes()
    open_store(layout, params, schema)
    assert registry.read_bytes() == before, "nothing lacks, so nothing is written"


@pytest.mark.parametrize("damage", ["deleted", "truncated", "garbage", "empty"])
def test_open_store_repairs_the_registry(layout: Layout, params: Params, schema: Schema, damage: str) -> None:
    open_store(layout, params, schema)
    registry = layout.live / "feast" / "registry.db"
    whole = registry.read_bytes()
    if damage == "deleted":
        registry.unlink()
    else:
        registry.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"\xff" * 99, "empty": b""}[damage])
    assert {schema.scalar_view, schema.vector_view} <= view_names(open_store(layout, params, schema))
    assert {schema.scalar_view, schema.vector_view} <= view_names(open_store(layout, params, schema))


def test_open_store_makes_a_lost_online_table_again(layout: Layout, params: Params, schema: Schema) -> None:
    store = open_store(layout, params, schema)
    (layout.live / "feast" / "online.db").unlink()
    store = open_store(layout, params, schema)
    answer = store.get_online_features([f"{schema.vector_view}:{VECTOR}"], [{"symbol": "A"}]).to_dict()
    assert answer[VECTOR] == [None]


def test_schemas_live_side_by_side_and_a_changed_ttl_is_applied(layout: Layout, params: Params, schema: Schema) -> None:
    other = Schema(schema.market, schema.names[:2], "9" * 64)
    open_store(layout, params, schema)
    assert len(view_names(open_store(layout, params, other))) == 4
    changed = params.model_copy(update={"store": params.store.model_copy(update={"ttl": "3d"})})
    assert open_store(layout, changed, schema).get_feature_view(schema.scalar_view).ttl == timedelta(days=3)


def test_threads_applying_different_schemas_lose_none(layout: Layout, params: Params, schema: Schema) -> None:
    schemas = [Schema("m", schema.names, f"{number:064d}"[::-1]) for number in range(1, 7)]
    threads = [threading.Thread(target=open_store, args=(layout, params, one)) for one in schemas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {name for one in schemas for name in (one.scalar_view, one.vector_view)}
    assert expected <= view_names(open_store(layout, params, schemas[0]))


def test_file_lock_holds_off_another(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with file_lock(tmp_path / "deep" / "lock"):
            order.append("second")

    with file_lock(tmp_path / "deep" / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def feast(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("feast")), "-c", "feature_repo", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_feasts_command_line_applies_the_same(layout: Layout, params: Params, schema: Schema, write_features) -> None:
    shutil.copytree(REPOSITORY / "feature_repo", layout.root / "feature_repo")
    shutil.copy(REPOSITORY / "params.yaml", layout.params)
    with pytest.raises(StoreError, match=r"schema\.json is missing: run `python -m stages\.store` first"):
        runpy.run_path(str(layout.root / "feature_repo" / "definitions.py"))
    write_features("A", ["2020-01-01"])
    applied = feast(layout.root, "apply")
    assert applied.returncode == 0, applied.stderr
    registry = layout.live / "feast" / "registry.db"
    before = registry.read_bytes()
    open_store(layout, params, schema)
    assert registry.read_bytes() == before, "code finds nothing to add to what the command line applied"
    listed = feast(layout.root, "feature-views", "list")
    assert schema.scalar_view in listed.stdout
    assert schema.vector_view in listed.stdout


IMPORTS = """
import sys
import typeguard
checked = typeguard.typechecked
from tradeloop.state.feast_import import import_feast
import_feast()
import_feast()
import feast
assert typeguard.typechecked is checked
assert "torch" not in sys.modules
import torch
assert torch.tensor([1.0]).sum() == 1
"""


def test_importing_feast_leaves_typeguard_and_torch_as_they_were() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_point_in_time_joins_of_both_views(layout: Layout, params: Params, schema: Schema, write_features) -> None:
    import pandas as pd

    frame = write_features("A", ["2020-01-01", "2020-01-02"])
    store = open_store(layout, params, schema)
    entities = pd.DataFrame(
        {"symbol": ["A", "A", "B"], "event_timestamp": pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-02"])}
    )
    scalars = store.get_historical_features(entities, [f"{schema.scalar_view}:{name}" for name in schema.names])
    vector = store.get_historical_features(
        entities, [f"{schema.vector_view}:{name}" for name in (VECTOR, FEATURE_TIME)]
    )
    expected = frame.loc[[1, 0], list(schema.names)]
    assert scalars.to_df().loc[:1, list(schema.names)].to_numpy().tolist() == expected.to_numpy().tolist()
    assert scalars.to_df().loc[2, list(schema.names)].isna().all()
    answer = vector.to_arrow()
    assert answer.column(VECTOR).to_pylist() == [*expected.to_numpy().tolist(), None]
    assert answer.column(FEATURE_TIME).to_pylist() == [1577923200000000, 1577836800000000, None]


def test_the_store_stage_writes_the_same_bytes_again(layout: Layout, params: Params) -> None:
    from stages.store import store
    from tradeloop.features import schema_for

    outputs = [layout.store / "schema.json", layout.store / "views.json"]
    store(layout, params)
    first = [path.read_bytes() for path in outputs]
    shutil.rmtree(layout.live)
    store(layout, params)
    assert [path.read_bytes() for path in outputs] == first
    schema = schema_for(params)
    assert Schema.load(outputs[0]) == schema
    views = json.loads(first[1])["views"]
    applied = open_store(layout, params, schema)
    for name, declared in views.items():
        view = applied.get_feature_view(name)
        assert [field.name for field in view.features] == declared["columns"]
        assert view.online == declared["online"]
