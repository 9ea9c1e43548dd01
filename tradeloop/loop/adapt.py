"""Online adaptation between retrainings: what one bundle's outcomes teach, as snapshots for the service.

For each outcome, in order:

1. *Judge.* The forecast that the newest snapshot known when the question was asked would have given is compared with
   the packaged one, on each target (`loop.track`). What is proven better is applied; what is proven worse is taken
   back, forgotten, and pauses. A change for the worse of the adapted loss (ADWIN) makes a target forget, too.
2. *Learn.* Weights, recalibration or shift, widths, and the linear member take one bounded step.
3. Every `every` outcomes what was learned becomes the next snapshot.

An adapter is a function of its bundle, its parameters and the outcomes in order, however they are grouped into calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.adaptation import NEUTRAL, ONLINE, Adaptation
from tradeloop.bars import Floats
from tradeloop.bundle import Bundle
from tradeloop.config import TARGETS, Adapt, Target
from tradeloop.ensemble import Forecast
from tradeloop.errors import AdaptationError
from tradeloop.loop.learner import Row
from tradeloop.loop.mixing import State, limited
from tradeloop.loop.online_member import OnlineMember
from tradeloop.loop.snapshots import Snapshot, shortened
from tradeloop.loop.track import Track, Turn, interval_bound, interval_loss, log_bound, log_loss
from tradeloop.monitoring.records import Resolved

_EDGE = 1e-6  # as `ensemble.logit` has it
_PACKAGED: dict[str, Any] = NEUTRAL.model_dump(mode="json", by_alias=True)
# Snapshots by their identity: held here too, so that no other takes it over while this is in use.
_Adapted = dict[int, tuple[Adaptation, Forecast]]
_SAYS: Mapping[Turn, str] = {
    "proven": "{target}: forecasts better than the bundle as it was packaged; applied",
    "worse": "{target}: forecasts worse than the bundle as it was packaged; taken back",
    "drift": "{target}: the loss has risen; what was learned is forgotten",
}


class Adapter:
    """Learns from the outcomes of one bundle's predictions.

    Parameters
    ----------
    bundle
        The model that is adapted. Outcomes of others are passed over.
    config
        With ``enabled: false`` nothing is learned; `set_cost` works all the same.
    """

    def __init__(self, bundle: Bundle, config: Adapt) -> None:
        self._bundle = bundle
        self._config = config
        self._coverage = float(bundle.ensemble.spec["coverage"])
        self._members: dict[Target, list[str]] = {
            target: list(bundle.ensemble.spec["targets"][target]["members"]) for target in TARGETS
        }
        self._tracks: dict[Target, Track] = {}
        self._online: OnlineMember | None = None
        if config.enabled:
            horizon = bundle.manifest.labels.horizon
            for target in TARGETS:
                members = self._members[target]
                self._tracks[target] = Track(target, members, config, coverage=self._coverage, horizon=horizon)
            self._online = OnlineMember(bundle.ensemble.names, config)
        self._candidates: list[tuple[datetime, Adaptation]] = []
        self._served = _PACKAGED
        self._cost: float | None = None
        self._newest: dict[str, datetime] = {}
        self._seen = 0
        self.seq = 0

    @property
    def served(self) -> dict[str, Any]:
        """The content that the service should apply now."""
        return self._served

    def update(
        self, group: Sequence[Resolved], x: NDArray[np.float32], packaged: Forecast | None = None
    ) -> list[Snapshot]:
        """Learn from outcomes, in order of `seq`; return what is to be appended to the store.

        Restatements, outcomes of other models and of forecasts whose interval has no width are passed over, and so
        are outcomes of a symbol's bars that are not newer than the last one learned from: repeats, replays, late ones.

        Parameters
        ----------
        x
            The logged feature rows (n, d), one for each outcome.
        packaged
            The bundle's own forecast of them, if the caller has it.
        """
        if self._online is None or not group:
            return []
        forecast = self._bundle.forecast(x) if packaged is None else packaged
        adapted: _Adapted = {}
        snapshots: list[Snapshot] = []
        for i, resolved in enumerate(group):
            if not self._news(resolved):
                continue
            features = self._online.features(x[i].astype(np.float64))
            rows = self._rows(resolved, forecast, i, features, self._online)
            if rows is None:
                continue
            turns = self._judge(resolved, forecast, x, i=i, rows=rows, adapted=adapted)
            for target, turn in turns.items():
                if turn != "proven":
                    self._online.forget(target)
            self._learn(rows, x[i].astype(np.float64), features, self._online)
            self._seen += 1
            if turns or self._seen % self._config.every == 0:
                snapshots += self._cut(resolved, turns)
        return snapshots

    def set_cost(
        self, cost_bps: float | None, *, outcome_seq: int, market_time: datetime, reason: str
    ) -> Snapshot | None:
        """Take what a trade has turned out to cost into the next snapshot; None where that changes nothing.

        The predictor asks for an edge above the larger of this and the bundle's own cost.
        """
        if cost_bps == self._cost:
            return None
        self._cost = cost_bps
        content = {**self._served, "cost_bps": cost_bps}
        return self._serve(content, outcome_seq, market_time, reason)

    def summary(self) -> dict[str, Any]:
        """Return, by target, where it stands: phase, capitals, and its part of the newest snapshot."""
        return {
            target: {
                "phase": track.guard.phase,
                "better": track.guard.better,
                "worse": track.guard.worse,
                **track.learner.part(),
            }
            for target, track in self._tracks.items()
        }

    def state(self) -> State:
        """Return what `restore` takes, as JSON."""
        return {
            "model": self._bundle.hash,
            "seq": self.seq,
            "seen": self._seen,
            "newest": {symbol: bar.isoformat() for symbol, bar in self._newest.items()},
            "cost_bps": self._cost,
            "served": self._served,
            "candidates": [[at.isoformat(), candidate.to_dict()] for at, candidate in self._candidates],
            "tracks": {target: track.state() for target, track in self._tracks.items()},
            "online": None if self._online is None else self._online.state(),
        }

    def restore(self, state: State) -> None:
        """Take up where `state` was taken.

        Raises
        ------
        AdaptationError
            It is the state of another model.
        """
        if state["model"] != self._bundle.hash:
            raise AdaptationError(f"this state is of model {state['model'][:12]}, not {self._bundle.version}")
        self.seq, self._seen = int(state["seq"]), int(state["seen"])
        self._newest = {symbol: datetime.fromisoformat(bar) for symbol, bar in state["newest"].items()}
        self._cost, self._served = state["cost_bps"], dict(state["served"])
        if not self._tracks or not state["tracks"]:
            return  # adaptation was switched on or off in between: what was learned before does not count
        self._candidates = [
            (datetime.fromisoformat(at), Adaptation.parse(content)) for at, content in state["candidates"]
        ]
        for target, track in self._tracks.items():
            track.restore(state["tracks"][target])
        assert self._online is not None
        self._online.restore(state["online"])

    def _news(self, resolved: Resolved) -> bool:
        """Return whether the outcome is to be learned from, and note that it was seen."""
        prediction, outcome = resolved.prediction, resolved.outcome
        if prediction.model != self._bundle.hash or outcome.revision > 0:
            return False
        self.seq = max(self.seq, resolved.seq)
        bar, newest = prediction.feature_time, self._newest.get(prediction.symbol)
        if bar is None or (newest is not None and bar <= newest):
            return False
        self._newest[prediction.symbol] = bar
        return True

    def _rows(
        self, resolved: Resolved, forecast: Forecast, i: int, features: dict[str, float], online: OnlineMember
    ) -> dict[Target, Row] | None:
        """Return what each target's learner sees of row `i`; None where there is no usable number."""
        outcome = resolved.outcome
        labels = {"direction": outcome.direction, "return": outcome.ret, "range": outcome.range}
        rows: dict[Target, Row] = {}
        for target in TARGETS:
            base, low, high = _numbers(forecast, target, i)
            unit, label = 1.0 if target == "direction" else 0.5 * (high - low), labels[target]
            if label is None or not (math.isfinite(label) and math.isfinite(base) and 0.0 < unit < math.inf):
                return None
            said = {name: float(forecast.members[target][name][i]) for name in self._members[target]}
            members = {name: _log_odds(p) for name, p in said.items()} if target == "direction" else said
            rows[target] = Row(base, unit, members, online.apart(target, features, base / unit), label, low, high)
        return rows

    def _judge(
        self,
        resolved: Resolved,
        forecast: Forecast,
        x: NDArray[np.float32],
        *,
        i: int,
        rows: Mapping[Target, Row],
        adapted: _Adapted,
    ) -> dict[Target, Turn]:
        """Compare both forecasts of row `i`; `adapted` keeps what a snapshot makes of all rows."""
        asked_at, bar = resolved.prediction.asked_at, resolved.prediction.feature_time
        known = [n for n, (at, _) in enumerate(self._candidates) if at <= asked_at]
        if not known or bar is None:
            return {}
        self._candidates = self._candidates[known[-1] :]
        candidate = self._candidates[0][1]
        if id(candidate) not in adapted:
            adapted[id(candidate)] = (candidate, candidate.apply(forecast, x))
        other = adapted[id(candidate)][1]
        turns: dict[Target, Turn] = {}
        for target, track in self._tracks.items():
            losses = self._losses(target, rows[target], forecast, other, i)
            turn = track.judge(bar, losses[0], losses[1], bound=losses[2])
            if turn is not None:
                turns[target] = turn
        return turns

    def _losses(
        self, target: Target, row: Row, packaged: Forecast, adapted: Forecast, i: int
    ) -> tuple[float, float, float]:
        """Return the losses of both forecasts of row `i`, and by how much they could have differed."""
        if target == "direction":
            p, q = float(packaged.p_up[i]), float(adapted.p_up[i])
            return log_loss(p, row.label), log_loss(q, row.label), log_bound(p, q)
        one, other = _numbers(packaged, target, i), _numbers(adapted, target, i)
        unit, coverage = row.unit, self._coverage
        losses = [interval_loss(row.label, said, unit=unit, coverage=coverage) for said in (one, other)]
        return losses[0], losses[1], interval_bound(one, other, unit=unit, coverage=coverage)

    def _learn(self, rows: Mapping[Target, Row], x: Floats, features: dict[str, float], online: OnlineMember) -> None:
        truths: dict[Target, tuple[float, float]] = {}
        for target, row in rows.items():
            self._tracks[target].learner.step(row)
            truth = row.label if target == "direction" else (row.label - row.base) / row.unit
            truths[target] = (row.base / row.unit, truth)
        online.learn(x, features, truths)

    def _cut(self, resolved: Resolved, turns: Mapping[Target, Turn]) -> list[Snapshot]:
        """Make what was learned the newest candidate, and serve of it what is applied."""
        now = resolved.outcome.resolved_at
        whole = self._content(TARGETS)
        self._candidates.append((now, Adaptation.parse(whole, spec=self._bundle.ensemble.spec)))
        content = self._content([target for target in TARGETS if self._tracks[target].applied])
        said = [_SAYS[turn].format(target=target) for target, turn in turns.items()]
        snapshot = self._serve(content, self.seq, now, "; ".join(said) or f"after {self._seen} outcomes")
        return [] if snapshot is None else [snapshot]

    def _content(self, targets: Sequence[Target]) -> dict[str, Any]:
        """Return a snapshot with the parts of some targets, the others as packaged."""
        assert self._online is not None
        scaler = self._online.scaler()
        parts: dict[str, Any] = {}
        for target in targets:
            part = self._tracks[target].learner.part()
            linear = self._online.linear(target)
            if linear is None:
                part["weights"].pop(ONLINE)
            parts[target] = part if linear is None else {**part, "online": linear}
        content = {"scaler": scaler if parts else None, "targets": parts, "cost_bps": self._cost}
        return Adaptation.parse(shortened(content)).to_dict()

    def _serve(self, content: dict[str, Any], seq: int, now: datetime, reason: str) -> Snapshot | None:
        if content == self._served:
            return None
        self._served = content
        if content == _PACKAGED:
            return Snapshot("rollback", {"to": None}, seq, now, reason)
        return Snapshot("snapshot", content, seq, now, reason)


def _numbers(forecast: Forecast, target: Target, i: int) -> tuple[float, float, float]:
    """Return centre and ends of row `i` in the target's space; direction has no interval."""
    if target == "direction":
        return _log_odds(float(forecast.p_up[i])), math.nan, math.nan
    if target == "return":
        return float(forecast.ret[i]), float(forecast.ret_low[i]), float(forecast.ret_high[i])
    return float(forecast.range[i]), float(forecast.range_low[i]), float(forecast.range_high[i])


def _log_odds(p: float) -> float:
    kept = limited(p, _EDGE, 1.0 - _EDGE)
    return math.log(kept) - math.log1p(-kept)
