"""Computing a logged prediction again: from the log, the very bundle that made it, and what was learned by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.adaptation import Adaptation
from tradeloop.bars import Times
from tradeloop.bundle import FORECASTS, TOLERANCE, Bundle
from tradeloop.errors import BundleError
from tradeloop.prediction_log import read_prediction
from tradeloop.predictor import Predictor
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database


@dataclass(frozen=True)
class Difference:
    """A field that came out otherwise than it was logged."""

    field: str
    logged: Any
    recomputed: Any


@dataclass(frozen=True)
class Replay:
    """A logged prediction beside the same prediction computed again.

    Attributes
    ----------
    error
        Largest absolute difference of a number.
    differences
        Numbers that differ by more than 1e-6, and any other field that differs.
    """

    logged: dict[str, Any]
    recomputed: dict[str, Any]
    error: float
    differences: list[Difference]

    @property
    def matches(self) -> bool:
        """Whether the log and the model agree."""
        return not self.differences


@dataclass(frozen=True)
class _Row:
    """The logged feature row, as a store would return it."""

    vectors: NDArray[np.float32]
    feature_time: Times
    found: NDArray[np.bool_]


def replay(prediction_id: str, database: Database, bundle_of: Callable[[str], Bundle]) -> Replay:
    """Compute a logged prediction again.

    Parameters
    ----------
    bundle_of
        Returns the bundle of a hash; `BundleStore.get`, as a rule.

    Raises
    ------
    StoreError
        No such prediction, no such snapshot of online adaptation, or no database.
    BundleError
        The bundle is gone, damaged, or of another schema than the log says.
    """
    logged = read_prediction(database, prediction_id)
    bundle = bundle_of(logged["model"])
    if logged["schema_hash"] != bundle.schema.hash:
        raise BundleError(f"prediction {prediction_id} was logged under another schema than its bundle's")
    at = logged["feature_time"]
    row = _Row(
        vectors=logged["features"][None, :],
        feature_time=np.array([None if at is None else at.astimezone(UTC).replace(tzinfo=None)], "datetime64[us]"),
        found=np.array([at is not None]),
    )
    (prediction,) = _predictor(bundle, logged, database).predict(
        [logged["symbol"]],
        row,
        now=logged["asked_at"],
        max_age=timedelta(seconds=logged["max_age"]),
        clock=logged["clock"],
    )
    exact = {"verdict": prediction.verdict, "reasons": list(prediction.reasons), "side": prediction.side}
    recomputed = {**{name: getattr(prediction, name) for name in (*FORECASTS, "edge")}, **exact}
    return _compare(logged, recomputed)


def _predictor(bundle: Bundle, logged: Mapping[str, Any], database: Database) -> Predictor:
    """Return the bundle's predictor with the very snapshot of online adaptation that was applied, if one was."""
    snapshot = logged["adaptation"]
    if snapshot is None:
        return Predictor(bundle)
    content = AdaptationStore(database, logged["market"]).get(snapshot)
    return Predictor(bundle, Adaptation.parse(content, spec=bundle.ensemble.spec), snapshot)


def _compare(logged: dict[str, Any], recomputed: dict[str, Any]) -> Replay:
    error, differences = 0.0, []
    for name, value in recomputed.items():
        before = logged[name]
        if isinstance(value, float) and isinstance(before, float):
            error = max(error, abs(value - before))
            equal = abs(value - before) <= TOLERANCE
        else:
            equal = value == before
        if not equal:
            differences.append(Difference(name, before, value))
    return Replay(logged, recomputed, error, differences)
