"""params.yaml as frozen, typed models: an unknown or out-of-range key is one clear line."""

from __future__ import annotations

from tradeloop.config.base import MODELS, TARGETS, Block, ModelName, RangeBaseline, Target, parse_interval
from tradeloop.config.blocks import (
    MARKS,
    Check,
    Compute,
    Dataset,
    Evaluate,
    Features,
    Gate,
    Ingest,
    Keep,
    Labels,
    MLPParams,
    Package,
    Publish,
    RandomForestParams,
    Refetch,
    Serving,
    Split,
    Stack,
    Store,
    Train,
    Tune,
    XGBoostParams,
)
from tradeloop.config.degradation import Degradation, Drift
from tradeloop.config.inputs import INPUT_KINDS, InputFiles, InputKind
from tradeloop.config.loop import Adapt, Feedback, Loop, Paper, Retrain, Rollout, Simulate
from tradeloop.config.market import FileMarket, Market, SyntheticMarket
from tradeloop.config.outcomes import Outcomes, Performance, Regimes
from tradeloop.config.params import Params, load_params
from tradeloop.config.selection import Discovered, Discovery, Selection
from tradeloop.config.stream import Stream
from tradeloop.config.triggers import Triggers

__all__ = [
    "INPUT_KINDS",
    "MARKS",
    "MODELS",
    "TARGETS",
    "Adapt",
    "Block",
    "Check",
    "Compute",
    "Dataset",
    "Degradation",
    "Discovered",
    "Discovery",
    "Drift",
    "Evaluate",
    "Features",
    "Feedback",
    "FileMarket",
    "Gate",
    "Ingest",
    "InputFiles",
    "InputKind",
    "Keep",
    "Labels",
    "Loop",
    "MLPParams",
    "Market",
    "ModelName",
    "Outcomes",
    "Package",
    "Paper",
    "Params",
    "Performance",
    "Publish",
    "RandomForestParams",
    "RangeBaseline",
    "Refetch",
    "Regimes",
    "Retrain",
    "Rollout",
    "Selection",
    "Serving",
    "Simulate",
    "Split",
    "Stack",
    "Store",
    "Stream",
    "SyntheticMarket",
    "Target",
    "Train",
    "Triggers",
    "Tune",
    "XGBoostParams",
    "load_params",
    "parse_interval",
]
