from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tradeloop.bars import Bars
from tradeloop.config import Params, load_params
from tradeloop.features import schema_for
from tradeloop.schema import Schema
from tradeloop.sources import open_source


@pytest.fixture(scope="session")
def hourly() -> Params:
    """A market whose parts are months, with families of short and long lookback."""
    params = load_params(ROOT / "params.yaml")
    families = params.features.model_copy(update={"families": ["trend", "volume", "calendar"]})
    return params.model_copy(update={"market": "eurusd_hourly", "features": families})


@pytest.fixture(scope="session")
def schema(hourly: Params) -> Schema:
    return schema_for(hourly)


@pytest.fixture(scope="session")
def bars(hourly: Params) -> Bars:
    """Real bars of about four months, some of them known only with an input beside."""
    frame = open_source(hourly.active, root=ROOT, seed=0).read("EURUSD")[:2500]
    found = Bars.from_frame("EURUSD", frame)
    return replace(found, inputs={"events.until": np.arange(len(found), dtype=np.float64)})


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
