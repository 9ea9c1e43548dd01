"""Controls that run with every evaluation: each asks whether this very run could have noticed that it fools itself.

shuffled_labels
    Models fitted on training labels dealt anew must score chance on the holdout: else rows leak from test to training.
planted_leak, planted_leak_score
    A feature that knows the future must be caught by the feature contract, and its AUC must be above what counts as
    suspicious: else neither would catch a real one.
feature_contract
    The features of this run, on this market's own bars, must not look ahead or depend on scale or on older bars.
labels
    The holdout's labels must be those that the bars give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tradeloop import robustness
from tradeloop.bars import Bars, Floats
from tradeloop.config import TARGETS, Evaluate, Labels
from tradeloop.evaluate.edge import show
from tradeloop.evaluate.holdout import Holdout
from tradeloop.features import compute, schema_lookback
from tradeloop.features.contract import check_prefix_invariance, check_scale_freedom, check_tail_equality
from tradeloop.labels import compute_labels
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.classification import auc

SEEDS = 10
_CONTRACT_BARS = 1_000  # beyond the lookback; enough for every rolling window to turn over

Json = dict[str, Any]


def run_controls(holdout: Holdout, bootstrap: Bootstrap, config: Evaluate, seed: int) -> list[Json]:
    """Return the controls as ``name``, ``passed`` and ``text``, and the numbers where there are any."""
    sample = holdout.sample
    split = robustness.Split(holdout.x, sample.y["direction"], sample.timestamp, sample.train, sample.test)
    return [
        _shuffled_labels(split, bootstrap, seed),
        _planted_leak(holdout),
        _planted_leak_score(holdout, split, config, seed),
        _feature_contract(holdout),
        _labels(holdout),
    ]


def bounce(holdout: Holdout, bootstrap: Bootstrap) -> Json:
    """Return the AUC judged by trades from the close and from the next open, and the paired difference.

    A forecast that is good from the close it was made on, and not from the next open, has found bid-ask bounce.
    """
    skill = {}
    for entry in ("close", "next_open"):
        labels = holdout.labels.model_copy(update={"entry": entry})
        actual = _labels_of(holdout, labels, "direction")
        skill[entry] = bootstrap.score(auc, actual, holdout.forecast.p_up)
    difference = (skill["close"] - skill["next_open"]).interval
    return {name: score.interval.as_dict() for name, score in skill.items()} | {"difference": difference.as_dict()}


def _shuffled_labels(split: robustness.Split, bootstrap: Bootstrap, seed: int) -> Json:
    interval = robustness.shuffled_auc(split, bootstrap, seeds=SEEDS, seed=seed)
    passed = interval.low <= 0.5 <= interval.high
    found = f"trained on shuffled labels, AUC is {show('auc', interval.as_dict())} over {SEEDS} seeds"
    verdict = "holds" if passed else "should hold"
    text = f"{found}; its {robustness.CONTROL_CONFIDENCE:.0%} interval {verdict} 0.5"
    return {"name": "shuffled_labels", "passed": passed, "text": text, "auc": interval.as_dict()}


def _planted_leak(holdout: Holdout) -> Json:
    bars = max(holdout.bars.values(), key=len)
    found = [line for line in robustness.leak_findings(bars, horizon=holdout.labels.horizon) if "look-ahead" in line]
    text = f"a feature that knows the future is {'caught' if found else 'not caught'} by the feature contract"
    return {"name": "planted_leak", "passed": bool(found), "text": text}


def _planted_leak_score(holdout: Holdout, split: robustness.Split, config: Evaluate, seed: int) -> Json:
    leak = _at_rows(
        holdout, {name: robustness.Leak(holdout.labels.horizon)(bars) for name, bars in holdout.bars.items()}
    )
    value = robustness.leaked_auc(split, leak, seed=seed)
    passed = value > config.suspicious_auc
    rule = "is above" if passed else "should be above"
    text = f"with that feature, AUC is {value:.3f}, which {rule} the suspicious {config.suspicious_auc:g}"
    return {"name": "planted_leak_score", "passed": passed, "text": text, "auc": value}


def _feature_contract(holdout: Holdout) -> Json:
    found = []
    for name, bars in holdout.bars.items():
        lookback = schema_lookback(holdout.schema, tuple(bars.context))
        recent = bars[-(lookback + _CONTRACT_BARS) :]
        found += [f"{name}: {line}" for line in _breaches(holdout, recent, lookback)]
    text = found[0] if found else f"{len(holdout.schema)} features keep the contract on the bars of every symbol"
    return {"name": "feature_contract", "passed": not found, "text": text}


def _breaches(holdout: Holdout, bars: Bars, lookback: int) -> list[str]:
    def rows(some: Bars) -> Any:
        return compute(some, holdout.schema)

    if len(bars) < lookback + 2:
        return [f"{len(bars)} bars are too few to check features that look back {lookback}"]
    return [
        *check_prefix_invariance(rows, bars),
        *check_tail_equality(rows, bars, lookback, recursive=True),
        *check_scale_freedom(rows, bars),
    ]


def _labels(holdout: Holdout) -> Json:
    worst = max(
        float(np.abs(_labels_of(holdout, holdout.labels, target) - holdout.label(target)).max()) for target in TARGETS
    )
    passed = worst <= 1e-9
    text = (
        "the holdout's labels are those that the bars give" if passed else f"labels differ from the bars by {worst:.3g}"
    )
    return {"name": "labels", "passed": passed, "text": text}


def _labels_of(holdout: Holdout, config: Labels, column: str) -> Floats:
    """Return a label of every holdout row (m,), computed from the bars; NaN where it has not ended."""
    tables = {name: compute_labels(bars, config)[column].to_numpy(np.float64) for name, bars in holdout.bars.items()}
    return _at_rows(holdout, tables)[holdout.row]


def _at_rows(holdout: Holdout, series: dict[str, Floats]) -> Floats:
    """Return, for every row of the matrix (n,), the value of its symbol's bar; NaN where there is no such bar."""
    sample = holdout.sample
    result = np.full(len(sample.symbol), np.nan)
    for name, values in series.items():
        rows = np.flatnonzero(sample.symbol == name)
        times = holdout.bars[name].timestamp
        at = np.minimum(np.searchsorted(times, sample.timestamp[rows]), len(times) - 1)
        result[rows] = np.where(times[at] == sample.timestamp[rows], values[at], np.nan)
    return result
