"""From evidence to one remedy, with reasons: a table of causes in order of precedence.

=====================  ===========================================================  ==================
cause                  holds when                                                   remedy
=====================  ===========================================================  ==================
``bad_data``           a series scores below ``check.min_score``                    refetch, or abstain
``stale_features``     half of the symbols or more have features beyond max_age     abstain
``bad_promotion``      the champion lost against its predecessor                    roll back
``concept_drift``      the champion's skill alarm stands                            retrain
``costs_up``           realised costs are above the assumed, interval and all       raise the threshold
``miscalibration``     the calibration alarm stands, skill does not                 recalibrate, or retrain
``covariate_shift``    enough features have drifted, skill is intact                reweight
``late``               some data, features or heartbeats are missing                alert
``none``               nothing of the above                                         none
=====================  ===========================================================  ==================

Why in this order. What is measured on bad or stale input says nothing about the model, and a retraining would learn
from it: so input comes first. A rollback needs no training and is proven on the very outcomes that the two models
share, so it goes before a retraining; if the market has changed for both, the alarm comes back for the predecessor. A
lost skill makes costs, calibration and drift secondary: the next model has its own. Costs come before calibration
because every trade below the true cost loses money at once. Drift of the features alone comes last, since a model whose
skill is intact has generalised to it. The other causes that hold are kept in `Diagnosis.considered`.

Nothing else is read than the evidence and the parameters; the same two give the same diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tradeloop.config import Params
from tradeloop.errors import ConfigError
from tradeloop.monitoring.evidence import Evidence
from tradeloop.monitoring.staleness import closes_between, nth_newest_close

Cause = Literal[
    "bad_data",
    "stale_features",
    "bad_promotion",
    "concept_drift",
    "costs_up",
    "miscalibration",
    "covariate_shift",
    "late",
    "none",
]
Remedy = Literal[
    "refetch",
    "abstain",
    "roll_back",
    "retrain",
    "raise_threshold",
    "recalibrate",
    "reweight",
    "alert",
    "none",
]
MAX_HOLDOUT = 0.5
_SLACK = 1.05  # rows that a gap in the bars may take from the calendar's count


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong and what to do about it.

    Attributes
    ----------
    reasons
        At least one sentence, with numbers.
    considered
        The causes of lower precedence that hold as well, each with its first reason.
    overrides
        Parameters by dotted name that a retraining as this remedy changes; see `window_since`.
    """

    cause: Cause
    remedy: Remedy
    reasons: tuple[str, ...]
    considered: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


def diagnose(evidence: Evidence, params: Params) -> Diagnosis:
    """Return the diagnosis: the first row of the table that holds."""
    found = [diagnosis for rule in _TABLE if (diagnosis := rule(evidence, params)) is not None]
    if not found:
        return _WELL
    first, *others = found
    considered = tuple(f"{other.cause}: {other.reasons[0]}" for other in others)
    return Diagnosis(first.cause, first.remedy, first.reasons, considered, first.overrides)


def rows_since(changed_at: datetime, now: datetime, params: Params) -> int:
    """Return how many training rows there are whose features are of `changed_at` or later and whose label has ended.

    Counted on the calendar, all symbols together: it needs no data, and is the same in a simulation.
    """
    bars = 1 + closes_between(params.active, changed_at, now) - params.labels.horizon
    return max(bars, 0) * len(params.active.symbols)


def window_since(changed_at: datetime, rows: int, params: Params) -> dict[str, Any]:
    """Return the overrides under which a retraining learns from the rows since a change, and from no others.

    1. ``dataset.start`` is the change.
    2. ``split.holdout`` grows, up to a half, until the gate has its ``min_holdout_rows``: the gate stays as it is.
    3. With fewer than ``full_rows`` before the holdout, the least leaf sizes shrink in proportion: a leaf of 40 is a
       twentieth of 800 rows, and a fifth of 200, on which no tree would grow.
    """
    trigger = params.triggers.accuracy_drop
    overrides: dict[str, Any] = {"dataset.start": changed_at.isoformat()}
    needed = params.gate.min_holdout_rows * _SLACK / max(rows, 1)
    holdout = max(params.split.holdout, min(round(needed, 4), MAX_HOLDOUT))
    if holdout > params.split.holdout:
        overrides["split.holdout"] = holdout
    share = rows * (1 - holdout) / trigger.full_rows
    if share < 1:
        for name in trigger.leaves:
            value = parameter(params, name)
            overrides[name] = type(value)(max(1, round(value * share, 4)))
    return overrides


def newest_window(rows: int, now: datetime, params: Params) -> dict[str, Any]:
    """Return the overrides under which a retraining learns from about the `rows` newest rows: weight 1, the rest 0."""
    bars = max(1, rows // len(params.active.symbols))
    start = nth_newest_close(params.active, bars, now)
    configured = params.dataset.start
    if configured is not None and configured.timestamp() >= start.timestamp():
        return {}
    return {"dataset.start": start.isoformat()}


def parameter(params: Params, name: str) -> Any:
    """Return the parameter of a dotted name; ConfigError if there is none."""
    value: Any = params
    for part in name.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"there is no parameter {name!r}: {part!r} is not in {type(value).__name__}")
        value = getattr(value, part)
    return value


