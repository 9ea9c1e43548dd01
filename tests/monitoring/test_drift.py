from __future__ import annotations

import functools
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from tests.evidences import changed, hourly
from tradeloop.config import Drift
from tradeloop.monitoring.drift import DriftMonitor, ServedRow, as_normal, discoveries
from tradeloop.reference import Reference
from tradeloop.reference.measure import _rounded, ranked_sketch
from tradeloop.reference.ranks import design_effect

Array = NDArray[np.float64]
CONFIG = hourly().drift
START = datetime(2024, 1, 1, tzinfo=UTC)
TRAINED = 6000


def noise(seed: int, rows: int, columns: int, memory: float = 0.0) -> Array:
    """Return standard normal columns (rows, columns), each an AR(1) with this coefficient."""
    warm = int(20 / (1 - memory))
    draws = np.random.default_rng(seed).standard_normal((rows + warm, columns)) * np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1], [1, -memory], draws, axis=0)[-rows:])


def reference(train: Array, forecasts: Array | None = None) -> Reference:
    """Return a reference whose features are the columns of `train`; what is not about drift holds placeholders."""
    numbers = np.arange(len(train))
    held = noise(99, 1000, 2) if forecasts is None else forecasts
    # As build_reference writes it, the rounding included.
    features = [_rounded(ranked_sketch(column.astype(np.float32), numbers)) for column in train.T]
    p_up, ranges = (_rounded(ranked_sketch(column, np.arange(len(held)))) for column in held.T)
    names = [f"f{number}" for number in range(train.shape[1])]
    content = {
        "names": names,
        "train": features,
        "recent": features,
    }
    made = Reference.model_construct(rows=len(held), train_rows=len(train))
    parts = {"features": content, "forecasts": {"p_up": p_up, "ret": p_up, "range": ranges}}
    for name, part in parts.items():
        kind = Reference.model_fields[name].annotation
        assert kind is not None
        object.__setattr__(made, name, kind.model_validate(part))
    return made


def served(rows: Array, *, symbol: str = "S", first: int = 0, seed: int = 5) -> list[ServedRow]:
    held = noise(seed, len(rows), 2)
    return [
        ServedRow(
            symbol, START + (first + number) * timedelta(hours=1), row.astype(np.float32), p_up, float(np.exp(log))
        )
        for number, (row, (p_up, log)) in enumerate(zip(rows, held, strict=True))
    ]


def look(train: Array, window: Array, config: Drift = CONFIG) -> dict[str, Any]:
    monitor = DriftMonitor(reference(train), config)
    monitor.update(served(window))
    return monitor.evidence()


class TestStationary:
    """What is reported where nothing has changed, over many looks at rows that depend on each other."""

    @pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.98])
    def test_false_discoveries_stay_below_their_rate(self, memory: float) -> None:
        looks = found = 0
        any_size = changed(hourly(), {"drift.psi": 1e-9, "drift.wasserstein": 1e-9}).drift
        for seed in range(10):
            rows = noise(seed, TRAINED + 4000, 25, memory)
            monitor = DriftMonitor(reference(rows[:TRAINED]), any_size)
            for at in range(TRAINED, TRAINED + 4000, 500):
                monitor.update(served(rows[at : at + 250], first=at))
                looks += 1
                found += monitor.evidence()["count"] > 0
        # Where nothing has drifted, the rate of false discoveries is that of looks with any: one per cent is asked for.
        assert looks == 80
        assert found <= 3

    def test_a_plain_test_would_cry_wolf_and_large_is_not_enough(self) -> None:
        """The same rows, by Kolmogorov-Smirnov for independent rows and by PSI alone."""
        rows = noise(1, TRAINED + 250, 40, 0.98)
        train, window = rows[:TRAINED], rows[TRAINED:]
        p = np.array([stats.ks_2samp(a, b).pvalue for a, b in zip(window.T, train.T, strict=True)])
        assert discoveries(p, 0.01).mean() > 0.5
        assert look(train, window)["count"] == 0

    def test_spread_that_comes_in_clusters_is_no_drift(self) -> None:
        """Returns do not depend on their past, their size does: E of the level alone would be far too small."""
        found = 0
        for seed in range(6):
            volatility = np.exp(1.2 * noise(seed, TRAINED + 2000, 1, 0.995))
            rows = np.random.default_rng(seed).standard_normal((TRAINED + 2000, 20)) * volatility
            monitor = DriftMonitor(reference(rows[:TRAINED]), CONFIG)
            for at in range(TRAINED, TRAINED + 1750, 250):
                monitor.update(served(rows[at : at + 250], first=at))
                found += monitor.evidence()["share"] >= hourly().triggers.data_drift.share
        assert found <= 1  # of 42 looks, at 20 columns that move as one


