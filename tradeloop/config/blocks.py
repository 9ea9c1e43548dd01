"""The blocks of params.yaml, one a stage, and the service's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from tradeloop.config.base import Block, Count, NonNegative, Positive, RangeBaseline, Share, Target, parse_interval
from tradeloop.config.selection import Discovered

Mark = Literal["split", "jump", "stale", "zero_volume", "restated", "off_grid", "drift", "irregular"]
MARKS: tuple[Mark, ...] = get_args(Mark)
"""Rules whose bars the check stage marks where it keeps them."""


class Ingest(Block):
    """Which part of the series to read; dates are UTC days, quoted in YAML."""

    start: datetime | None = None
    end: datetime | None = None


class Refetch(Block):
    """How often, and for how many gaps, a source is asked again; 0 attempts: never."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 3
    backoff: NonNegative = 0.5
    gaps: Count = 20


class Check(Block):
    """Rules for admitting series, and days of them."""

    min_score: Annotated[float, Field(ge=0, le=100)] = 80
    min_bars: Count = 300
    jump_z: Positive = 12.0
    drop: list[Literal["duplicate", "zero_volume", "partial_bar"]] = ["duplicate", "partial_bar"]
    exclude_marked: list[Mark] = []
    twin_correlation: Share = 0.995
    refetch: Refetch = Refetch()


class Features(Block):
    """Which families of features to compute.

    Of a family of which `columns` names any, only those are computed; of the other families all, as without `columns`.
    """

    families: Annotated[list[str], Field(min_length=1)]
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    discovered: Discovered = Discovered()


class Compute(Block):
    """Where work that is done symbol by symbol runs; the results are the same, bit for bit."""

    backend: Literal["local", "ray"] = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] = 2


class Labels(Block):
    """What is forecast: entry, horizon in bars, and the measure of range."""

    entry: Literal["close", "next_open"] = "next_open"
    horizon: Count = 1
    range: Literal["parkinson", "realised"] = "parkinson"


class Store(Block):
    """The feature store."""

    ttl: str = "10d"

    @field_validator("ttl")
    @classmethod
    def _ttl(cls, value: str) -> str:
        parse_interval(value)
        return value


class Dataset(Block):
    """The training matrix."""

    start: datetime | None = None
    end: datetime | None = None


class Split(Block):
    """Walk-forward splits; lengths are in bars of the market (distinct timestamps), shares of all of them."""

    holdout: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    mode: Literal["expanding", "rolling"] = "expanding"
    min_train: Annotated[float, Field(gt=0, lt=0.9)] = 0.35
    embargo: Annotated[int, Field(ge=0)] = 5


class RandomForestParams(Block):
    """Hyperparameters of the random forest (scikit-learn's names)."""

    n_estimators: Count = 100
    max_depth: Count = 8
    min_samples_leaf: Count = 40
    max_features: Share = 0.2
    max_samples: Share = 0.3


class XGBoostParams(Block):
    """Hyperparameters of gradient boosting (XGBoost's names)."""

    n_estimators: Count = 200
    max_depth: Annotated[int, Field(ge=1, le=16)] = 3
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.02
    min_child_weight: NonNegative = 40
    subsample: Annotated[float, Field(gt=0, le=1)] = 0.6
    colsample_bytree: Annotated[float, Field(gt=0, le=1)] = 0.4
    reg_lambda: NonNegative = 20.0


class MLPParams(Block):
    """Hyperparameters of the multilayer perceptron."""

    hidden: Annotated[list[Count], Field(min_length=1, max_length=8)] = [64, 32]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.002
    weight_decay: NonNegative = 0.1
    batch_size: Count = 256
    max_epochs: Count = 40
    patience: Count = 6
    validation: Share = 0.15


class Keep(Block):
    """Targets that are not trained anew: their members are taken from the bundle with this hash."""

    bundle: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    targets: list[Target] = []

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.targets and self.bundle is None:
            raise ValueError(f"keep.targets need keep.bundle to take them from, got {self.targets} and no bundle")
        return self


class Train(Block):
    """Hyperparameters by model; those that `tune` searches start from these."""

    keep: Keep = Keep()
    random_forest: RandomForestParams = RandomForestParams()
    xgboost: XGBoostParams = XGBoostParams()
    mlp: MLPParams = MLPParams()


class Tune(Block):
    """Optuna's budget, and which hyperparameters it may move; the others stay as `train` has them."""

    trials: Annotated[int, Field(ge=1)] = 4
    folds: Annotated[int, Field(ge=1)] = 2
    random_forest: list[str] = []
    xgboost: list[str] = []
    mlp: list[str] = []


class Stack(Block):
    """The ensemble, its calibration and its intervals."""

    l2: NonNegative = 3.0
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    coverage: Share = 0.9


class Evaluate(Block):
    """The one look at the holdout. Costs are in basis points of traded value, one way."""

    cost_bps: NonNegative = 5.0
    threshold: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    block: Count = 20
    confidence: Share = 0.95
    suspicious_auc: Annotated[float, Field(gt=0.5, le=1)] = 0.56
    range_baselines: Annotated[list[RangeBaseline], Field(min_length=1)] = ["previous", "ewma"]


class Gate(Block):
    """Absolute thresholds and the comparisons that a challenger must stand."""

    min_holdout_rows: Count = 200
    max_direction_ece: Share = 0.1
    min_range_r2: Annotated[float, Field(gt=-1, lt=1)] = 0.2
    max_coverage_error: Share = 0.05
    max_direction_auc: Annotated[float, Field(gt=0.5, le=1)] = 0.62
    champion_tolerance: NonNegative = 0.02
    min_common_rows: Count = 100


class Package(Block):
    """The bundle and the Bento."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")] = "tradeloop"
    build_bento: bool = True


class Publish(Block):
    """What happens once a bundle has passed."""

    promote: bool = True


class Serving(Block):
    """The service; read at start, not by the pipeline."""

    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = "127.0.0.1:16379"
    database_url: str | None = None
    max_symbols: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    min_edge_bps: NonNegative = 0.0
    challenger_budget_ms: Positive = 250.0
    challenger_queue: Count = 2000
