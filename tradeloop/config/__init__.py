"""params.yaml as frozen, typed models: an unknown or out-of-range key is one clear line."""

from __future__ import annotations

from tradeloop.config.base import MODELS, TARGETS, Block, ModelName, RangeBaseline, Target, parse_interval
from tradeloop.config.blocks import (
    Check,
    Dataset,
    Evaluate,
    Features,
    Gate,
    Ingest,
    Labels,
    MLPParams,
    Package,
    Publish,
    RandomForestParams,
    Serving,
    Split,
    Stack,
    Store,
    Train,
    Tune,
    XGBoostParams,
)
from tradeloop.config.market import FileMarket, Market, SyntheticMarket
from tradeloop.config.params import Params, load_params

__all__ = [
    "MODELS",
    "TARGETS",
    "Block",
    "Check",
    "Dataset",
    "Evaluate",
    "Features",
    "FileMarket",
    "Gate",
    "Ingest",
    "Labels",
    "MLPParams",
    "Market",
    "ModelName",
    "Package",
    "Params",
    "Publish",
    "RandomForestParams",
    "RangeBaseline",
    "Serving",
    "Split",
    "Stack",
    "Store",
    "SyntheticMarket",
    "Target",
    "Train",
    "Tune",
    "XGBoostParams",
    "load_params",
    "parse_interval",
]
