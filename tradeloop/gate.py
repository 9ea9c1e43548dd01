"""The gate: may this challenger serve? Thresholds, baselines, controls and the champion, target by target.

`decide` is a pure function of what evaluation found; it reads no file and knows no model. Its rule for what is not
there: a score that is missing, null or NaN fails, because nobody can say that it is good.

A target without a proven edge does not fail the gate. It is served as information only, and the verdict says so. A
direction too good to be true fails: on a liquid market that is presumed to be a leak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tradeloop.config import TARGETS, Gate, Target

REQUIRED: Mapping[Target, tuple[str, ...]] = {
    "direction": ("auc", "accuracy", "log_loss", "brier", "ece"),
    "return": ("ic", "r2", "rmse", "mae", "coverage"),
    "range": ("r2", "ic", "rmse", "mae", "coverage"),
}
EVERYTHING = "all"  # in place of a target, for what concerns the whole challenger

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Reason:
    """One thing that was checked: a value, its limit, and a sentence for a person."""

    target: str
    check: str
    value: float | None
    limit: float | None
    ok: bool
    text: str


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion scored on the same rows, which neither was trained on.

    Attributes
    ----------
    rows
        How many rows could be compared.
    obstacle
        Why there is no comparison at all; None if there is one.
    losses
        By target: ``metric``, ``challenger``, ``champion``, and ``difference`` with ``low`` and ``high``, paired.
    """

    champion: str
    rows: int
    obstacle: str | None
    losses: Mapping[Target, Json]


@dataclass(frozen=True)
class Verdict:
    """``pass`` or ``fail``, every reason, and how each target is to be served."""

    passed: bool
    reasons: tuple[Reason, ...]
    targets: Mapping[Target, Json]
    champion: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of gate.json."""
        return {
            "verdict": "pass" if self.passed else "fail",
            "champion": self.champion,
            "reasons": [asdict(reason) for reason in self.reasons],
            "targets": {target: dict(part) for target, part in self.targets.items()},
        }


def decide(evaluation: Json, params: Gate, champion: Comparison | None = None) -> Verdict:
    """Return the verdict on a challenger.

    Parameters
    ----------
    evaluation
        The content of evaluation.json.
    champion
        How it compares with the model that serves now; None if none does.
    """
    reasons = (
        *_whole(evaluation, params),
        *_complete(evaluation),
        *_direction(evaluation, params),
        *_coverage(evaluation, params),
        *_range(evaluation, params),
        *_champion(champion, params),
    )
    targets = {target: _served(evaluation, target) for target in TARGETS}
    name = champion.champion if champion else None
    return Verdict(all(reason.ok for reason in reasons), reasons, targets, name)


def _whole(evaluation: Json, params: Gate) -> Iterator[Reason]:
    rows = _number(evaluation, "holdout", "rows")
    yield _limit(EVERYTHING, "holdout_rows", rows, "≥", params.min_holdout_rows, name="rows in the holdout")
    controls = evaluation.get("controls") or []
    if not controls:
        yield Reason(EVERYTHING, "controls", None, None, False, "no control was run")
    for control in controls:
        ok = control.get("passed") is True
        yield Reason(EVERYTHING, f"control_{control.get('name')}", None, None, ok, str(control.get("text")))


def _complete(evaluation: Json) -> Iterator[Reason]:
    for target, names in REQUIRED.items():
        missing = [name for name in names if _metric(evaluation, target, name) is None]
        text = f"{target}: no score for {', '.join(missing)}" if missing else f"{target}: every score is there"
        yield Reason(target, "complete", float(len(missing)), 0.0, not missing, text)


def _direction(evaluation: Json, params: Gate) -> Iterator[Reason]:
    ece, auc = (_metric(evaluation, "direction", name) for name in ("ece", "auc"))
    reason = _limit("direction", "ece", ece, "≤", params.max_direction_ece, name="direction ECE")
    least = _number(evaluation, "targets", "direction", "metrics", "ece", "low")
    if ece is not None and not reason.ok and least is not None and least <= params.max_direction_ece:
        text = f"direction ECE is {ece:.3f}, not proven to be above {params.max_direction_ece:g}"
        reason = replace(reason, ok=True, text=text)
    yield reason
    reason = _limit("direction", "too_good", auc, "≤", params.max_direction_auc, name="direction AUC")
    if auc is not None and not reason.ok:
        reason = Reason(**{**asdict(reason), "text": f"{reason.text}: too good to be true, presumed to be a leak"})
    yield reason


def _coverage(evaluation: Json, params: Gate) -> Iterator[Reason]:
    nominal = _number(evaluation, "settings", "coverage")
    for target in ("return", "range"):
        covered = _metric(evaluation, target, "coverage")
        error = None if covered is None or nominal is None else abs(covered - nominal)
        name = f"{target} coverage's distance from nominal"
        reason = _limit(target, "coverage", error, "≤", params.max_coverage_error, name=name)
        low, high = (_number(evaluation, "targets", target, "metrics", "coverage", end) for end in ("low", "high"))
        if not reason.ok and covered is not None and nominal is not None and low is not None and high is not None:
            # Of two hundred rows five in a hundred more or less are chance.
            tolerated = low <= nominal + params.max_coverage_error and high >= nominal - params.max_coverage_error
            shown = f"coverage is {covered:.3f} [{low:.3f}, {high:.3f}]"
            if tolerated:
                reason = replace(reason, ok=True, text=f"{target} {shown}, not proven to be {reason.limit:g} off")
        yield reason


def _range(evaluation: Json, params: Gate) -> Iterator[Reason]:
    yield _limit("range", "r2", _metric(evaluation, "range", "r2"), "≥", params.min_range_r2, name="range R²")
    names = _at(evaluation, "settings", "range_baselines") or []
    if not names:
        yield Reason("range", "baselines", None, None, False, "range was compared with no baseline")
    for name in names:
        value, low = (
            _number(evaluation, "targets", "range", "differences", name, "rmse", key) for key in ("value", "low")
        )
        if value is None or low is None:
            text = f"range RMSE against {name} is missing"
            yield Reason("range", f"baseline_{name}", None, 0.0, False, text)
        else:
            verdict = "proven to be worse" if low > 0 else "not worse"
            text = f"range RMSE minus that of baseline {name} is {value:+.4f}, {verdict}"
            yield Reason("range", f"baseline_{name}", value, 0.0, low <= 0, text)


def _champion(comparison: Comparison | None, params: Gate) -> Iterator[Reason]:
    if comparison is None:
        yield Reason(EVERYTHING, "champion", None, None, True, "no champion to compare with")
        return
    name = comparison.champion
    if comparison.obstacle is not None:
        text = f"not comparable with champion {name}: {comparison.obstacle}"
        yield Reason(EVERYTHING, "champion", None, None, True, text)
        return
    if comparison.rows < params.min_common_rows:
        text = f"{comparison.rows} rows in common with champion {name}, {params.min_common_rows} are needed to compare"
        yield Reason(EVERYTHING, "champion", float(comparison.rows), float(params.min_common_rows), True, text)
        return
    for target in TARGETS:
        yield _against_champion(target, comparison, params.champion_tolerance)


def _against_champion(target: Target, comparison: Comparison, tolerance: float) -> Reason:
    """Fail where the loss is more than the tolerance, as a share, above the champion's, and proven to be above it."""
    check = "champion"
    losses = comparison.losses.get(target, {})
    ours, theirs = _number(losses, "challenger"), _number(losses, "champion")
    if ours is None or theirs is None or theirs <= 0:
        return Reason(target, check, None, tolerance, False, f"{target}: no loss to compare with the champion's")
    worse = ours / theirs - 1.0
    low, high = _number(losses, "difference", "low"), _number(losses, "difference", "high")
    # A loss that is larger by chance must not keep a challenger from the proof on live outcomes.
    ok = worse <= tolerance or (low is not None and low <= 0)
    spread = "" if low is None or high is None else f", difference [{low:+.5f}, {high:+.5f}]"
    text = (
        f"{target}: {losses.get('metric')} is {ours:.5f}, champion {comparison.champion} has {theirs:.5f} on the same "
        f"{comparison.rows} rows: {worse:+.2%}{spread}, allowed is {tolerance:+.2%}"
    )
    return Reason(target, check, worse, tolerance, ok, text)


