"""A small synthetic market, and parameters under which a simulation takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bundles import REPOSITORY
from tradeloop.config import Params, load_params
from tradeloop.features import feature_lookback
from tradeloop.simulation.world import World, build_world

WARM_UP = 1_200
QUICK: dict[str, dict[str, Any]] = {
    "split": {"folds": 2, "min_train": 0.5},
    "evaluate": {"bootstrap": 100},
    "gate": {"max_direction_auc": 0.95, "min_range_r2": -0.5, "min_holdout_rows": 100, "max_direction_ece": 0.3},
    "simulate": {"warm_up": WARM_UP},
    "drift": {"min_rows": 100},
    "performance": {"every": 200},
}


def parameters(
    *, bars: int, drift_after: int | None = None, accuracy: float = 0.75, **changes: dict[str, Any]
) -> Params:
    """Return the parameters of a synthetic market with so many bars behind the warm-up."""
    raw = load_params(REPOSITORY / "params.yaml").model_dump()
    raw["market"] = "synthetic"
    first = WARM_UP + feature_lookback(Params.model_validate(raw))
    planted = raw["markets"]["synthetic"]["synthetic"]
    planted |= {"bars": first + bars + 1, "bayes_accuracy": accuracy}
    if drift_after is not None:
        planted |= {"drift_bar": first + drift_after, "drift": "sign_flip"}
    raw["train"]["xgboost"] |= {"n_estimators": 40, "learning_rate": 0.1}
    for block, values in (*QUICK.items(), *changes.items()):
        raw[block] |= values
    return Params.model_validate(raw)


@pytest.fixture(scope="session")
def still() -> tuple[Params, World]:
    """Return a market without drift, 240 bars behind the warm-up."""
    params = parameters(bars=240)
    return params, build_world(params, root=REPOSITORY)
