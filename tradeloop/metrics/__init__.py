"""Metrics: each carries its name, its direction, what it takes and what chance scores; `METRICS` holds all of them."""

from tradeloop.metrics import calibration, classification, financial, regression
from tradeloop.metrics.base import METRICS, Metric

__all__ = ["METRICS", "Metric", "calibration", "classification", "financial", "regression"]
