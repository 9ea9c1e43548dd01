"""Multilayer perceptron in torch; the scaling of features and label is part of the net."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tradeloop.atomic import write_bytes
from tradeloop.bars import Floats
from tradeloop.config import MLPParams
from tradeloop.ensemble import logit
from tradeloop.models.base import Choice, Features, Model, Real, Space, Whole
from tradeloop.splits import Fold


class MLP(Model[MLPParams]):
    """Linear layers with SiLU and dropout: logistic loss for direction, squared error for return and range."""

    params_type = MLPParams
    early_stopping = True
    space: ClassVar[Mapping[str, Space]] = {
        "hidden": Choice(([32], [64, 32], [128, 64])),
        "dropout": Real(0.0, 0.6),
        "learning_rate": Real(3e-4, 1e-2, log=True),
        "weight_decay": Real(1e-4, 1.0, log=True),
        "batch_size": Whole(64, 1024, log=True),
        "max_epochs": Whole(5, 200, log=True),
        "patience": Whole(2, 30),
        "validation": Real(0.05, 0.4),
    }

    def _fit(self, x: Features, y: Floats, early: Fold | None) -> None:
        import torch
        from torch import nn

        from tradeloop.models._torch import Recipe, Rescale, Standardise, train

        assert early is not None  # Model.fit refuses to come here without
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            body = self._body(
                x.shape[1], base=float(logit(y[early.train].mean())) if self.target == "direction" else 0.0
            )
            features = torch.from_numpy(np.ascontiguousarray(x))
            labels = torch.tensor(y, dtype=torch.float32)[:, None]
            standardise = Standardise(x[early.train])
            if self.target == "direction":
                head: Any = nn.Sigmoid()
                loss: Any = nn.BCEWithLogitsLoss()
            else:
                head = Rescale(y[early.train])
                loss, labels = nn.MSELoss(), head.inverse(labels)
            recipe = Recipe(**self.params.model_dump(exclude={"hidden", "dropout", "validation"}), seed=self.seed)
            train(body, loss, standardise(features), labels, early=early, recipe=recipe)
        self._net = nn.Sequential(standardise, body, head).eval()

    def _body(self, width: int, *, base: float) -> Any:
        """Return the layers; untrained they say `base` whatever they see, so that stopping at once means no edge."""
        from torch import nn

        layers: list[Any] = []
        sizes = [width, *self.params.hidden]
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU(), nn.Dropout(self.params.dropout)]
        last = nn.Linear(sizes[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, base)
        return nn.Sequential(*layers, last)

    def _predict(self, x: Features) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            return np.asarray(self._net(torch.from_numpy(np.ascontiguousarray(x))).numpy())

    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx``, and the weights as ``<target>.safetensors``."""
        from safetensors.torch import save

        from tradeloop.models.onnx import from_torch
        from tradeloop.models.onnx import save as save_graph

        save_graph(from_torch(self._net, self.width), folder / f"{self.target}.onnx", self.width)
        write_bytes(folder / f"{self.target}.safetensors", save(self._net.state_dict()))
