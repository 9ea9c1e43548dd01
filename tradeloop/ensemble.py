"""The ensemble as it serves: ONNX members, weights, calibration and intervals; NumPy and ONNX Runtime only.

What is applied here is fitted by `stacking`, through the same functions, so that training and serving cannot differ.
The specification is JSON (see `stacking.fit_stack` for how its numbers come about)::

    {"format": 1, "market": ..., "schema": {"hash": ..., "names": [...]}, "coverage": 0.9,
     "targets": {
       "direction": {"space": "logit", "members": {model: {"file": ..., "weight": w}}, "intercept": b,
                     "calibrator": {"kind": "platt", "slope": a, "intercept": c}
                                 | {"kind": "isotonic", "x": [...], "y": [...]} | {"kind": "none"}},
       "return":    {"space": "identity", "members": ..., "intercept": b,
                     "conformal": {"scale": "range", "low": q, "high": q}},
       "range":     {"space": "identity", "members": ..., "intercept": b,
                     "conformal": {"scale": "none", "low": q, "high": q}}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Target
from tradeloop.errors import BundleError

FORMAT = 1
_EPSILON = 1e-6  # probabilities are kept this far from 0 and 1 before a logit

Spec = Mapping[str, Any]
Files = Path | Mapping[str, bytes]


@dataclass(frozen=True)
class Forecast:
    """Forecasts of n rows, float64 (n,) each; a row with a value that is not finite gives NaN throughout.

    Attributes
    ----------
    p_up
        Calibrated probability of a positive return.
    ret, ret_low, ret_high
        Gross log return over the horizon, and its interval.
    range, range_low, range_high
        Natural log of the volatility per bar, and its interval; take ``exp`` for a fraction of the price.
    members
        What each member said, by target and model.
    """

    p_up: Floats
    ret: Floats
    ret_low: Floats
    ret_high: Floats
    range: Floats
    range_low: Floats
    range_high: Floats
    members: dict[Target, dict[str, Floats]]

    def __len__(self) -> int:
        return len(self.p_up)


def logit(p: Floats) -> Floats:
    """Return the log odds of probabilities, which are kept 1e-6 away from 0 and 1."""
    kept = np.minimum(np.maximum(p, _EPSILON), 1.0 - _EPSILON)  # np.clip takes five times as long on one value
    return np.asarray(np.log(kept) - np.log1p(-kept))


def sigmoid(z: Floats) -> Floats:
    """Return the probability of log odds."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def combine(spec: Spec, members: Mapping[str, Floats]) -> Floats:
    """Return ``intercept + Σ weight · forecast`` in the target's space: log odds for ``logit``."""
    forecasts = np.array([members[name] for name in spec["members"]])
    weights = np.array([[member["weight"]] for member in spec["members"].values()], dtype=np.float64)
    # Not a matrix product: its order of summation, and so the last digit, depends on how many rows there are.
    stacked: Floats = (weights * (logit(forecasts) if spec["space"] == "logit" else forecasts)).sum(axis=0)
    stacked += float(spec["intercept"])
    return stacked


def calibrate(calibrator: Spec, z: Floats) -> Floats:
    """Return probabilities of stacked log odds `z`."""
    if calibrator["kind"] == "platt":
        return sigmoid(float(calibrator["slope"]) * z + float(calibrator["intercept"]))
    if calibrator["kind"] == "isotonic":
        steps: Floats = np.interp(z, calibrator["x"], calibrator["y"])
        return steps
    return sigmoid(z)


def interval(conformal: Spec, centre: Floats, log_range: Floats) -> tuple[Floats, Floats]:
    """Return ``centre + quantile · scale``, the scale being 1 or the forecast volatility per bar."""
    scale = np.exp(log_range) if conformal["scale"] == "range" else 1.0
    return centre + float(conformal["low"]) * scale, centre + float(conformal["high"]) * scale


