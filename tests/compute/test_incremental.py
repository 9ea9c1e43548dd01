"""A new month of bars in `dvc repro`: that month is computed, and is what a computation from nothing gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.compute.conftest import contents
from tests.conftest import clone


@pytest.mark.slow
def test_a_new_month_of_bars_computes_that_month(tmp_path: Path) -> None:
    project = clone(tmp_path / "project", market="eurusd_hourly", **{"ingest.end": "2017-10-31"})
    output = project.run("dvc", "repro", "features").stdout
    assert "features: EURUSD: 10 of 10 parts computed, 2017-01 to 2017-10" in output
    folder = project.root / "data" / "features" / "EURUSD"
    before = contents(folder)

    project.set({"ingest.end": "2017-11-30"})
    output = project.run("dvc", "repro", "features").stdout
    assert "features: EURUSD: 1 of 11 parts computed, 2017-11 to 2017-11" in output
    grown = contents(folder)
    assert set(grown) == {*before, "2017-11.parquet"}
    assert all(grown[name] == content for name, content in before.items() if name != "manifest.json")

    lock = (project.root / "dvc.lock").read_bytes()
    shutil.rmtree(folder.parent)
    assert "11 of 11 parts computed" in project.run("dvc", "repro", "features").stdout
    assert contents(folder) == grown
    assert (project.root / "dvc.lock").read_bytes() == lock

    # What was once computed can be had again without computing it.
    shutil.rmtree(folder.parent)
    project.run("dvc", "checkout", "features")
    assert contents(folder) == grown
