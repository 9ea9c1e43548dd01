"""Permutation importance finds what the market was made of."""

from __future__ import annotations

import numpy as np
import pytest

from tests.holdouts import Case
from tradeloop.config import TARGETS
from tradeloop.evaluate import importance
from tradeloop.evaluate.importance import permutation_importance


def test_the_planted_feature_comes_first(skilled: Case) -> None:
    table = skilled.judgement.plots["importance"]
    assert table[table["target"] == "direction"]["feature"].iloc[0] == "return_1"
    assert "parkinson" in table[table["target"] == "range"]["feature"].iloc[0]


def test_every_feature_once_a_target_in_order(honest: Case) -> None:
    table = honest.judgement.plots["importance"]
    for target in TARGETS:
        part = table[table["target"] == target]
        assert sorted(part["feature"]) == sorted(honest.holdout.schema.names)
        assert (np.diff(part["importance"]) <= 0).all()


def test_batches_do_not_change_it(honest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = permutation_importance(honest.holdout, 1)
    monkeypatch.setattr(importance, "_BATCH", 1)
    assert permutation_importance(honest.holdout, 1).equals(whole)


def test_another_seed_deals_otherwise(honest: Case) -> None:
    assert not permutation_importance(honest.holdout, 2).equals(permutation_importance(honest.holdout, 1))
