"""The whole of params.yaml, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from tradeloop.config.base import MODELS, Block
from tradeloop.config.blocks import (
    Check,
    Compute,
    Dataset,
    Evaluate,
    Features,
    Gate,
    Ingest,
    Labels,
    Package,
    Publish,
    Serving,
    Split,
    Stack,
    Store,
    Train,
    Tune,
)
from tradeloop.config.degradation import Degradation, Drift
from tradeloop.config.explain import explain, nearest
from tradeloop.config.loop import Adapt, Feedback, Loop, Paper, Retrain, Rollout, Simulate
from tradeloop.config.market import Market
from tradeloop.config.outcomes import Outcomes, Performance
from tradeloop.config.selection import Discovery, Selection
from tradeloop.config.stream import Stream
from tradeloop.config.triggers import Triggers
from tradeloop.errors import ConfigError


class Params(Block):
    """The whole of params.yaml."""

    market: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    markets: Annotated[dict[str, Market], Field(min_length=1)]
    ingest: Ingest = Ingest()
    check: Check = Check()
    features: Features
    compute: Compute = Compute()
    labels: Labels = Labels()
    store: Store = Store()
    dataset: Dataset = Dataset()
    split: Split = Split()
    selection: Selection = Selection()
    discovery: Discovery = Discovery()
    tune: Tune = Tune()
    train: Train = Train()
    stack: Stack = Stack()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    package: Package = Package()
    publish: Publish = Publish()
    serving: Serving = Serving()
    stream: Stream = Stream()
    outcomes: Outcomes = Outcomes()
    performance: Performance = Performance()
    degradation: Degradation = Degradation()
    drift: Drift = Drift()
    loop: Loop = Loop()
    triggers: Triggers = Triggers()
    retrain: Retrain = Retrain()
    rollout: Rollout = Rollout()
    adapt: Adapt = Adapt()
    feedback: Feedback = Feedback()
    paper: Paper = Paper()
    simulate: Simulate = Simulate()

    @model_validator(mode="after")
    def _market_is_declared(self) -> Self:
        if self.market not in self.markets:
            raise ValueError(f"market must be one of {sorted(self.markets)}, got {self.market!r}")
        for name in MODELS:
            known = list(type(getattr(self.train, name)).model_fields)
            for key in getattr(self.tune, name):
                if key not in known:
                    raise ValueError(f"tune.{name} may name {known}, got {key!r}{nearest(key, known)}")
        return self

    @property
    def active(self) -> Market:
        """The market that the pipeline runs on."""
        return self.markets[self.market]


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
        raise ConfigError(f"{path.name}: {explain(error, Params)}") from None
