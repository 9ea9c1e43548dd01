from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import linear_graph
from tradeloop.config import TARGETS
from tradeloop.ensemble import Ensemble, Forecast, calibrate, combine, interval, logit, sigmoid
from tradeloop.errors import BundleError

WIDTH = 3
WEIGHTS = {"a": np.array([1.0, -0.5, 0.25], dtype=np.float32), "b": np.array([0.0, 0.3, 0.6], dtype=np.float32)}
BIAS = {"direction": 0.1, "return": 0.001, "range": -4.5}


def graphs() -> dict[str, bytes]:
    return {
        f"{model}/{target}.onnx": linear_graph(weights, BIAS[target], probability=target == "direction")
        for model, weights in WEIGHTS.items()
        for target in TARGETS
    }


def specification() -> dict[str, Any]:
    def members(target: str) -> dict[str, Any]:
        return {m: {"file": f"{m}/{target}.onnx", "weight": w} for m, w in (("a", 0.75), ("b", 0.25))}

    return {
        "format": 1,
        "market": "test",
        "schema": {"hash": "0" * 64, "names": ["x", "y", "z"]},
        "coverage": 0.9,
        "targets": {
            "direction": {
                "space": "logit",
                "members": members("direction"),
                "intercept": 0.2,
                "calibrator": {"kind": "platt", "slope": 0.5, "intercept": -0.1},
            },
            "return": {
                "space": "identity",
                "members": members("return"),
                "intercept": 0.0,
                "conformal": {"scale": "range", "low": -2.0, "high": 3.0},
            },
            "range": {
                "space": "identity",
                "members": members("range"),
                "intercept": 0.01,
                "conformal": {"scale": "none", "low": -0.5, "high": 0.4},
            },
        },
    }


