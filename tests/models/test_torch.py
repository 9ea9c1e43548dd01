from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tradeloop.models._torch import Recipe, Rescale, Standardise, train, validate
from tradeloop.splits import Fold

RECIPE = Recipe(learning_rate=0.05, weight_decay=0.0, batch_size=32, max_epochs=30, patience=30, seed=1)


def line(n: int = 200, *, noise: float = 1.0) -> tuple[Any, Any, Fold]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    y = x[:, :1] + noise * torch.randn(n, 1, generator=generator)
    cut = int(0.7 * n)
    return x, y, Fold(0, np.arange(cut), np.arange(cut, n))


def net() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))


def weights(module: Any) -> Any:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class Recorded(nn.Module):
    """A mean squared error that remembers its values, whether gradients were on, and the rows' numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, int, float]] = []

    def forward(self, z: Any, y: Any) -> Any:
        loss = ((z - y) ** 2).mean()
        self.calls.append((torch.is_grad_enabled(), len(z), loss.item()))
        return loss


def test_the_best_epoch_is_kept_not_the_last() -> None:
    x, y, early = line(60)
    module, loss = net(), Recorded()
    train(module, loss, x, y, early=early, recipe=RECIPE)
    scores = [value for gradients, _, value in loss.calls if not gradients]
    assert len(scores) == 31  # untrained, then each epoch
    assert min(scores) < scores[-1]
    assert validate(module, loss, x[early.test], y[early.test]) == min(scores)
    assert not module.training


def test_no_epoch_may_be_best() -> None:
    x, y, early = line(60)
    y[early.test] = 0.0  # the untrained net, which says nothing, is right
    module = net()
    nn.init.zeros_(module[-1].weight)
    nn.init.zeros_(module[-1].bias)
    before = copy.deepcopy(module.state_dict())
    train(module, nn.MSELoss(), x, y, early=early, recipe=RECIPE)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


def test_patience_stops() -> None:
    x, y, early = line(60)
    loss = Recorded()
    train(net(), loss, x, y, early=early, recipe=replace(RECIPE, patience=2))
    scores = [value for gradients, _, value in loss.calls if not gradients]
    assert len(scores) < 31
    assert int(np.argmin(scores)) == len(scores) - 3


def test_every_row_trains_once_an_epoch_the_last_partial_batch_too() -> None:
    x, y, early = line(100)  # 70 rows: batches of 32, 32 and 6
    loss = Recorded()
    train(net(), loss, x, y, early=early, recipe=replace(RECIPE, max_epochs=1))
    assert [size for gradients, size, _ in loss.calls if gradients] == [32, 32, 6]


def test_validation_has_no_dropout() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1)).train()
    x, y, _ = line(50)
    scores = {validate(module, nn.MSELoss(), x, y) for _ in range(5)}
    assert len(scores) == 1


def test_dropout_is_on_while_training() -> None:
    x, y, early = line(60)
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Any) -> Any:
            seen.append(self.training)
            return x

    module = nn.Sequential(Spy(), net())
    train(module, nn.MSELoss(), x, y, early=early, recipe=replace(RECIPE, max_epochs=2, batch_size=100))
    assert seen == [False, True, False, True, False]


def test_the_seed_orders_the_batches() -> None:
    x, y, early = line(100, noise=0.1)
    results = []
    for seed in (1, 1, 2):
        module = net()
        torch.manual_seed(len(results))  # whatever the global generator holds
        train(module, nn.MSELoss(), x, y, early=early, recipe=replace(RECIPE, max_epochs=3, seed=seed))
        results.append(weights(module))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_standardise_by_hand() -> None:
    # Median 3, absolute deviations 2 1 0 1 97, their median 1; a flag of standard deviation .4; a constant.
    x = np.array([[1, 0, 7], [2, 0, 7], [3, 0, 7], [4, 0, 7], [100, 1, 7]], dtype=np.float32)
    out = Standardise(x)(torch.from_numpy(x)).numpy()
    expected = (x[:, 0] - 3) / 1.4826
    np.testing.assert_allclose(out[:, 0], np.clip(expected, -5, 5), rtol=1e-6)
    np.testing.assert_allclose(out[:, 1], [0, 0, 0, 0, 2.5], rtol=1e-6)
    np.testing.assert_array_equal(out[:, 2], 0)


def test_rescale_goes_there_and_back() -> None:
    y = np.array([0.01, -0.02, 0.03])
    head = Rescale(y)
    labels = torch.tensor(y, dtype=torch.float32)[:, None]
    scaled = head.inverse(labels)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(head(scaled)[:, 0].numpy(), y, rtol=1e-5)
    constant = Rescale(np.full(3, 0.5))
    assert math.isfinite(constant.inverse(torch.tensor([[0.5]])).item())
