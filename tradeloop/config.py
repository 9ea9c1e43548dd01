"""params.yaml as frozen, typed models: an unknown or out-of-range key is one clear line."""

from __future__ import annotations

import difflib
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tradeloop.errors import ConfigError

Target = Literal["direction", "return", "range"]
ModelName = Literal["random_forest", "xgboost", "mlp"]
RangeBaseline = Literal["mean", "previous", "ewma", "har"]
TARGETS: tuple[Target, ...] = get_args(Target)
MODELS: tuple[ModelName, ...] = get_args(ModelName)

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

_INTERVAL = re.compile(r"^(\d+)(m|h|d)$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_interval(text: str) -> timedelta:
    """Return the span that ``15m``, ``1h`` or ``5d`` names.

    Examples
    --------
    >>> parse_interval("15m")
    datetime.timedelta(seconds=900)
    """
    match = _INTERVAL.match(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"an interval is a positive whole number and m, h or d (15m, 1h, 5d), got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Block(BaseModel):
    """Base of every block: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SyntheticMarket(Block):
    """What `sources.synthetic` plants; see its docstring for the generating equations."""

    bars: Count = 80_000
    bayes_accuracy: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    regimes: bool = False
    drift_bar: int | None = Field(default=None, ge=1)
    drift: Literal["sign_flip", "fading_edge", "new_regime", "volatility_jump"] = "sign_flip"
    start: datetime = datetime.fromisoformat("2000-01-03T00:00:00+00:00")


class FileMarket(Block):
    """Where `sources.files` finds its files and what their columns are called.

    `timestamp_format` is a strptime format, or ``s``, ``ms`` or ``us`` for whole numbers since 1970; null means ISO 8601.
    """

    path: str
    context_path: str | None = None
    timestamp: str = "timestamp"
    timestamp_format: str | None = None
    stamped_at: Literal["open", "close"] = "close"
    timezone: str = "UTC"
    columns: dict[Literal["open", "high", "low", "close", "volume", "adj_close"], str] = {}


class Market(Block):
    """One market: which series, from where, on which calendar."""

    source: Literal["bundled", "files", "synthetic"]
    symbols: Annotated[list[str], Field(min_length=1)]
    context: list[str] = []
    calendar: str
    interval: str
    clock: Literal["live", "replay"] = "replay"
    max_age: str = "5d"
    files: FileMarket | None = None
    synthetic: SyntheticMarket = SyntheticMarket()

    @field_validator("interval", "max_age")
    @classmethod
    def _interval(cls, value: str) -> str:
        parse_interval(value)
        return value

    @field_validator("symbols", "context")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", name):
                raise ValueError(f"a symbol is 1 to 32 letters, digits, '_', '.' or '-', got {name!r}")
        if len(set(value)) != len(value):
            raise ValueError(f"each symbol may be named once, got {value}")
        return value

    @model_validator(mode="after")
    def _files(self) -> Self:
        if self.source == "files" and self.files is None:
            raise ValueError("source: files needs a files: block that says where they are")
        return self


class Ingest(Block):
    """Which part of the series to read; dates are UTC days, quoted in YAML."""

    start: datetime | None = None
    end: datetime | None = None


class Check(Block):
    """Rules for admitting a series."""

    min_score: Annotated[float, Field(ge=0, le=100)] = 80
    min_bars: Count = 300
    jump_z: Positive = 12.0
    drop: list[Literal["duplicate", "zero_volume", "partial_bar"]] = ["duplicate", "partial_bar"]


class Features(Block):
    """Which families of features to compute."""

    families: Annotated[list[str], Field(min_length=1)]


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
    max_samples: Share = 0.4


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


class Train(Block):
    """Hyperparameters by model; those that `tune` searches start from these."""

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


class Params(Block):
    """The whole of params.yaml."""

    market: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    markets: Annotated[dict[str, Market], Field(min_length=1)]
    ingest: Ingest = Ingest()
    check: Check = Check()
    features: Features
    labels: Labels = Labels()
    store: Store = Store()
    dataset: Dataset = Dataset()
    split: Split = Split()
    tune: Tune = Tune()
    train: Train = Train()
    stack: Stack = Stack()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    package: Package = Package()
    publish: Publish = Publish()
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _market_is_declared(self) -> Self:
        if self.market not in self.markets:
            raise ValueError(f"market must be one of {sorted(self.markets)}, got {self.market!r}")
        for name in MODELS:
            known = list(type(getattr(self.train, name)).model_fields)
            for key in getattr(self.tune, name):
                if key not in known:
                    raise ValueError(f"tune.{name} may name {known}, got {key!r}{_nearest(key, known)}")
        return self

    @property
    def active(self) -> Market:
        """The market that the pipeline runs on."""
        return self.markets[self.market]


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Return the keys that the block at `location` knows."""
    block: Any = Params
    for part in location:
        if isinstance(block, type) and issubclass(block, BaseModel):
            field = block.model_fields.get(str(part))
            block = field.annotation if field else None
        elif block is not None:
            block = next((a for a in get_args(block) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if block is not None and not isinstance(block, type):
            inner = [a for a in get_args(block) if isinstance(a, type) and issubclass(a, BaseModel)]
            block = inner[0] if len(inner) == 1 and type(None) in get_args(block) else block
    return list(block.model_fields) if isinstance(block, type) and issubclass(block, BaseModel) else []


def _explain(error: ValidationError) -> str:
    """Return one line for the first problem, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _known_keys(first["loc"][:-1])
        text = f"unknown key {where!r}{_nearest(key, known)} (known: {', '.join(known)})"
    elif first["type"] == "value_error":
        text = f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    else:
        text = f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"
        if first["type"] != "missing":
            text += f", got {first['input']!r}"
    more = len(problems) - 1
    return text + (f" (and {more} more)" if more else "")


def load_params(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    ConfigError
        One line that names the file, the key, the value and the rule.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of stage names to blocks, got {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {_explain(error)}") from None
