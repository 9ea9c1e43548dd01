"""What the holdout says of a model: estimates that know their errors, in a small document that is checked when read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from tests.bundles import tiny_bundle, tiny_facts, tiny_graphs, tiny_reference, tiny_rows, tiny_schema, tiny_spec
from tests.streams import World, make_content, make_reference
from tradeloop.bundle import Bundle, write_bundle
from tradeloop.ensemble import Ensemble
from tradeloop.errors import BundleError
from tradeloop.manifest import canonical
from tradeloop.reference import Reference, Sketch, fit_line
from tradeloop.reference.content import alignment_covariate, score_grid


def near(estimate: Any, truth: float, *, errors: float = 3.5) -> bool:
    return bool(abs(estimate.value - truth) <= errors * estimate.se)


class TestDirection:
    def test_line_accuracy_and_loss_are_those_of_the_world(self) -> None:
        world = World(intercept=0.2, slope=0.7)
        found = make_reference(world).direction
        assert near(found.intercept, 0.2) and near(found.slope, 0.7)
        columns = world.draw(100_000, 9)
        p, up = columns["p_up"], columns["up"]
        assert near(found.accuracy, float(((p >= 0.5) == (up > 0)).mean()))
        assert near(found.loss, float(-np.log(np.where(up > 0, p, 1 - p)).mean()))
        assert found.base_rate == pytest.approx(float(up.mean()), abs=0.02)

    def test_standard_errors_are_the_spread_over_holdouts(self) -> None:
        found = [make_reference(World(), times=500, seed=seed).direction for seed in range(40)]
        for name in ("slope", "intercept", "loss", "accuracy"):
            values = [getattr(one, name) for one in found]
            assert np.std([v.value for v in values]) == pytest.approx(np.mean([v.se for v in values]), rel=0.4), name

    @pytest.mark.parametrize(("common", "effect"), [(0.0, 1.0), (0.999999, 5.0)])
    def test_symbols_that_move_as_one_count_as_one(self, common: float, effect: float) -> None:
        found = make_reference(World(common=common, symbols=5), times=3_000).direction
        assert found.design_effect == pytest.approx(effect, rel=0.12)
        assert found.correlation == pytest.approx((effect - 1) / 4, abs=0.05)

    def test_labels_that_overlap_count_less(self) -> None:
        # Every bar's label is drawn anew here, so nothing but the overlap itself can be measured.
        assert make_content(World(), times=400, horizon=1)["overlap"] == 0
        assert make_content(World(), times=400, horizon=4)["overlap"] == 3
        up = np.repeat(World().draw(2_000, 1)["up"].ravel(), 4)
        found = Reference.parse(make_content(World(slope=0.0), times=8_000, horizon=4, up=up)).direction
        # Four equal labels in a row: their mean has the variance of one, its logistic line hardly cares.
        assert found.accuracy.se < 0.01 < found.intercept.se * 2
        assert found.intercept.se == pytest.approx(2 * 2 / np.sqrt(8_000), rel=0.25)

    def test_without_an_edge_the_slope_cannot_be_told_from_none(self) -> None:
        found = make_reference(World(slope=0.0)).direction
        assert near(found.slope, 0.0)


class TestReturn:
    def test_sizes_count_where_errors_are_gaussian(self) -> None:
        rng = np.random.default_rng(4)
        columns = World().draw(20_000, 1)
        wide = np.exp(columns["range"].ravel())
        mean = 0.5 * wide * rng.standard_normal(20_000)
        actual = mean + wide * rng.standard_normal(20_000)
        content = make_content(World(), times=20_000, ret=mean, actual=actual, up=(actual > 0) * 1.0)
        found = Reference.parse(content).ret
        assert found.size_share >= 0.75
        assert found.slope.value == pytest.approx(2.0, rel=0.15)

    def test_sizes_that_say_nothing_do_not_count(self) -> None:
        assert make_reference(World(), times=20_000).ret.size_share == 0.0

    def test_returns_of_zero_are_left_out(self) -> None:
        columns = {name: values.ravel() for name, values in World().draw(2_000, 1).items()}
        flat = np.arange(2_000) % 3 == 0
        actual, up = np.where(flat, 0.0, columns["actual"]), np.where(flat, 0.0, columns["up"])
        with_flat = make_content(World(), times=2_000, actual=actual, up=up)["ret"]
        wide = np.exp(columns["range"])
        x = alignment_covariate(columns["ret"], wide, columns["actual"], with_flat["size_share"])
        line, _ = fit_line(x[~flat], columns["up"][~flat])
        assert [with_flat["intercept"]["value"], with_flat["slope"]["value"]] == pytest.approx(line.tolist(), rel=1e-5)


class TestRange:
    def test_memory_is_found_and_the_rest_is_white(self) -> None:
        found = make_reference(World(memory=0.5, noise=0.3), times=20_000).range
        assert found.memory[0] == pytest.approx(0.5, abs=0.03)
        assert found.innovation_sd == pytest.approx(0.3, rel=0.03)
        assert found.residual.sd == pytest.approx(0.3 / np.sqrt(0.75), rel=0.04)
        assert found.location_effect < 1.3
        assert near(found.mean, 0.0)

    def test_no_memory_where_there_is_none(self) -> None:
        assert make_reference(World(memory=0.0), times=20_000).range.memory == ()

    def test_scores_are_normal_whatever_the_tails(self) -> None:
        rng = np.random.default_rng(0)
        columns = World().draw(20_000, 1)
        errors = 0.2 * rng.standard_t(3, size=20_000)
        found = Reference.parse(make_content(World(), times=20_000, label=columns["range"].ravel() + errors)).range
        scores = np.interp(errors - found.mean.value, found.scores, score_grid(found.limit))
        assert norm.fit(scores) == pytest.approx((0.0, 1.0), abs=0.02)
        assert float((scores > 2).mean()) == pytest.approx(1 - ndtr(2), abs=0.003)
        assert found.limit == pytest.approx(norm.ppf(1 - 10 / 20_001))

    def test_symbols_do_not_foretell_each_other(self) -> None:
        # One symbol's errors persist, the other's do not: pooled by row they would look like noise.
        found = make_reference(World(memory=0.6, symbols=2), times=8_000).range
        assert found.memory[0] == pytest.approx(0.6, abs=0.04)
        assert found.symbol_effect < 1.1

    def test_dependent_symbols_have_a_design_effect(self) -> None:
        found = make_reference(World(common=0.999999, symbols=4), times=3_000).range
        assert found.symbol_effect == pytest.approx(4.0, rel=0.1)
        assert found.scale_effect == pytest.approx(4.0, rel=0.25)


class TestDocument:
    def test_the_same_rows_give_the_same_bytes_in_any_order(self) -> None:
        world = World(symbols=3, memory=0.3)
        first, again = make_content(world, times=300), make_content(world, times=300)
        assert canonical(first) == canonical(again) == canonical(make_content(world, times=300, shuffled=True))
        assert canonical(first) != canonical(make_content(world, times=300, seed=2))

    def test_is_small_and_finite(self) -> None:
        schema = tiny_schema(tuple(f"feature_{number}" for number in range(66)))
        ensemble = Ensemble.load(tiny_graphs(66, 0), tiny_spec(schema))
        content = tiny_reference(ensemble, schema, bars=2_000)
        assert len(canonical(content, dense=True)) < 110_000
        json.dumps(content, allow_nan=False)
        assert Reference.parse(json.loads(canonical(content))).model_dump(mode="json") == content

    @pytest.mark.parametrize("times", [1, 2, 5, 30])
    def test_a_short_holdout_says_little(self, times: int) -> None:
        found = make_reference(World(), times=times)
        assert found.rows == times
        assert found.direction.slope.se > 0.3
        assert found.range.limit < 2.2

    def test_labels_of_one_kind_only(self) -> None:
        found = Reference.parse(make_content(World(), times=200, up=np.ones(200)))
        assert found.direction.base_rate == 1.0
        assert np.isfinite(found.direction.slope.value) and found.direction.slope.se > 0.3

    @pytest.mark.parametrize("forecast", ["p_up", "ret"])
    def test_a_forecast_that_is_no_number_is_refused(self, forecast: str) -> None:
        columns = World().draw(50, 1)
        broken = columns[forecast].ravel().copy()
        broken[7] = np.nan
        with pytest.raises(BundleError, match=f"holdout's {forecast} must be finite"):
            make_content(World(), times=50, **{forecast: broken})

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"rows": 0}, "rows: Input should be greater"),
            ({"surplus": 1}, "surplus: Extra inputs"),
            ({"direction": None}, "direction: Input should be"),
            ({"format": 2}, "format: Input should be 1"),
        ],
    )
    def test_what_is_malformed_is_named(self, change: dict[str, Any], rule: str) -> None:
        content = make_content(World(), times=50) | change
        with pytest.raises(BundleError, match=rf"reference\.json: {rule}"):
            Reference.parse(content)

    def test_quantiles_must_not_fall(self) -> None:
        with pytest.raises(ValueError, match="must not fall"):
            Sketch(quantiles=(1.0, 0.0), mean=0, sd=0, ties=0)

    def test_sketches_are_those_of_the_rows(self) -> None:
        content = make_content(World(), times=2_000)
        p = World().draw(2_000, 1)["p_up"]
        quantiles = content["forecasts"]["p_up"]["quantiles"]
        assert quantiles == pytest.approx(np.quantile(p, np.linspace(0, 1, 41)).tolist(), rel=1e-6)


class TestBundle:
    def test_carries_it(self, tmp_path: Path) -> None:
        written = tiny_bundle(tmp_path / "bundle")
        assert Bundle.load(tmp_path / "bundle").reference == written.reference
        assert written.reference.rows == 400

    def test_of_other_features_is_refused(self, tmp_path: Path) -> None:
        schema, others = tiny_schema(), tiny_schema(("a", "b", "c", "d", "e", "f"))
        graphs = tiny_graphs(6, 0)
        ensemble = Ensemble.load(graphs, tiny_spec(schema))
        parts: dict[str, Any] = {"spec": tiny_spec(schema), "schema": schema, "graphs": graphs, "metrics": {}}
        with pytest.raises(BundleError, match=r"reference\.json and schema\.json list different features"):
            write_bundle(
                tmp_path / "bundle",
                tiny_facts(schema),
                golden=tiny_rows(3),
                gate={},
                reference=tiny_reference(ensemble, others),
                **parts,
            )