class TestDrifted:
    @pytest.mark.parametrize(
        ("memory", "change", "power"),
        [
            (0.0, lambda rows: rows + 0.5, 0.95),
            (0.0, lambda rows: rows * 1.6, 0.95),
            (0.5, lambda rows: rows + 1, 0.95),
            (0.5, lambda rows: rows / 2, 0.95),
            (0.9, lambda rows: rows + 2, 0.9),
        ],
    )
    def test_it_is_found_as_far_as_the_rows_tell(self, memory: float, change: Any, power: float) -> None:
        rows = noise(3, TRAINED + 250, 40, memory)
        assert look(rows[:TRAINED], change(rows[TRAINED:]))["share"] >= power

    def test_only_what_has_drifted_is_named_the_worst_first(self) -> None:
        rows = noise(4, TRAINED + 250, 20)
        window = rows[TRAINED:].copy()
        window[:, 7] += 1.0
        window[:, 3] += 3.0
        found = look(rows[:TRAINED], window)
        assert [one["feature"] for one in found["drifted"]] == ["f3", "f7"]
        assert (found["count"], found["share"], found["rows"]) == (2, 0.1, 250)
        assert found["drifted"][0]["shift"] == pytest.approx(3, abs=0.2)
        assert found["drifted"][0]["wasserstein"] == pytest.approx(3, abs=0.2)
        assert found["drifted"][1]["p"] < 1e-9
        json.dumps(found, allow_nan=False)

    @pytest.mark.parametrize("floor", ["drift.psi", "drift.wasserstein"])
    def test_what_is_significant_must_be_large_by_both_measures(self, floor: str) -> None:
        rows = noise(5, TRAINED + 250, 20)
        window = rows[TRAINED:] + 1.0
        assert look(rows[:TRAINED], window)["share"] == 1
        assert look(rows[:TRAINED], window, changed(hourly(), {floor: 50.0}).drift)["share"] == 0

    def test_the_false_discovery_rate_is_a_parameter(self) -> None:
        rows = noise(6, TRAINED + 250, 40)
        counts = []
        for rate in (1e-6, 0.01, 0.5):
            config = changed(hourly(), {"drift.psi": 1e-9, "drift.wasserstein": 1e-9, "drift.false_discovery": rate})
            counts.append(look(rows[:TRAINED], rows[TRAINED:] + 0.2, config.drift)["count"])
        assert counts[0] < counts[1] < counts[2]

    def test_forecasts_are_watched_too_and_do_not_count_as_features(self) -> None:
        train = noise(7, TRAINED, 5)
        monitor = DriftMonitor(reference(train), CONFIG)
        rows = served(noise(8, 250, 5))
        monitor.update([ServedRow(r.symbol, r.feature_time, r.features, r.p_up + 2.0, r.range) for r in rows])
        found = monitor.evidence()
        assert found["forecasts"]["p_up"]["drifted"] and not found["forecasts"]["range"]["drifted"]
        assert (found["count"], found["since"]) == (0, None)

    def test_a_feature_that_was_constant_and_moves_has_drifted(self) -> None:
        train = noise(9, TRAINED, 3)
        train[:, 1] = 0.1  # as float32 not the float64 of the sketch
        window = noise(10, 250, 3)
        window[:, 1] = 0.1
        assert look(train, window)["count"] == 0
        window[:, 1] = 0.2
        assert [one["feature"] for one in look(train, window)["drifted"]] == ["f1"]

    @pytest.mark.parametrize("values", [[0.0, 1.0], list(np.sin(2 * np.pi * np.arange(5) / 5)), [0.0] * 9 + [1.0, 2.5]])
    def test_features_of_few_values_do_not_drift_by_rounding(self, values: list[float]) -> None:
        drawn = np.random.default_rng(11).choice(values, (TRAINED + 250, 8))
        assert look(drawn[:TRAINED], drawn[TRAINED:])["count"] == 0
        window = np.random.default_rng(12).choice(values[:2], (250, 8), p=[0.2, 0.8])
        assert len(set(values[:2])) == 1 or look(drawn[:TRAINED], window)["share"] == 1

    def test_a_frequent_value_lies_on_its_quantile_not_beside_it(self) -> None:
        """Nine digits of a float32 read as a double are another number, by less than any measure but PSI forgives."""
        values = np.sin(2 * np.pi * np.arange(1, 6) / 5).astype(np.float32).astype(np.float64)
        held = np.column_stack([np.random.default_rng(25).choice(values, 3000), noise(26, 3000, 1)[:, 0]])
        monitor = DriftMonitor(reference(noise(27, TRAINED, 2), held), CONFIG)
        drawn = np.random.default_rng(28).choice(values, 250)
        monitor.update(
            ServedRow(row.symbol, row.feature_time, row.features, p_up, row.range)
            for row, p_up in zip(served(noise(29, 250, 2)), drawn, strict=True)
        )
        assert monitor.evidence()["forecasts"]["p_up"]["psi"] < 0.1