class Ensemble:
    """Nine graphs (models × targets) behind one call; any number of threads may share it."""

    def __init__(self, spec: Spec, sessions: Mapping[Target, Mapping[str, Any]]) -> None:
        self.spec = spec
        self.names = tuple(spec["schema"]["names"])
        self._sessions = sessions

    @classmethod
    def load(cls, files: Files, spec: Spec) -> Self:
        """Open every member of `spec`.

        Parameters
        ----------
        files
            A folder that holds ``<model>/<target>.onnx``, or the files' contents by that name: a verified bundle then
            opens exactly the bytes that were hashed.
        spec
            See the module.

        Raises
        ------
        BundleError
            If the specification is malformed, or a graph is missing, unreadable or of another width.
        """
        _check(spec)
        width = len(spec["schema"]["names"])
        sessions: dict[Target, dict[str, Any]] = {
            target: {
                name: _open(files, member["file"], width) for name, member in spec["targets"][target]["members"].items()
            }
            for target in TARGETS
        }
        return cls(spec, sessions)

    def forecast(self, x: NDArray[np.float32]) -> Forecast:
        """Return the forecasts of feature rows, float32 (n, d) in schema order.

        Raises
        ------
        ValueError
            If `x` has another type or width.
        """
        if x.ndim != 2 or x.dtype != np.float32 or x.shape[1] != len(self.names):
            raise ValueError(f"features must be float32 (n, {len(self.names)}), got {x.dtype} {x.shape}")
        whole = np.asarray(np.isfinite(x).all(axis=1))
        if whole.all():
            return self._apply(self._members(x))
        return _spread(self._apply(self._members(x[whole])), whole)

    def _members(self, x: NDArray[np.float32]) -> dict[Target, dict[str, Floats]]:
        feed = {"features": x}
        return {
            target: {name: session.run(None, feed)[0][:, 0].astype(np.float64) for name, session in group.items()}
            for target, group in self._sessions.items()
        }

    def _apply(self, members: dict[Target, dict[str, Floats]]) -> Forecast:
        targets = self.spec["targets"]
        stacked = {target: combine(targets[target], members[target]) for target in TARGETS}
        p_up = calibrate(targets["direction"]["calibrator"], stacked["direction"])
        ret_low, ret_high = interval(targets["return"]["conformal"], stacked["return"], stacked["range"])
        range_low, range_high = interval(targets["range"]["conformal"], stacked["range"], stacked["range"])
        return Forecast(p_up, stacked["return"], ret_low, ret_high, stacked["range"], range_low, range_high, members)


def _spread(part: Forecast, whole: NDArray[np.bool_]) -> Forecast:
    """Return `part`, whose rows are those of `whole`, at all rows, NaN elsewhere."""

    def place(values: Floats) -> Floats:
        full = np.full(len(whole), np.nan)
        full[whole] = values
        return full

    arrays = {f.name: place(getattr(part, f.name)) for f in fields(part) if f.name != "members"}
    members = {target: {name: place(v) for name, v in group.items()} for target, group in part.members.items()}
    return Forecast(**arrays, members=members)


def _check(spec: Spec) -> None:
    """Raise BundleError unless `spec` has everything that `Ensemble` reads, with finite numbers."""
    if spec.get("format") != FORMAT:
        raise BundleError(f"an ensemble of format {FORMAT} is needed, got {spec.get('format')!r}")
    try:
        numbers = [float(spec["coverage"])]
        numbers.append(len(spec["schema"]["names"]))
        for target in TARGETS:
            part = spec["targets"][target]
            numbers += [float(part["intercept"]), *(float(member["weight"]) for member in part["members"].values())]
            if not part["members"] or part["space"] != ("logit" if target == "direction" else "identity"):
                raise BundleError(f"the ensemble's {target} has no members or an unknown space {part['space']!r}")
            numbers += _conformal(part) if target != "direction" else _calibrator(part["calibrator"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"the ensemble's specification is malformed: {type(error).__name__} {error}") from None
    if not np.isfinite(numbers).all():
        raise BundleError("the ensemble's specification holds a number that is not finite")


def _conformal(part: Spec) -> list[float]:
    conformal = part["conformal"]
    if conformal["scale"] not in ("range", "none") or conformal["low"] > conformal["high"]:
        raise BundleError(f"an interval needs scale range or none and low ≤ high, got {dict(conformal)}")
    return [float(conformal["low"]), float(conformal["high"])]


def _calibrator(calibrator: Spec) -> list[float]:
    kind = calibrator["kind"]
    if kind == "platt":
        return [float(calibrator["slope"]), float(calibrator["intercept"])]
    if kind == "isotonic" and len(calibrator["x"]) == len(calibrator["y"]) > 0:
        return [float(value) for value in (*calibrator["x"], *calibrator["y"])]
    if kind == "none":
        return []
    raise BundleError(f"calibrator must be platt, isotonic (x and y of one length) or none, got {kind!r}")


def _open(files: Files, name: str, width: int) -> Any:
    import onnxruntime

    try:
        content = (files / name).read_bytes() if isinstance(files, Path) else files[name]
    except (OSError, KeyError):
        raise BundleError(f"the ensemble's member {name} is missing") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (source,), (sink,) = session.get_inputs(), session.get_outputs()
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise BundleError(f"the ensemble's member {name} is not a readable graph: {_first_line(error)}") from None
    if (source.name, sink.name) != ("features", "forecast") or source.shape[1] != width:
        raise BundleError(f"{name} must map features (n, {width}) to forecast, got {source.name} {source.shape}")
    return session


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