def rows(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(scale=0.5, size=(n, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return Ensemble.load(graphs(), specification())


def arrays(forecast: Forecast) -> NDArray[np.float64]:
    parts = (forecast.p_up, forecast.ret, forecast.ret_low, forecast.ret_high)
    return np.column_stack([*parts, forecast.range, forecast.range_low, forecast.range_high])


def test_forecast_by_hand(ensemble: Ensemble) -> None:
    forecast = ensemble.forecast(np.array([[1.0, 2.0, 4.0]], dtype=np.float32))
    # a: 1 - 1 + 1 = 1; b: .6 + 2.4 = 3. Members of direction: log odds 1.1 and 3.1.
    z = 0.2 + 0.75 * 1.1 + 0.25 * 3.1
    log_range = 0.01 + 0.75 * (1 - 4.5) + 0.25 * (3 - 4.5)
    mean = 0.75 * 1.001 + 0.25 * 3.001
    scale = np.exp(log_range)
    expected = [1 / (1 + np.exp(0.1 - 0.5 * z)), mean, mean - 2 * scale, mean + 3 * scale]
    expected += [log_range, log_range - 0.5, log_range + 0.4]
    np.testing.assert_allclose(arrays(forecast)[0], expected, rtol=1e-6)
    assert forecast.members["return"]["b"][0] == pytest.approx(3.001)
    assert len(forecast) == 1


def test_one_row_at_a_time_is_the_same(ensemble: Ensemble) -> None:
    x = rows(40)
    whole = arrays(ensemble.forecast(x))
    single = np.concatenate([arrays(ensemble.forecast(x[i : i + 1])) for i in range(40)])
    np.testing.assert_allclose(whole, single, rtol=1e-6)
    strided = np.asfortranarray(x)
    np.testing.assert_array_equal(arrays(ensemble.forecast(strided)), whole)


def test_rows_with_holes_give_nan_and_the_others_stand(ensemble: Ensemble) -> None:
    x = rows(6)
    whole = arrays(ensemble.forecast(x))
    broken = x.copy()
    broken[1, 2], broken[4, 0] = np.nan, np.inf
    forecast = ensemble.forecast(broken)
    kept = [0, 2, 3, 5]
    np.testing.assert_array_equal(arrays(forecast)[kept], whole[kept])
    assert np.isnan(arrays(forecast)[[1, 4]]).all()
    assert np.isnan(forecast.members["range"]["a"][[1, 4]]).all()


@pytest.mark.parametrize("n", [0, 2])
def test_no_row_and_no_whole_row(ensemble: Ensemble, n: int) -> None:
    forecast = ensemble.forecast(np.full((n, WIDTH), np.nan, dtype=np.float32))
    assert len(forecast) == n
    assert np.isnan(arrays(forecast)).all()


@pytest.mark.parametrize("x", [np.zeros((2, 4), np.float32), np.zeros((2, 3)), np.zeros(3, np.float32)])
def test_other_shapes_and_types_are_refused(ensemble: Ensemble, x: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"features must be float32 \(n, 3\), got"):
        ensemble.forecast(x)


def test_threads_may_share_it(ensemble: Ensemble) -> None:
    x = rows(200)
    whole = arrays(ensemble.forecast(x))
    with ThreadPoolExecutor(8) as pool:
        for i, part in pool.map(lambda i: (i, arrays(ensemble.forecast(x[i : i + 1]))), list(range(200)) * 5):
            np.testing.assert_allclose(part[0], whole[i], rtol=1e-6)


def test_folder_and_contents_and_a_round_trip_through_json_agree(ensemble: Ensemble, tmp_path: Path) -> None:
    for name, content in graphs().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    again = Ensemble.load(tmp_path, json.loads(json.dumps(specification())))
    np.testing.assert_array_equal(arrays(again.forecast(rows(20))), arrays(ensemble.forecast(rows(20))))


def test_a_missing_torn_or_foreign_graph_is_refused(tmp_path: Path) -> None:
    files = graphs()
    with pytest.raises(BundleError, match=r"a/direction\.onnx is missing"):
        Ensemble.load(tmp_path, specification())
    with pytest.raises(BundleError, match=r"b/range\.onnx is missing"):
        Ensemble.load({k: v for k, v in files.items() if k != "b/range.onnx"}, specification())
    with pytest.raises(BundleError, match=r"b/range\.onnx is not a readable graph"):
        Ensemble.load(files | {"b/range.onnx": files["b/range.onnx"][:50]}, specification())
    wide = linear_graph(np.ones(4, np.float32), 0.0, probability=False)
    with pytest.raises(BundleError, match=r"a/return.onnx must map features \(n, 3\)"):
        Ensemble.load(files | {"a/return.onnx": wide}, specification())


def _set(path: str, value: Any) -> dict[str, Any]:
    """Return the specification with one value changed; None removes it."""
    spec = deepcopy(specification())
    *blocks, key = path.split("/")
    part = spec
    for block in blocks:
        part = part[block]
    if value is None:
        del part[key]
    else:
        part[key] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format 1 is needed, got 2"),
        ("targets/range", None, "malformed: KeyError 'range'"),
        ("targets/return/intercept", "much", "malformed: ValueError"),
        ("targets/return/intercept", float("nan"), "not finite"),
        ("targets/direction/members", {}, "no members"),
        ("targets/direction/space", "identity", "unknown space 'identity'"),
        ("targets/return/conformal/low", 4.0, "low ≤ high"),
        ("targets/return/conformal/scale", "price", "scale range or none"),
        ("targets/direction/calibrator/kind", "beta", "platt, isotonic"),
        ("targets/direction/calibrator", {"kind": "isotonic", "x": [0, 1], "y": [0]}, "one length"),
        ("targets/direction/calibrator/slope", float("inf"), "not finite"),
        ("targets/direction/members/a/weight", [1], "malformed: TypeError"),
        ("targets/direction", ["members"], "malformed: TypeError"),
    ],
)
def test_a_malformed_specification_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Ensemble.load(graphs(), _set(path, value))


def test_logit_and_sigmoid_undo_each_other_and_never_overflow() -> None:
    p = np.array([0.0, 1e-5, 0.3, 0.5, 0.9, 1.0])
    z = logit(p)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(sigmoid(z), np.clip(p, 1e-6, 1 - 1e-6), rtol=1e-9)
    np.testing.assert_array_equal(sigmoid(np.array([-1e9, 1e9])), [0, 1])


def test_calibrators_by_hand() -> None:
    z = np.array([-2.0, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(calibrate({"kind": "none"}, z), 1 / (1 + np.exp(-z)))
    platt = {"kind": "platt", "slope": 0.0, "intercept": 0.4}
    np.testing.assert_allclose(calibrate(platt, z), 1 / (1 + np.exp(-0.4)))
    isotonic = {"kind": "isotonic", "x": [-1.0, 1.0], "y": [0.2, 0.6]}
    np.testing.assert_allclose(calibrate(isotonic, z), [0.2, 0.4, 0.5, 0.6])


def test_combine_works_in_log_odds_for_probabilities() -> None:
    members = {"a": np.array([0.8]), "b": np.array([0.2])}
    spec: dict[str, Any] = {"intercept": 0.0, "members": {"a": {"weight": 0.5}, "b": {"weight": 0.5}}}
    assert combine(spec | {"space": "logit"}, members)[0] == pytest.approx(0.0)
    assert combine(spec | {"space": "identity"}, members)[0] == pytest.approx(0.5)


def test_interval_scales_with_the_forecast_range() -> None:
    centre, log_range = np.zeros(2), np.log([0.01, 0.03])
    low, high = interval({"scale": "range", "low": -1.0, "high": 2.0}, centre, log_range)
    np.testing.assert_allclose(low, [-0.01, -0.03])
    np.testing.assert_allclose(high, [0.02, 0.06])
    low, high = interval({"scale": "none", "low": -1.0, "high": 2.0}, centre, log_range)
    np.testing.assert_allclose((low, high), ([-1, -1], [2, 2]))