@functools.cache
def four_features() -> Reference:
    return reference(noise(13, 2000, 4))


class TestMonitor:
    def monitor(self, **changes: Any) -> DriftMonitor:
        config = changed(hourly(), {f"drift.{name}": value for name, value in changes.items()}).drift
        return DriftMonitor(four_features(), config)

    def test_it_says_nothing_before_there_are_enough_rows(self) -> None:
        monitor = self.monitor(min_rows=60)
        rows = served(noise(14, 60, 4))
        monitor.update(rows[:59])
        assert monitor.evidence() == {}
        monitor.update(rows[59:])
        assert monitor.evidence()["rows"] == 60

    def test_it_compares_every_so_many_rows(self) -> None:
        monitor, looks = self.monitor(min_rows=50, every=20), []
        for row in served(noise(15, 130, 4)):
            monitor.update([row])
            looks.append(monitor.evidence().get("at"))
        moments = [number + 1 for number in range(1, 130) if looks[number] != looks[number - 1]]
        assert moments == [50, 70, 90, 110, 130]

    def test_a_bot_that_asks_twice_and_late_rows_change_nothing(self) -> None:
        once, twice = self.monitor(), self.monitor()
        rows = served(noise(16, 150, 4))
        once.update(rows)
        for row in rows:
            twice.update([row, row])
        twice.update(rows[:50])
        assert np.array_equal(once.recent(), twice.recent())

    def test_symbols_of_one_bar_all_count(self) -> None:
        monitor = self.monitor()
        rows = noise(17, 60, 4)
        for symbol in "ABC":
            monitor.update(served(rows, symbol=symbol))
        assert monitor.evidence()["rows"] > 150

    def test_rows_that_are_not_finite_are_left_out(self) -> None:
        monitor = self.monitor()
        rows = noise(18, 20, 4)
        rows[3, 2] = np.nan
        monitor.update(served(rows))
        assert len(monitor.recent()) == 19

    def test_a_row_of_another_schema_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a row must have 4 features, got 3"):
            self.monitor().update(served(noise(19, 1, 3)))

    def test_only_the_newest_rows_are_held_in_order(self) -> None:
        monitor = self.monitor(rows=80, min_rows=50)
        rows = noise(20, 200, 4)
        monitor.update(served(rows))
        assert np.allclose(monitor.recent()[:, :4], rows[-80:])
        assert monitor.names == ("f0", "f1", "f2", "f3", "p_up", "range")

    def test_since_is_when_the_drift_began_and_ends_with_it(self) -> None:
        monitor, since = self.monitor(rows=100, min_rows=100, every=50), []
        rows = noise(21, 900, 4)
        rows[300:600] += 3
        for row in served(rows):
            monitor.update([row])
            since.append(monitor.evidence().get("since"))
        begun = {text for text in since if text}
        assert len(begun) == 1
        assert START + timedelta(hours=300) < datetime.fromisoformat(begun.pop()) <= START + timedelta(hours=350)
        assert since[299] is None and since[-1] is None

    @given(st.integers(0, 400), st.integers(5, 60))
    @settings(deadline=None, max_examples=10)
    def test_going_on_from_a_memory_is_the_same(self, broken_at: int, batch: int) -> None:
        rows = served(noise(22, 420, 4) + np.linspace(0, 2, 420)[:, None])
        whole, first = self.monitor(rows=120), self.monitor(rows=120)
        for at in range(0, len(rows), batch):
            whole.update(rows[at : at + batch])
        split = broken_at // batch * batch
        for at in range(0, split, batch):
            first.update(rows[at : at + batch])
        second = self.monitor(rows=120)
        second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
        for at in range(split, len(rows), batch):
            second.update(rows[at : at + batch])
        assert second.evidence() == whole.evidence()
        assert second.state() == whole.state()

    def test_a_memory_of_other_parameters_is_refused(self) -> None:
        monitor = self.monitor(rows=120)
        monitor.update(served(noise(23, 150, 4)))
        with pytest.raises(ValueError, match="must hold 150 rows of 6 values, got 720 values"):
            self.monitor(rows=200).restore(monitor.state())

    def test_a_look_at_66_features_is_cheap(self) -> None:
        rows = noise(24, 2000 + 600, 66)
        monitor = DriftMonitor(reference(rows[:2000]), CONFIG)
        batches = [served(rows[at : at + 25], first=at) for at in range(2000, 2600, 25)]
        best = float("inf")
        for batch in batches:
            began = time.perf_counter()
            monitor.update(batch)
            best = min(best, time.perf_counter() - began) if monitor.evidence() else best
        assert best < 5e-3