def _bad_data(evidence: Evidence, params: Params) -> Diagnosis | None:
    scores: Mapping[str, float] = evidence.integrity.get("scores") or {}
    least = params.check.min_score
    bad = [
        f"{symbol} scores {score:g}, at least {least:g} is needed" for symbol, score in scores.items() if score < least
    ]
    if not bad:
        return None
    findings = [str(finding) for finding in (evidence.integrity.get("findings") or [])[:3]]
    return Diagnosis("bad_data", "refetch" if params.active.clock == "live" else "abstain", (*bad[:5], *findings))


def _stale_features(evidence: Evidence, params: Params) -> Diagnosis | None:
    old = evidence.staleness.get("too_old") or ()
    symbols = params.active.symbols
    if not old or 2 * len(old) < len(symbols):
        return None
    text = f"features of {len(old)} of {len(symbols)} symbols are older than {params.active.max_age}: {_names(old)}"
    return Diagnosis("stale_features", "abstain", (text,))


def _bad_promotion(evidence: Evidence, _: Params) -> Diagnosis | None:
    if not evidence.worse_than_predecessor or evidence.champion is None:
        return None
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in evidence.watch.items() if name != "worse")
    text = f"{evidence.champion.version} lost against its predecessor since its promotion"
    return Diagnosis("bad_promotion", "roll_back", (f"{text} ({figures})" if figures else text,))


def _concept_drift(evidence: Evidence, params: Params) -> Diagnosis | None:
    alarm = evidence.skill_alarm
    if alarm is None:
        return None
    raised = f"skill alarm at outcome {alarm.seq}" + (f": {alarm.text}" if alarm.text else "")
    if alarm.changed_at is None:
        return Diagnosis(
            "concept_drift", "retrain", (raised, "no estimate of when it changed: all rows are learned from")
        )
    rows, needed = rows_since(alarm.changed_at, evidence.now, params), params.triggers.accuracy_drop.min_rows
    since = f"{rows} rows since the change at {alarm.changed_at.isoformat()}"
    if rows < needed:
        return Diagnosis("concept_drift", "retrain", (raised, f"{since}; a retraining on them waits for {needed}"))
    return Diagnosis(
        "concept_drift",
        "retrain",
        (raised, f"{since} are enough to learn from them alone"),
        overrides=window_since(alarm.changed_at, rows, params),
    )


def _costs_up(evidence: Evidence, _: Params) -> Diagnosis | None:
    low, assumed = evidence.costs.get("low"), evidence.costs.get("assumed")
    if low is None or assumed is None or low <= assumed:
        return None
    realised = evidence.costs.get("realised")
    shown = (
        f"{_figure(realised)} bps, at least {_figure(low)}" if realised is not None else f"at least {_figure(low)} bps"
    )
    return Diagnosis("costs_up", "raise_threshold", (f"fills cost {shown}; {_figure(assumed)} bps are assumed",))


def _miscalibration(evidence: Evidence, params: Params) -> Diagnosis | None:
    alarm = evidence.calibration_alarm
    if alarm is None or evidence.skill_alarm is not None:
        return None
    raised = f"calibration alarm at outcome {alarm.seq}" + (f": {alarm.text}" if alarm.text else "")
    if params.adapt.enabled:
        return Diagnosis("miscalibration", "recalibrate", (raised, "online adaptation is on"))
    return Diagnosis("miscalibration", "retrain", (raised, "online adaptation is off (adapt.enabled)"))


def _covariate_shift(evidence: Evidence, params: Params) -> Diagnosis | None:
    config = params.triggers.data_drift
    if evidence.drifted_share < config.share or evidence.skill_alarm is not None:
        return None
    text = f"{evidence.drifted_share:.0%} of the features have drifted ({config.share:.0%} count), skill is intact"
    overrides = newest_window(config.recent_rows, evidence.now, params)
    return Diagnosis("covariate_shift", "reweight", (text,), overrides=overrides)


def _late(evidence: Evidence, params: Params) -> Diagnosis | None:
    told = () if _stale_features(evidence, params) is None else ("too_old",)
    found = {what: evidence.staleness.get(key) for key, what in _LATE.items() if key not in told}
    reasons = tuple(f"{what}: {_names(names)}" for what, names in found.items() if names)
    return Diagnosis("late", "alert", reasons) if reasons else None


_LATE = {
    "too_old": "features too old to forecast from",
    "late_data": "bars are late",
    "late_features": "features are late",
    "late_components": "no heartbeat",
}
_TABLE: tuple[Callable[[Evidence, Params], Diagnosis | None], ...] = (
    _bad_data,
    _stale_features,
    _bad_promotion,
    _concept_drift,
    _costs_up,
    _miscalibration,
    _covariate_shift,
    _late,
)
_WELL = Diagnosis("none", "none", ("no alarm stands: input, skill, calibration, costs and features are as expected",))


def _names(found: Any) -> str:
    names = [f"{name} {_figure(value)}" for name, value in found.items()] if isinstance(found, Mapping) else list(found)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
