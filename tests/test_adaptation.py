from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bundles import NAMES, tiny_bundle, tiny_rows
from tradeloop.adaptation import NEUTRAL, REACH, STANDARD, Adaptation
from tradeloop.bundle import FORECASTS, Bundle
from tradeloop.config import MODELS, TARGETS
from tradeloop.ensemble import Forecast, logit, sigmoid
from tradeloop.errors import AdaptationError

WIDTH = len(NAMES)
SCALER: dict[str, Any] = {"means": [0.1] * WIDTH, "scales": [2.0] * WIDTH}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "one")


def adapted(bundle: Bundle, content: dict[str, Any], rows: int = 20) -> tuple[Forecast, Forecast]:
    x = tiny_rows(rows)
    packaged = bundle.forecast(x)
    return packaged, Adaptation.parse(content, spec=bundle.ensemble.spec).apply(packaged, x)


def everywhere(part: dict[str, Any]) -> dict[str, Any]:
    return {target: part for target in TARGETS}


def distance(one: Forecast, other: Forecast) -> float:
    return max(float(np.abs(getattr(one, name) - getattr(other, name)).max()) for name in FORECASTS)


def test_the_neutral_snapshot_changes_nothing(bundle: Bundle) -> None:
    packaged, same = adapted(bundle, {})
    assert distance(packaged, same) == 0.0
    assert Adaptation(NEUTRAL).neutral


def test_weights_of_zero_change_nothing_to_a_trillionth(bundle: Bundle) -> None:
    """Not the neutral snapshot, so every line of `apply` runs."""
    part = {"weights": dict.fromkeys(MODELS, 0.0)}
    packaged, same = adapted(bundle, {"targets": everywhere(part)})
    assert distance(packaged, same) < 1e-12


def test_the_whole_weight_on_a_member_gives_that_members_forecast(bundle: Bundle) -> None:
    packaged, moved = adapted(bundle, {"targets": everywhere({"weights": {"mlp": 1.0}})})
    assert np.allclose(moved.p_up, packaged.members["direction"]["mlp"], atol=1e-9)
    assert np.allclose(moved.ret, packaged.members["return"]["mlp"], atol=1e-12)
    assert np.allclose(moved.range, packaged.members["range"]["mlp"], atol=1e-12)


def test_recalibration_and_widths_by_hand(bundle: Bundle) -> None:
    targets = {
        "direction": {"slope": 0.5, "intercept": 0.1},
        "return": {"low": 2.0, "high": 0.5},
        "range": {"intercept": 0.5},
    }
    packaged, moved = adapted(bundle, {"targets": targets})
    assert np.allclose(moved.p_up, sigmoid(0.5 * logit(packaged.p_up) + 0.1), atol=1e-12)
    shift = 0.5 * (packaged.range_high - packaged.range_low) / 2
    assert np.allclose(moved.range, packaged.range + shift)
    assert np.allclose(moved.range_high - moved.range, packaged.range_high - packaged.range)
    half = (packaged.ret_high - packaged.ret_low) / 2
    assert np.array_equal(moved.ret, packaged.ret)
    assert np.allclose(moved.ret_low, packaged.ret_low - half)
    assert np.allclose(moved.ret_high, packaged.ret_high - 0.5 * half)


def test_the_linear_member_by_hand_and_how_far_it_may_reach(bundle: Bundle) -> None:
    x = tiny_rows(20)
    x[0] = 50.0  # beyond what counts
    packaged = bundle.forecast(x)
    online = {"coefficients": [0.5] + [0.0] * (WIDTH - 1), "tilt": -0.1, "bias": 0.05}
    part = {"weights": {"online": 0.4}, "online": online}
    content = {"scaler": SCALER, "targets": {"direction": part, "return": part}}
    moved = Adaptation.parse(content, spec=bundle.ensemble.spec).apply(packaged, x)
    features = 0.5 * np.minimum((x[:, 0].astype(float) - 0.1) / 2.0, STANDARD)
    assert features.max() > REACH
    base = logit(packaged.p_up)
    apart = np.clip(0.05 - 0.1 * base + features, -REACH, REACH)
    assert np.allclose(logit(moved.p_up), base + 0.4 * apart, atol=1e-9)
    unit = (packaged.ret_high - packaged.ret_low) / 2
    apart = np.clip(0.05 - 0.1 * packaged.ret / unit + features, -REACH, REACH)
    assert np.allclose(moved.ret, packaged.ret + 0.4 * unit * apart, atol=1e-12)
    assert np.allclose(moved.ret_low - moved.ret, packaged.ret_low - packaged.ret, atol=1e-12)
    assert np.array_equal(moved.range, packaged.range)


