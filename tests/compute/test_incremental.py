"""A new month of bars in `dvc repro`: that month is computed, and is what a computation from nothing gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.features import features
from tests.compute.conftest import contents
from tests.conftest import clone
from tradeloop.config import load_params
from tradeloop.layout import Layout


@pytest.mark.slow
def test_a_new_month_of_bars_computes_that_month(tmp_path: Path) -> None:
    project = clone(tmp_path / "project", market="eurusd_hourly", **{"ingest.end": "2017-10-31T23:30:00"})
    output = project.run("dvc", "repro", "features").stdout
    assert "features: EURUSD: 10 of 10 parts computed, 2017-01 to 2017-10" in output
    folder = project.root / "data" / "features" / "EURUSD"
    before = contents(folder)

    project.set({"ingest.end": "2017-11-30T23:30:00"})
    output = project.run("dvc", "repro", "features").stdout
    assert "features: EURUSD: 1 of 11 parts computed, 2017-11 to 2017-11" in output
    grown = contents(folder)
    assert set(grown) == {*before, "2017-11.parquet"}
    assert all(grown[name] == content for name, content in before.items() if name != "manifest.json")

    layout = Layout(project.root)
    shutil.rmtree(layout.features)
    features(layout, load_params(layout.params))
    assert contents(folder) == grown
