"""Stage features: one folder a symbol, the schema's columns, known at the close."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from stages.features import features as features_stage
from tests.feature_files import read_rows
from tests.features.conftest import ROOT
from tradeloop.atomic import write_parquet
from tradeloop.bars import TIME, Bars
from tradeloop.config import Params
from tradeloop.features import compute, schema_for
from tradeloop.layout import Layout
from tradeloop.sources import open_source


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, daily_params: Params) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("project"))
    source = open_source(daily_params.active, root=ROOT, seed=0)
    for symbol in daily_params.active.symbols:
        write_parquet(layout.clean / "bars" / f"{symbol}.parquet", source.read(symbol)[-400:])
    for name in daily_params.active.context:
        write_parquet(layout.clean / "context" / f"{name}.parquet", source.read_context(name))
    return layout


def test_writes_the_row_of_every_bar(clean: Layout, daily_params: Params) -> None:
    features_stage(clean, daily_params)
    schema = schema_for(daily_params)
    context = {
        name: pd.read_parquet(clean.clean / "context" / f"{name}.parquet") for name in daily_params.active.context
    }
    for symbol in daily_params.active.symbols:
        frame = read_rows(clean.features, symbol)
        bars = Bars.from_frame(symbol, pd.read_parquet(clean.clean / "bars" / f"{symbol}.parquet"), context)
        assert list(frame.columns) == ["symbol", "timestamp", "created", *schema.names]
        assert (frame["symbol"] == symbol).all() and frame["created"].equals(frame["timestamp"])
        assert str(frame["timestamp"].dtype) == TIME
        np.testing.assert_array_equal(frame["timestamp"].dt.tz_localize(None).to_numpy(), bars.timestamp)
        values = frame[list(schema.names)]
        assert (values.dtypes == np.float32).all()
        np.testing.assert_array_equal(values.to_numpy(), compute(bars, schema))


def test_writes_the_same_bytes_again(clean: Layout, daily_params: Params) -> None:
    features_stage(clean, daily_params)
    written = {path: path.read_bytes() for path in clean.features.glob("*/*")}
    shutil.rmtree(clean.features)
    features_stage(clean, daily_params)
    assert {path: path.read_bytes() for path in clean.features.glob("*/*")} == written
    assert {path.parent.name for path in written} == set(daily_params.active.symbols)


def test_fewer_families_are_fewer_columns(clean: Layout, daily_params: Params) -> None:
    chosen = daily_params.features.model_copy(update={"families": ["trend", "calendar"]})
    fewer = daily_params.model_copy(update={"features": chosen})
    features_stage(clean, fewer)
    frame = read_rows(clean.features, "AAPL")
    assert tuple(frame.columns[3:]) == schema_for(fewer).names
