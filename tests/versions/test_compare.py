"""Two versions side by side."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from tests.bundles import NAMES, tiny_schema
from tests.versions.conftest import Bench
from tradeloop.errors import BundleError, RegistryError
from tradeloop.manifest import Thresholds
from tradeloop.metrics import METRICS
from tradeloop.state.tables import ExperimentRow
from tradeloop.versions.compare import Comparison, Value, compare, direction

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own


def ask(bench: Bench, a: str, b: str) -> Comparison:
    return compare(bench.registry, bench.database, bench.store, a=a, b=b)


def test_metrics_with_intervals_and_who_is_better(bench: Bench) -> None:
    mine = {"direction": {"auc": 0.55, "auc_low": 0.52, "auc_high": 0.58, "brier": 0.24, "ece": 0.02}}
    theirs = {"direction": {"auc": 0.53, "brier": 0.23, "ece": 0.02}, "range": {"coverage": 0.9, "r2": 0.4}}
    a, b = bench.add(11, metrics=mine), bench.add(12, metrics=theirs)
    for bundle in (a, b):
        bench.store.delete(bundle.hash)  # else its own metrics count
    found = {pair.name: pair for pair in ask(bench, a.hash, b.hash).metrics}
    assert set(found) == {"direction.auc", "direction.brier", "direction.ece", "range.coverage", "range.r2"}
    assert found["direction.auc"].a == Value(0.55, 0.52, 0.58)
    assert found["direction.auc"].b == Value(0.53, None, None)
    better = {name: pair.better for name, pair in found.items()}
    assert better == {
        "direction.auc": "a",
        "direction.brier": "b",  # less is better
        "direction.ece": None,  # equal
        "range.coverage": None,  # a nominal level is to be met, and one side has none
        "range.r2": None,
    }


def test_features_parameters_size_and_latency(bench: Bench) -> None:
    a = bench.add(11)
    other = tiny_schema((*NAMES[1:], "rsi"))
    changed = Thresholds(probability=0.1, cost_bps=0.0, min_edge_bps=0.0)
    b = bench.add(12, schema=other, thresholds=changed, git_revision="abc")
    row = {"id": "1", "market": "us_daily", "attempt": 1, "state": "succeeded", "metrics": {}, "model": b.hash}
    row |= {"params": {"stack": {"l2": 9.0}}, "started_at": datetime(2020, 1, 1, tzinfo=UTC)}
    with bench.database.write() as connection:
        connection.execute(insert(ExperimentRow).values(row))
    found = ask(bench, a.version, b.version)
    assert (found.removed, found.added) == (["ret_1"], ["rsi"])
    assert found.differences == {
        "git_revision": ("unknown", "abc"),
        "thresholds.probability": (0.02, 0.1),
        "training.stack.l2": (None, 9.0),
    }
    assert all(size is not None and size > 5000 for size in found.size)
    for latency in found.latency:
        assert latency is not None and 1 < latency.p50 <= latency.p99 < 1e6
    content = found.to_dict()
    assert content["a"]["hash"] == a.hash and content["latency"][0]["p50"] == found.latency[0].p50  # type: ignore[union-attr]


def test_one_whose_bundle_is_gone_is_known_by_its_facts(bench: Bench) -> None:
    a, b = bench.add(11), bench.add(12)
    bench.store.delete(b.hash)
    found = ask(bench, a.hash, b.hash)
    assert found.latency[0] is not None and found.latency[1] is None
    assert found.size[1] == bench.registry.facts()[b.hash].size
    assert (found.added, found.removed) == ([], [])  # its features are not known


def test_one_of_which_nothing_is_known_is_refused(bench: Bench) -> None:
    bench.store.delete(bench.home.hashes[2])
    with pytest.raises(BundleError, match="nothing is known of"):
        ask(bench, bench.home.hashes[1], bench.home.hashes[2])


def test_a_damaged_bundle_and_an_unknown_name_are_refused(bench: Bench) -> None:
    (bench.home.bundle_folder(2) / "stack.json").write_text("{}")
    with pytest.raises(BundleError, match=r"stack\.json"):
        ask(bench, bench.home.hashes[1], bench.home.hashes[2])
    with pytest.raises(RegistryError, match="no version 'feed'"):
        ask(bench, bench.home.hashes[1], "feed")


def test_every_metric_has_its_own_direction() -> None:
    signs = {"higher": 1, "lower": -1, "nominal": 0}
    assert {name: direction(f"x.{name}") for name in METRICS} == {n: signs[m.better] for n, m in METRICS.items()}
    assert (direction("range.gain_over_har"), direction("controls.labels")) == (1, 0)
