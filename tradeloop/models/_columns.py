"""A fitted model of some columns, which reads whole feature rows: in training and, inside its graph, in service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tradeloop.bars import Floats
from tradeloop.models.base import Features, Model
from tradeloop.models.onnx import on_columns, save
from tradeloop.splits import Rows


@dataclass(frozen=True)
class OnColumns:
    """A forecaster that shows `model` only its `columns`, positions in rows of `width` features."""

    model: Model[Any]
    columns: Rows
    width: int

    def predict(self, x: Features) -> Floats:
        """Return the forecasts of finite float32 rows (n, width) as float64 (n,)."""
        return self.model.predict(x[:, self.columns])

    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx`` for whole rows; a native format beside it has the model's own columns."""
        self.model.export(folder)
        path = folder / f"{self.model.target}.onnx"
        save(on_columns(onnx.load_from_string(path.read_bytes()), self.columns), path, self.width)
