"""What a model is: typed hyperparameters, fit, predict, export, and a search space."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Block, Target
from tradeloop.errors import ModelError
from tradeloop.splits import Fold

Features = NDArray[np.float32]
P = TypeVar("P", bound=Block)


class Trial(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a value in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole value in [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Return one of the choices."""


@dataclass(frozen=True)
class Real:
    """A real hyperparameter searched over [low, high], widened to hold the value the search starts from."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, key: str, start: Any) -> Any:
        """Return the trial's value."""
        return trial.suggest_float(key, min(self.low, start), max(self.high, start), log=self.log)

    def encode(self, value: Any) -> Any:
        """Return a value as Optuna holds it."""
        return float(value)


@dataclass(frozen=True)
class Whole:
    """A whole hyperparameter searched over [low, high], widened likewise."""

    low: int
    high: int
    log: bool = False

    def suggest(self, trial: Trial, key: str, start: Any) -> Any:
        """Return the trial's value."""
        return trial.suggest_int(key, min(self.low, start), max(self.high, start), log=self.log)

    def encode(self, value: Any) -> Any:
        """Return a value as Optuna holds it."""
        return int(value)


@dataclass(frozen=True)
class Choice:
    """A hyperparameter searched over a few values that JSON can write."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, key: str, start: Any) -> Any:
        """Return the trial's value."""
        written = dict.fromkeys([*map(self.encode, self.values), self.encode(start)])
        return json.loads(trial.suggest_categorical(key, list(written)))

    def encode(self, value: Any) -> Any:
        """Return a value as Optuna holds it."""
        return json.dumps(value)


Space = Real | Whole | Choice


class Forecaster(Protocol):
    """What a fit gives: forecasts of whole feature rows, and their graph."""

    def predict(self, x: Features) -> Floats:
        """Return the forecasts of finite float32 rows (n, d) as float64 (n,)."""

    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx``, which reads whole rows too, and maybe the model in a format of its own."""


class Model(ABC, Generic[P]):
    """A forecaster of one target from a feature row.

    `fit` and `predict` check their arrays and leave the work to `_fit` and `_predict`. Forecasts are the probability
    of up for ``direction``, the gross log return for ``return``, the log of the volatility per bar for ``range``.

    Attributes
    ----------
    params_type
        The class of its hyperparameters.
    space
        What a search may move, and how far.
    early_stopping
        Whether `fit` needs `early`, a purged split of the training rows.
    seeded
        Whether the fit draws by chance; False: every seed gives the same model.
    """

    params_type: ClassVar[type[Block]]
    space: ClassVar[Mapping[str, Space]]
    early_stopping: ClassVar[bool] = False
    seeded: ClassVar[bool] = True

    def __init__(self, target: Target, params: P, *, seed: int) -> None:
        if target not in TARGETS:
            raise ModelError(f"target must be one of {TARGETS}, got {target!r}")
        self.target = target
        self.params = params
        self.seed = seed
        self.width = 0

    def fit(self, x: Features, y: Floats, *, early: Fold | None = None) -> Self:
        """Fit on training rows; the same rows, hyperparameters and seed give the same model.

        Parameters
        ----------
        x
            float32 (n, d), finite.
        y
            float64 (n,), finite; 0 or 1 for direction.
        early
            Positions among the n rows to fit on and to stop early by; needed if `early_stopping`, else unused.

        Raises
        ------
        ModelError
            If the rows break these rules.
        """
        self._check(x)
        if y.shape != (len(x),) or not np.isfinite(y).all() or not np.isfinite(x).all():
            raise ModelError(f"training needs finite rows, and one finite label each, got {x.shape} and {y.shape}")
        if self.target == "direction" and set(np.unique(y)) != {0.0, 1.0}:
            raise ModelError(f"direction needs labels 0 and 1, both present, got {np.unique(y)[:5].tolist()}")
        if self.early_stopping and early is None:
            raise ModelError(f"{type(self).__name__} stops early and needs a validation split")
        self.width = x.shape[1]
        self._fit(x, y, early)
        return self

    def predict(self, x: Features) -> Floats:
        """Return the forecasts of finite float32 rows (n, d) as float64 (n,)."""
        if not self.width:
            raise ModelError(f"{type(self).__name__} is not fitted")
        self._check(x)
        if x.shape[1] != self.width:
            raise ModelError(f"fitted on {self.width} features, got {x.shape[1]}")
        return np.asarray(self._predict(x), dtype=np.float64).reshape(len(x))

    @abstractmethod
    def _fit(self, x: Features, y: Floats, early: Fold | None) -> None: ...

    @abstractmethod
    def _predict(self, x: Features) -> NDArray[Any]: ...

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write ``<target>.onnx`` and, where the model has a safe format of its own, that beside it."""

    @classmethod
    def search_space(cls, trial: Trial, base: P, keys: Sequence[str]) -> P:
        """Return `base` with the hyperparameters `keys` moved to where the trial says."""
        moved = {key: cls._distribution(key).suggest(trial, key, getattr(base, key)) for key in keys}
        return base.model_validate(base.model_dump() | moved)

    @classmethod
    def start(cls, base: P, keys: Sequence[str]) -> dict[str, Any]:
        """Return the trial that stands at `base`."""
        return {key: cls._distribution(key).encode(getattr(base, key)) for key in keys}

    @classmethod
    def _distribution(cls, key: str) -> Space:
        if key not in cls.space:
            raise ModelError(f"{cls.__name__} can be tuned in {sorted(cls.space)}, got {key!r}")
        return cls.space[key]

    @staticmethod
    def _check(x: Features) -> None:
        if x.ndim != 2 or x.dtype != np.float32:
            raise ModelError(f"features must be float32 (n, d), got {x.dtype} {x.shape}")
