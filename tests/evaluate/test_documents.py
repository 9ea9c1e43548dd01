"""What evaluate writes: compact metrics, tables with stable text, forecasts with their rows."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from tests.holdouts import Case
from tradeloop.evaluate.documents import compact, csv, holdout_frame, range_frame, reliability_frame


def test_compact_metrics_are_flat_finite_and_rounded(honest: Case) -> None:
    metrics = compact(honest.evaluation)
    assert {"holdout", "direction", "return", "range", "trading", "controls"} == set(metrics)
    assert metrics["range"]["edge_proven"] == 1
    assert metrics["direction"]["edge_proven"] == 0
    auc = honest.evaluation["targets"]["direction"]["metrics"]["auc"]
    assert metrics["direction"]["auc"] == round(auc["value"], 6)
    assert metrics["direction"]["auc_low"] == round(auc["low"], 6)
    gain = honest.evaluation["targets"]["range"]["differences"]["har"]["gain"]["value"]
    assert metrics["range"]["gain_over_har"] == round(gain, 6)
    for group in metrics.values():
        for value in group.values():
            assert value is None or np.isfinite(value)


def test_csv_has_iso_times_and_reads_back(honest: Case) -> None:
    table = honest.judgement.plots["equity"]
    text = csv(table)
    assert b"2005-" not in text.splitlines()[0]
    assert text.splitlines()[1].split(b",")[0].endswith(b"T21:00:00Z")
    back = pd.read_csv(io.BytesIO(text))
    assert list(back.columns) == ["timestamp", "equity", "gross", "buy_and_hold", "drawdown", "low", "high"]
    np.testing.assert_allclose(back["equity"], table["equity"], rtol=1e-8)
    assert (pd.to_datetime(back["timestamp"]).dt.tz_localize(None) == table["timestamp"]).all()


def test_csv_leaves_the_table_as_it_was(honest: Case) -> None:
    table = honest.judgement.plots["equity"]
    csv(table)
    assert np.issubdtype(table["timestamp"].dtype, np.datetime64)


def test_holdout_frame_points_into_the_matrix(honest: Case) -> None:
    frame = holdout_frame(honest.holdout)
    assert str(frame["timestamp"].dtype) == "datetime64[us, UTC]"
    np.testing.assert_array_equal(frame["row"], honest.holdout.sample.test)
    np.testing.assert_array_equal(frame["label_range"], honest.holdout.label("range"))
    again = honest.holdout.ensemble.forecast(honest.holdout.x[frame["row"].to_numpy()])
    np.testing.assert_array_equal(frame["p_up"], again.p_up)
    assert (frame["label_end"] > frame["timestamp"]).all()


def test_range_is_shown_as_a_fraction_a_bar(honest: Case) -> None:
    frame = range_frame(honest.holdout)
    np.testing.assert_allclose(np.log(frame["realised"]), honest.holdout.label("range"))
    assert (frame["low"] <= frame["forecast"]).all()
    assert (frame["forecast"] <= frame["high"]).all()


def test_reliability_counts_every_row(honest: Case) -> None:
    frame = reliability_frame(honest.holdout)
    assert frame["count"].sum() == len(honest.holdout.row)
    assert list(frame["bin"]) == list(range(1, len(frame) + 1))
    assert (np.diff(frame["mean_p"]) > 0).all()