class TestPieces:
    @pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
    def test_design_effect_is_that_of_the_process(self, memory: float) -> None:
        rows = noise(30, 20_000, 8, memory)
        found = np.median([design_effect(column, np.arange(len(rows))) for column in rows.T])
        assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.2)

    def test_symbols_that_move_as_one_count_once(self) -> None:
        one = noise(31, 4000, 1)[:, 0]
        numbers = np.tile(np.arange(4000), 3)
        assert design_effect(np.tile(one, 3), numbers) == pytest.approx(3, rel=0.2)
        assert design_effect(noise(32, 12_000, 1)[:, 0], numbers) == pytest.approx(1, rel=0.2)

    def test_what_does_not_fade_counts_as_one_row(self) -> None:
        assert design_effect(np.linspace(0, 1, 300), np.arange(300)) > 100
        assert design_effect(np.zeros(300), np.arange(300)) == 1

    @pytest.mark.parametrize(("degrees", "error"), [(0.3, 0.5), (1.0, 0.08), (3.0, 0.03), (10.0, 0.01), (1000.0, 0.01)])
    def test_students_deviates_become_normal_ones(self, degrees: float, error: float) -> None:
        t = np.array([0.0, 0.5, 2.0, 6.0, 30.0])
        expected = -stats.norm.ppf(stats.t.sf(t, degrees))
        found = as_normal(t, np.full(5, degrees))
        assert found == pytest.approx(expected, rel=error, abs=0.01)
        assert (found[2:] <= expected[2:] * 1.01).all()  # where it errs it errs on the cautious side

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.floats(0.001, 0.5))
    @settings(deadline=None, max_examples=100)
    def test_discoveries_are_those_of_benjamini_and_hochberg(self, p: list[float], rate: float) -> None:
        values = np.array(p)
        expected = stats.false_discovery_control(values) <= rate
        close = np.isclose(stats.false_discovery_control(values), rate, rtol=1e-9)
        assert ((discoveries(values, rate) == expected) | close).all()
