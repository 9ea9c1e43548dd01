from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import (
    NOW,
    SYMBOLS,
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
from tradeloop.config import Labels
from tradeloop.ensemble import Ensemble, Forecast
from tradeloop.manifest import Thresholds
from tradeloop.predictor import Prediction, Predictor, new_ids

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Stored:
    vectors: NDArray[np.float32]
    feature_time: NDArray[np.datetime64]
    found: NDArray[np.bool_]


def stored(count: int = 1, *, at: datetime | None = NOW, seed: int = 0) -> Stored:
    time = np.datetime64("NaT") if at is None else np.datetime64(at.replace(tzinfo=None), "us")
    return Stored(tiny_rows(count, seed=seed), np.full(count, time, "datetime64[us]"), np.ones(count, dtype=bool))


def ask(bundle: Bundle, symbols: tuple[str, ...], rows: Any, now: datetime = NOW) -> list[Prediction]:
    return Predictor(bundle).predict(symbols, rows, now=now, max_age=WEEK, clock="replay")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


def fixed_bundle(
    folder: Path, *, p: float, ret: float = 0.0, log_range: float = math.log(0.01), **facts: Any
) -> Bundle:
    """Return a bundle that forecasts the same for any row, uncalibrated."""
    schema = tiny_schema()
    zero = np.zeros(len(schema), dtype=np.float32)
    said = {"direction": math.log(p / (1 - p)), "return": ret, "range": math.log(0.01)}
    graphs = {
        name: linear_graph(zero, said[target], probability=target == "direction")
        for name in tiny_graphs(len(schema), 0)
        for target in [Path(name).stem]
    }
    spec = tiny_spec(schema)
    spec["targets"]["direction"]["calibrator"] = {"kind": "none"}
    parts = {"spec": spec, "schema": schema, "graphs": graphs, "golden": tiny_rows(2), "metrics": {}, "gate": {}}
    reference = tiny_reference(Ensemble.load(graphs, spec), schema)
    return write_bundle(folder, tiny_facts(schema, **facts), reference=reference, **parts)


class TestNumbers:
    def test_are_the_ensembles_with_the_range_as_a_fraction(self, bundle: Bundle) -> None:
        rows = stored(4)
        answers = ask(bundle, SYMBOLS, rows)
        forecast = bundle.forecast(rows.vectors)
        for i, answer in enumerate(answers):
            assert answer.p_up == forecast.p_up[i]
            assert (answer.ret_low, answer.ret, answer.ret_high) == (
                forecast.ret_low[i],
                forecast.ret[i],
                forecast.ret_high[i],
            )
            assert answer.range == pytest.approx(math.exp(forecast.range[i]), rel=1e-15)
            assert answer.range_low is not None and answer.range is not None and answer.range_high is not None
            assert 0 < answer.range_low < answer.range < answer.range_high

    def test_do_not_depend_on_the_company_they_are_asked_in(self, bundle: Bundle) -> None:
        together = stored(4)
        together.vectors[1] = np.nan
        answers = ask(bundle, SYMBOLS, together)
        for i in (0, 2, 3):
            alone = Stored(together.vectors[i : i + 1], together.feature_time[:1], together.found[:1])
            (single,) = ask(bundle, (SYMBOLS[i],), alone)
            assert single.p_up == pytest.approx(answers[i].p_up, abs=1e-7)
            assert single.range == pytest.approx(answers[i].range, abs=1e-7)

    def test_carry_model_schema_time_and_features(self, bundle: Bundle) -> None:
        rows = stored(at=NOW - timedelta(hours=3))
        (answer,) = ask(bundle, ("IBM",), rows)
        assert (answer.model, answer.version, answer.schema_hash) == (bundle.hash, bundle.version, bundle.schema.hash)
        assert (answer.asked_at, answer.feature_time, answer.feature_age) == (NOW, NOW - timedelta(hours=3), 10_800.0)
        assert np.array_equal(answer.features, rows.vectors[0])
        assert (answer.clock, answer.max_age) == ("replay", WEEK.total_seconds())


class TestVerdict:
    """Thresholds of `tiny_facts`: 0.02 from one half, no costs; edge proven for direction, not for return."""

    def one(self, folder: Path, **given: Any) -> Prediction:
        (answer,) = ask(fixed_bundle(folder / "bundle", **given), ("AAPL",), stored())
        return answer

    @pytest.mark.parametrize(("p", "side"), [(0.6, "long"), (0.4, "short")])
    def test_trade_when_nothing_speaks_against_it(self, tmp_path: Path, p: float, side: str) -> None:
        answer = self.one(tmp_path, p=p)
        assert (answer.verdict, answer.reasons, answer.side) == ("trade", (), side)
        # |2p - 1| σ √(2/π) with σ = 1% a bar
        assert answer.edge == pytest.approx(0.2 * 0.01 * math.sqrt(2 / math.pi), rel=1e-5)

    def test_abstain_without_a_proven_edge(self, tmp_path: Path) -> None:
        answer = self.one(tmp_path, p=0.6, edge_proven={"direction": False, "return": False, "range": True})
        assert (answer.verdict, answer.reasons) == ("abstain", ("no_proven_edge",))
        assert answer.p_up == pytest.approx(0.6) and answer.range == pytest.approx(0.01)

    @pytest.mark.parametrize(("p", "sure"), [(0.5199, False), (0.5201, True), (0.4801, False), (0.4799, True)])
    def test_abstain_within_the_threshold(self, tmp_path: Path, p: float, sure: bool) -> None:
        answer = self.one(tmp_path, p=p)
        assert answer.reasons == (() if sure else ("low_confidence",))

    @pytest.mark.parametrize(
        ("cost", "keep", "worth"), [(7.9, 0.0, True), (8.1, 0.0, False), (7.0, 1.9, True), (7.0, 2.1, False)]
    )
    def test_abstain_below_a_round_trip_and_what_must_remain(
        self, tmp_path: Path, cost: float, keep: float, worth: bool
    ) -> None:
        # The edge of p = 0.6 at 1% is 15.96 basis points.
        thresholds = Thresholds(probability=0.02, cost_bps=cost, min_edge_bps=keep)
        answer = self.one(tmp_path, p=0.6, thresholds=thresholds)
        assert answer.reasons == (() if worth else ("below_cost",))

    def test_longer_horizons_move_further(self, tmp_path: Path) -> None:
        near = self.one(tmp_path / "near", p=0.6)
        far = self.one(tmp_path / "far", p=0.6, labels=Labels(horizon=4))
        assert near.edge is not None and far.edge == pytest.approx(2 * near.edge)

    @pytest.mark.parametrize(("p", "ret", "edge"), [(0.6, 0.003, 0.003), (0.4, -0.003, 0.003), (0.6, -0.003, -0.003)])
    def test_a_proven_return_forecast_is_the_edge(self, tmp_path: Path, p: float, ret: float, edge: float) -> None:
        proven = {"direction": True, "return": True, "range": True}
        answer = self.one(tmp_path, p=p, ret=ret, edge_proven=proven)
        assert answer.edge == pytest.approx(edge, rel=1e-5)
        assert answer.reasons == (() if edge > 0 else ("below_cost",))

    def test_every_reason_is_given(self, tmp_path: Path) -> None:
        answer = self.one(
            tmp_path,
            p=0.501,
            edge_proven={"direction": False, "return": False, "range": True},
            thresholds=Thresholds(probability=0.02, cost_bps=5, min_edge_bps=0),
        )
        assert answer.reasons == ("no_proven_edge", "low_confidence", "below_cost")


class TestNoForecast:
    def withheld(self, answer: Prediction, reason: str) -> None:
        assert (answer.status, answer.verdict, answer.reasons) == ("ok", "abstain", (reason,))
        assert answer.id is not None
        for name in (*FORECASTS, "edge", "side"):
            assert getattr(answer, name) is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_row_with_a_gap(self, bundle: Bundle, value: float) -> None:
        rows = stored(2)
        rows.vectors[0, 3] = value
        broken, whole = ask(bundle, SYMBOLS[:2], rows)
        self.withheld(broken, "missing_features")
        assert whole.p_up is not None

    def test_a_symbol_that_the_store_lacks(self, bundle: Bundle) -> None:
        rows = replace(stored(at=None), found=np.zeros(1, dtype=bool))
        (answer,) = ask(bundle, ("GOOG",), rows)
        self.withheld(answer, "missing_features")
        assert answer.feature_time is None and answer.feature_age is None

    @pytest.mark.parametrize(
        ("age", "reason"),
        [
            (WEEK, None),
            (WEEK + timedelta(microseconds=1), "stale_features"),
            (timedelta(0), None),
            (timedelta(microseconds=-1), "future_features"),
        ],
    )
    def test_age_by_the_markets_clock(self, bundle: Bundle, age: timedelta, reason: str | None) -> None:
        (answer,) = ask(bundle, ("AAPL",), stored(at=NOW - age))
        if reason:
            self.withheld(answer, reason)
            assert answer.feature_age == age.total_seconds()
        else:
            assert answer.p_up is not None

    def test_rows_of_another_width(self, bundle: Bundle) -> None:
        rows = replace(stored(), vectors=tiny_rows(1, width=5))
        (answer,) = ask(bundle, ("AAPL",), rows)
        self.withheld(answer, "schema_mismatch")

    def test_a_forecast_that_is_no_number(self, tmp_path: Path) -> None:
        schema = tiny_schema()
        growing = {
            name: linear_graph(np.full(6, 1e30, dtype=np.float32), 0.0, probability=False)
            if Path(name).stem == "range"
            else body
            for name, body in tiny_graphs(6, 0).items()
        }
        parts = {"spec": tiny_spec(schema), "schema": schema, "graphs": growing, "metrics": {}, "gate": {}}
        parts["reference"] = tiny_reference(Ensemble.load(tiny_graphs(6, 0), tiny_spec(schema)), schema)
        bundle = write_bundle(
            tmp_path / "growing", tiny_facts(schema), golden=np.zeros((1, 6), dtype=np.float32), **parts
        )
        with np.errstate(over="ignore"):
            (answer,) = ask(bundle, ("AAPL",), replace(stored(), vectors=np.full((1, 6), 1e20, dtype=np.float32)))
        self.withheld(answer, "invalid_forecast")

    def test_an_unknown_symbol_has_no_id_and_the_others_are_answered(self, bundle: Bundle) -> None:
        unknown, known = ask(bundle, ("TSLA", "AAPL"), stored(2))
        assert (unknown.status, unknown.id, unknown.verdict, unknown.reasons) == ("unknown_symbol", None, "abstain", ())
        assert unknown.p_up is None
        assert known.status == "ok" and known.p_up is not None

    def test_no_symbols_no_answers(self, bundle: Bundle) -> None:
        assert ask(bundle, (), stored(0)) == []


@dataclass(frozen=True)
class Shifted:
    """An adaptation that raises every probability, and remembers which rows it saw."""

    by: float
    seen: list[NDArray[np.float32]]
    cost_bps: float | None = None

    def apply(self, forecast: Forecast, x: NDArray[np.float32], /) -> Forecast:
        self.seen.append(x)
        return replace(forecast, p_up=forecast.p_up + self.by)


class TestAdaptation:
    def test_is_applied_to_the_rows_that_are_forecast_and_named(self, bundle: Bundle) -> None:
        rows = stored(3)
        rows.vectors[1] = np.nan
        adaptation = Shifted(0.01, [])
        adapted = Predictor(bundle, adaptation, "snapshot-1").predict(
            SYMBOLS[:3], rows, now=NOW, max_age=WEEK, clock="replay"
        )
        plain = ask(bundle, SYMBOLS[:3], rows)
        for i in (0, 2):
            assert plain[i].p_up is not None and adapted[i].p_up == pytest.approx(plain[i].p_up + 0.01)
        assert np.array_equal(adaptation.seen[0], rows.vectors[[0, 2]])
        assert [answer.adaptation for answer in adapted] == ["snapshot-1"] * 3
        assert [answer.adaptation for answer in plain] == [None] * 3

    @pytest.mark.parametrize(("learned", "worth"), [(None, True), (1.0, True), (7.9, True), (8.1, False)])
    def test_raises_the_cost_of_a_trade_and_never_lowers_it(
        self, tmp_path: Path, learned: float | None, worth: bool
    ) -> None:
        # As above the edge is 15.96 basis points; the bundle's own cost is 7 one way.
        dear = Thresholds(probability=0.02, cost_bps=7.0, min_edge_bps=0.0)
        predictor = Predictor(fixed_bundle(tmp_path / "b", p=0.6, thresholds=dear), Shifted(0.0, [], learned), "one")
        (answer,) = predictor.predict(SYMBOLS[:1], stored(), now=NOW, max_age=WEEK, clock="live")
        assert answer.reasons == (() if worth else ("below_cost",))

    def test_comes_with_its_id(self, bundle: Bundle) -> None:
        for parts in ((Shifted(0.0, []), None), (None, "snapshot-1")):
            with pytest.raises(ValueError, match="come together"):
                Predictor(bundle, *parts)


class TestWatching:
    def test_says_which_arm_and_whose_question(self, bundle: Bundle) -> None:
        times = [NOW, NOW + timedelta(days=8)]
        watched = Predictor(bundle).predict(
            SYMBOLS[:2], stored(2), now=times, max_age=WEEK, clock="live", arm="shadow", parents=["one", "two"]
        )
        assert [(a.arm, a.answered, a.parent) for a in watched] == [("shadow", False, "one"), ("shadow", False, "two")]
        assert [a.asked_at for a in watched] == times
        assert [a.reasons[:1] for a in watched][1] == ("stale_features",) != watched[0].reasons[:1]
        (answered,) = ask(bundle, SYMBOLS[:1], stored())
        assert (answered.arm, answered.answered, answered.parent) == ("champion", True, None)

    def test_takes_the_ids_that_it_is_given(self, bundle: Bundle) -> None:
        made = Predictor(bundle).predict(
            SYMBOLS[:2], stored(2), now=NOW, max_age=WEEK, clock="virtual", ids=["first", "second"]
        )
        assert [answer.id for answer in made] == ["first", "second"]

    def test_counts_the_milliseconds_from_the_question(self, bundle: Bundle) -> None:
        def latency(since: float | None) -> float | None:
            (made,) = Predictor(bundle).predict(SYMBOLS[:1], stored(), now=NOW, max_age=WEEK, clock="live", since=since)
            return made.latency

        waited = latency(time.perf_counter() - 2.0)
        assert waited is not None and 2000 <= waited < 4000
        assert latency(None) is None

    def test_a_time_each_or_one_for_all(self, bundle: Bundle) -> None:
        with pytest.raises(ValueError, match="one for each of 2 symbols, got 1"):
            Predictor(bundle).predict(SYMBOLS[:2], stored(2), now=[NOW], max_age=WEEK, clock="live")


class TestIds:
    def test_are_version_7_uuids_in_order_and_unique(self) -> None:
        ids = [*new_ids(10_000), *new_ids(3)]
        assert ids[:10_000] == sorted(ids[:10_000])
        assert len(set(ids)) == len(ids)
        for text in ids[:: len(ids) // 7]:
            parsed = uuid.UUID(text)
            assert parsed.version == 7 and parsed.variant == uuid.RFC_4122

    def test_begin_with_the_time(self) -> None:
        before = datetime.now(UTC)
        (made,) = new_ids(1)
        stamp = datetime.fromtimestamp((uuid.UUID(made).int >> 80) / 1000, UTC)
        assert abs((stamp - before).total_seconds()) < 5