def test_rows_without_a_forecast_stay_without(bundle: Bundle) -> None:
    x = tiny_rows(3)
    x[1, 2] = np.nan
    online = {"coefficients": [0.1] * WIDTH}
    content = {"scaler": SCALER, "targets": everywhere({"weights": {"online": 0.5}, "online": online})}
    moved = Adaptation.parse(content).apply(bundle.forecast(x), x)
    for name in FORECASTS:
        assert np.array_equal(np.isnan(getattr(moved, name)), [False, True, False])


def test_one_row_is_forecast_as_among_many(bundle: Bundle) -> None:
    x = tiny_rows(200)
    online = {"coefficients": np.linspace(-0.3, 0.3, WIDTH).tolist()}
    content = {"scaler": SCALER, "targets": everywhere({"weights": {"online": 0.5}, "online": online})}
    adaptation = Adaptation.parse(content)
    together = adaptation.apply(bundle.forecast(x), x)
    alone = adaptation.apply(bundle.forecast(x[7:8]), x[7:8])
    for name in FORECASTS:
        assert getattr(alone, name)[0] == pytest.approx(getattr(together, name)[7], abs=1e-6)


unit = st.floats(0, 1)


@settings(deadline=None, max_examples=60)
@given(
    weights=st.tuples(*[unit] * len(MODELS)),
    calibration=st.tuples(st.floats(0, 3), st.floats(-1, 1)),
    shift=st.floats(-1.5, 1.5),
    widths=st.tuples(st.floats(0.25, 4), st.floats(0.25, 4)),
)
def test_whatever_is_within_the_bounds_gives_an_ordered_finite_forecast(
    bundle: Bundle,
    weights: tuple[float, ...],
    calibration: tuple[float, float],
    shift: float,
    widths: tuple[float, float],
) -> None:
    scale = max(1.0, sum(weights) * (1 + 1e-9))
    shares = {name: weight / scale for name, weight in zip(MODELS, weights, strict=True)}
    value = {"weights": shares, "intercept": shift, "low": widths[0], "high": widths[1]}
    direction = {"weights": shares, "slope": calibration[0], "intercept": calibration[1]}
    content = {"targets": {"direction": direction, "return": value, "range": value}}
    _, moved = adapted(bundle, content)
    assert all(np.isfinite(getattr(moved, name)).all() for name in FORECASTS)
    assert ((moved.p_up > 0) & (moved.p_up < 1)).all()
    assert (moved.ret_low < moved.ret_high).all()
    assert (moved.range_low < moved.range_high).all()


def test_a_snapshot_survives_json(bundle: Bundle) -> None:
    online = {"coefficients": [0.1] * WIDTH, "tilt": -0.2, "bias": 0.3}
    content = {"scaler": SCALER, "cost_bps": 7.5, "targets": {"range": {"weights": {"online": 0.3}, "online": online}}}
    adaptation = Adaptation.parse(content, spec=bundle.ensemble.spec)
    again = Adaptation.parse(json.loads(json.dumps(adaptation.to_dict())))
    assert again == adaptation
    assert again.cost_bps == 7.5


def part(**changes: Any) -> dict[str, Any]:
    return {"targets": {"return": changes}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "a valid dictionary"),
        ({"fromat": 1}, "unknown key 'fromat'; did you mean 'format'"),
        ({"format": 2}, "format"),
        ({"cost_bps": float("nan")}, "cost_bps: input should be a finite number"),
        (part(low=4.5), "targets.return.low: input should be less than or equal to 4, got 4.5"),
        (part(weights={"mlp": -0.1}), "targets.return.weights.mlp"),
        (part(weights={"mlp": 0.6, "xgboost": 0.6}), "weights may sum to at most 1, got 1.2"),
        (part(weights={"lstm": 0.1}), "return has no member 'lstm'"),
        (part(weights={"online": 0.1}), "return gives a weight to a linear member that it lacks"),
        (part(online={"coefficients": [0.1]}), "return.online has 1 coefficients for None features"),
        ({"scaler": {"means": [0.0], "scales": [0.0]}}, "scaler.scales.0"),
        ({"scaler": {"means": [0.0], "scales": []}}, "1 means, but 0 scales"),
        ({"scaler": {"means": [0.0], "scales": [1.0]}}, f"for 1 features, the bundle has {WIDTH}"),
        ({"targets": {"direction": {"slope": -1.0}}}, "targets.direction.slope"),
    ],
)
def test_what_is_malformed_or_out_of_bounds_is_refused_in_one_line(bundle: Bundle, content: Any, says: str) -> None:
    with pytest.raises(AdaptationError) as refused:
        Adaptation.parse(content, spec=bundle.ensemble.spec)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_importing_it_needs_no_learning_library() -> None:
    heavy = ("river", "sklearn", "scipy", "torch")
    code = f"import sys, tradeloop.adaptation; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
