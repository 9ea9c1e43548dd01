"""What proves an edge, target by target, at the ends of the intervals."""

from __future__ import annotations

from typing import Any

import pytest

from tradeloop.evaluate.edge import prove


def score(low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": None if low is None or high is None else (low + high) / 2, "low": low, "high": high}


def scores(metric: str, skill: Any, loss: str, differences: dict[str, Any]) -> dict[str, Any]:
    return {
        "metrics": {metric: score(*skill)},
        "differences": {name: {loss: score(*ends)} for name, ends in differences.items()},
    }


def direction(skill: Any, majority: Any) -> dict[str, Any]:
    return prove("direction", scores("auc", skill, "log_loss", {"majority": majority}), range_baselines=["ewma"])


@pytest.mark.parametrize(
    ("skill", "majority", "proven"),
    [
        ((0.51, 0.55), (-0.02, -0.01), True),
        ((0.50, 0.55), (-0.02, -0.01), False),  # chance is the end of the interval
        ((0.40, 0.45), (-0.02, -0.01), False),  # below chance is no edge
        ((0.51, 0.55), (-0.02, 0.0), False),
        ((0.51, 0.55), (0.01, 0.02), False),
        ((None, None), (-0.02, -0.01), False),
        ((0.51, 0.55), (None, None), False),
    ],
)
def test_direction_needs_ranking_and_probabilities(skill: Any, majority: Any, proven: bool) -> None:
    assert direction(skill, majority)["proven"] is proven


@pytest.mark.parametrize(
    ("skill", "mean", "proven"),
    [
        ((0.01, 0.05), (-0.1, 0.1), True),
        ((0.01, 0.05), (0.01, 0.1), False),  # the order is right, the size makes it worse than a constant
        ((0.0, 0.05), (-0.1, 0.1), False),
        ((0.01, 0.05), (None, None), False),
    ],
)
def test_return_needs_order_and_a_size_that_does_no_harm(skill: Any, mean: Any, proven: bool) -> None:
    found = prove("return", scores("ic", skill, "rmse", {"mean": mean}), range_baselines=["ewma"])
    assert found["proven"] is proven


@pytest.mark.parametrize(
    ("skill", "ewma", "har", "names", "proven"),
    [
        ((0.2, 0.4), (-0.2, -0.1), (-0.1, 0.1), ["ewma"], True),
        ((0.2, 0.4), (-0.2, -0.1), (-0.1, 0.1), ["ewma", "har"], False),
        ((0.2, 0.4), (-0.2, 0.1), (-0.2, -0.1), ["ewma"], False),
        ((-0.1, 0.4), (-0.2, -0.1), (-0.2, -0.1), ["ewma"], False),
    ],
)
def test_range_needs_every_named_baseline_beaten(
    skill: Any, ewma: Any, har: Any, names: list[str], proven: bool
) -> None:
    found = prove("range", scores("r2", skill, "rmse", {"ewma": ewma, "har": har}), range_baselines=names)
    assert found["proven"] is proven
    assert found["baseline"] == names


def test_the_reasons_read_as_sentences() -> None:
    found = direction((0.51, 0.55), (-0.002, 0.001))
    assert [check["text"] for check in found["checks"]] == [
        "AUC is above 0.5: 0.530 [0.510, 0.550]",
        "log loss is not proven to be below that of the majority class: difference -0.0005 [-0.0020, 0.0010]",
    ]
    assert found["interval"] == [0.51, 0.55]