def _served(evaluation: Json, target: Target) -> dict[str, Any]:
    edge = _at(evaluation, "targets", target, "edge") or {}
    proven = edge.get("proven") is True
    metric, value = str(edge.get("metric")), _number(edge, "value")
    ends = [_clean(end) for end in edge.get("interval") or (None, None)]
    shown = "undefined" if value is None or None in ends else f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
    served = "served, its edge is proven" if proven else "served as information only, no proven edge"
    why = next((f"; {check['text']}" for check in edge.get("checks") or [] if check.get("ok") is not True), "")
    return {
        "edge_proven": proven,
        "metric": metric,
        "value": value,
        "interval": ends,
        "baseline": edge.get("baseline"),
        "served_as": "forecast" if proven else "information",
        "text": f"{target} is {served}: {metric} {shown}{why}",
    }


def _limit(target: str, check: str, value: float | None, rule: Literal["≤", "≥"], limit: float, *, name: str) -> Reason:
    if value is None:
        return Reason(target, check, None, limit, False, f"{name} is missing")
    ok = value <= limit if rule == "≤" else value >= limit
    shown = f"{value:.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.3f}"
    text = f"{name} is {shown}, {'' if ok else 'should be '}{rule} {limit:g}"
    return Reason(target, check, value, limit, ok, text)


def _metric(evaluation: Json, target: Target, name: str) -> float | None:
    return _number(evaluation, "targets", target, "metrics", name, "value")


def _number(tree: Any, *path: str) -> float | None:
    """Return the finite number at the end of a path of keys, else None."""
    return _clean(_at(tree, *path))


def _clean(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _at(tree: Any, *path: str) -> Any:
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree
