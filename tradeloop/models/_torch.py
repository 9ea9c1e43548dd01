"""The only torch training loop, and the modules that keep a net's scaling inside its graph.

Everything runs on one CPU thread: small nets gain nothing from more, and sums keep their order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tradeloop.bars import Floats
from tradeloop.models.base import Features
from tradeloop.splits import Fold

_CLIP = 5.0
_MAD_TO_SIGMA = 1.4826  # of a normal variable


class Standardise(nn.Module):  # type: ignore[misc]  # torch is untyped here (mypy skips it)
    """Centre on the median, scale by the median absolute deviation, clip at five deviations.

    Both are taken from fitting rows only. A feature whose deviation is zero (a flag) is scaled by its standard
    deviation, a constant one by 1.
    """

    def __init__(self, x: Features) -> None:
        super().__init__()
        centre = np.median(x, axis=0)
        scale = _MAD_TO_SIGMA * np.median(np.abs(x - centre), axis=0)
        scale = np.where(scale > 0, scale, x.std(axis=0, dtype=np.float64))
        scale = np.where(scale > 0, scale, 1.0)
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32))
        self.register_buffer("factor", torch.tensor(1.0 / scale, dtype=torch.float32))

    def forward(self, x: Any) -> Any:
        """Map (n, d) to (n, d) in [-5, 5]."""
        return torch.clamp((x - self.centre) * self.factor, -_CLIP, _CLIP)


class Rescale(nn.Module):  # type: ignore[misc]  # torch is untyped here (mypy skips it)
    """Undo the scaling of the label: ``centre + scale · z``."""

    def __init__(self, y: Floats) -> None:
        super().__init__()
        self.register_buffer("centre", torch.tensor(float(y.mean()), dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(float(y.std()) or 1.0, dtype=torch.float32))

    def forward(self, z: Any) -> Any:
        """Map scaled forecasts (n, 1) to the label's unit."""
        return self.centre + self.scale * z

    def inverse(self, y: Any) -> Any:
        """Map labels (n, 1) to the scale that the net is trained on."""
        return (y - self.centre) / self.scale


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW, shuffled batches, early stopping on the validation loss."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    seed: int


def train(net: Any, loss: Any, x: Any, y: Any, *, early: Fold, recipe: Recipe) -> None:
    """Train `net` in place, and leave it with the weights of its best epoch on the validation rows; none may be best.

    1. Run over the fitting rows in shuffled batches, the last partial batch included.
    2. Score the validation rows without dropout and without gradients.
    3. Stop after `patience` epochs without a better score.

    Parameters
    ----------
    net
        Maps (n, d) to (n, 1).
    loss
        Maps (outputs, labels), both (n, 1), to a mean.
    x, y
        Tensors (n, d) and (n, 1), float32.
    """
    shuffle = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    fit_x, fit_y = x[early.train], y[early.train]
    best = validate(net, loss, x[early.test], y[early.test])
    best_state, since = copy.deepcopy(net.state_dict()), 0
    for _ in range(recipe.max_epochs):
        net.train()
        for batch in torch.randperm(len(fit_x), generator=shuffle).split(recipe.batch_size):
            optimiser.zero_grad()
            loss(net(fit_x[batch]), fit_y[batch]).backward()
            optimiser.step()
        score = validate(net, loss, x[early.test], y[early.test])
        since += 1
        if score < best:
            best, best_state, since = score, copy.deepcopy(net.state_dict()), 0
        if since >= recipe.patience:
            break
    net.load_state_dict(best_state)
    net.eval()


def validate(net: Any, loss: Any, x: Any, y: Any) -> float:
    """Return the loss of `net` in evaluation mode, without gradients."""
    net.eval()
    with torch.no_grad():
        return float(loss(net(x), y))
