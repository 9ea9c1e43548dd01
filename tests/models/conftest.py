from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.matrices import planted
from tradeloop.config import TARGETS, Block, Target
from tradeloop.dataset import Matrix
from tradeloop.models import available, open_model
from tradeloop.models.base import Model
from tradeloop.splits import Fold, tail_validation

# Small enough to fit in a moment, strong enough to learn what is planted.
QUICK: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 30, "max_depth": 6, "min_samples_leaf": 10, "max_features": 0.6},
    "xgboost": {"n_estimators": 40, "learning_rate": 0.1, "min_child_weight": 5.0, "reg_lambda": 1.0},
    "mlp": {"hidden": [16], "dropout": 0.1, "learning_rate": 0.02, "max_epochs": 25},
}


def quick(name: str, **changes: Any) -> Block:
    return open_model(name).params_type.model_validate(QUICK.get(name, {}) | changes)


def early(matrix: Matrix, rows: slice) -> Fold:
    return tail_validation(matrix.timestamp[rows], matrix.label_end[rows], share=0.2, embargo=2)


def fitted(name: str, target: Target, matrix: Matrix, *, rows: int = 900, seed: int = 5, **changes: Any) -> Model[Any]:
    """Fit on the first rows of a matrix."""
    model = open_model(name)(target, quick(name, **changes), seed=seed)
    used = slice(0, rows)
    return model.fit(matrix.x[used], matrix.y[target][used], early=early(matrix, used))


@pytest.fixture(scope="session")
def matrix() -> Matrix:
    made = planted(bars=500)
    # Two neighbouring float32 values that the label tells apart: the midpoint between them is no float32, and rounds to
    # the nearest even one, which is the upper.
    flag = np.random.default_rng(1).random(len(made.x)) < 0.5
    low, high = np.float32(1) + np.finfo(np.float32).eps * np.arange(1, 3, dtype=np.float32)
    made.x[:, 5] = np.where(flag, high, low)
    for target, step in (("return", 0.02), ("range", 1.0)):
        made.y[target] += step * flag
    made.y["direction"][flag] = 1.0
    return made


@pytest.fixture(params=available())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return request.param
