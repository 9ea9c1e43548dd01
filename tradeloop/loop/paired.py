"""The paired test: proves on live outcomes, whenever one looks, that a challenger is better than the champion.

1. **Observation.** All symbols of one feature time make one: per target, the mean difference d of the champion's loss
   less the challenger's (`losses`). Whatever symbols share at a moment is inside one observation.
2. **Margin.** `improvement` times the champion's live skill, its running mean gain over the naive baseline; at least
   `floor` times the baseline's loss. So nobody is asked for 5% of a log loss near ln 2, of which hardly anything can be
   had, and a champion without skill is beaten by any gain that is more than nothing.
3. **Bets.** ``x = clip((d - margin) / (5 s), -1, 1)`` with s the running scale of d, is what `betting.Capital` bets on:
   one capital a target for "better by the margin", one for "worse by more than the tolerance". Margin and scale know
   past outcomes only.
4. **Verdict.** Over the targets the capitals are averaged by `weights`, which keeps an e-value one however targets
   depend on each other. A value of 1/alpha proves the challenger better, unless a target that the champion has proven
   is itself proven worse.

What is assumed: nothing of the distribution, and no independence. The null is one of conditional means: at each
forecast, given all that is known then, the clipped and scaled gain is expected to be not above zero, on the average
over the forecasts so far. Outcomes may be as dependent as they like, as long as forecasts were made before them.

Labels of more than one bar overlap: an outcome is half known when the next forecast is made. Observations are dealt to
as many rows as the horizon has bars, so that within a row each forecast is made when the last label has ended; every
row is a test of its own with its own scale and margin, and they are averaged. Looking at one row while the bets of the
others are undecided could be used to stop at a good moment, so undecided bets are counted as lost.

Clipping has a bias: the verdict is about the clipped mean. A challenger that is a little better nearly always and
dreadful once in a while looks better than its mean by what is cut off beyond five times the scale; `evidence` shows the
share of observations that were clipped. The other way round a champion's rare disasters count five scales each.

Sources: Henzi and Ziegel 2022 and Choe and Ramdas 2024 (comparing forecasters sequentially), Waudby-Smith and Ramdas
2024 (betting on a bounded mean).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from tradeloop.config import TARGETS, Rollout, Target
from tradeloop.loop.losses import Baselines, Losses, Pair
from tradeloop.loop.stream import Margins, Stream

Side = Literal["better", "worse"]


@dataclass(frozen=True)
class Verdict:
    """``better``, ``worse`` or ``open``, and why."""

    kind: Literal["better", "worse", "open"]
    reason: str


@dataclass
class _Row:
    """Observations of which each was forecast when the one before it had ended."""

    until: datetime
    streams: dict[Target, Stream]


class PairedTest:
    """Evidence on whether one model is better than another; see the module.

    Parameters
    ----------
    config
        Margins, weights and the least number of pairs.
    horizon
        Bars of a label.
    proven
        Targets whose edge the champion had proven on its holdout: none of them may get worse.
    base_rate
        Share of up in the champion's holdout; None if it is not known.
    watch
        Whether the "challenger" is a predecessor that waits to come back: it need not be better by any margin, and
        evidence is gathered afresh all the time, as what it is to notice may begin late.
    """

    def __init__(
        self,
        config: Rollout,
        *,
        horizon: int = 1,
        proven: Collection[Target] = (),
        base_rate: float | None = None,
        watch: bool = False,
    ) -> None:
        self._margins = Margins(
            improvement=0.0 if watch else config.improvement,
            tolerance=config.tolerance,
            floor=0.0 if watch else config.floor,
            worse_floor=config.floor,
        )
        whole = sum(config.weights.values())
        self._weights = {target: config.weights.get(target, 0.0) / whole for target in TARGETS}
        self._enter = 1.0 / config.watch_outcomes if watch else 0.0
        self._horizon = horizon
        self._proven = [target for target in TARGETS if target in proven]
        self._baselines = Baselines(base_rate)
        self._rows: list[_Row] = []
        self._current = 0
        self.pairs = 0
        self.overlapping = 0

    @property
    def times(self) -> int:
        """Feature times seen."""
        return max((sum(row.streams[target].times for row in self._rows) for target in TARGETS), default=0)

    def update(self, batch: Sequence[Pair]) -> None:
        """Take in all pairs of one feature time, at least one; times come in order.

        A symbol whose label ends later than the others' (it lacks a bar) is left out there.
        """
        end = min(pair.label_end for pair in batch)
        row = self._row(batch[0].feature_time, end)
        kept = [pair for pair in batch if pair.label_end == end] if row else []
        self.overlapping += len(batch) - len(kept)
        if row is None:
            return
        found = [self._baselines.losses(pair) for pair in kept]
        for target in TARGETS:
            losses = [each[target] for each in found if target in each]
            if losses:
                row.streams[target].update(*_observe(losses), self._margins)
        for pair in kept:
            self._baselines.learn(pair)
        self.pairs += len(kept)

    def e_value(self, side: Side, target: Target | None = None) -> float:
        """Return the evidence that the challenger is better (or worse), for one target or over all of them."""
        if target is None:
            return math.fsum(weight * self.e_value(side, each) for each, weight in self._weights.items() if weight)
        total = float(self._horizon - len(self._rows))
        for number, row in enumerate(self._rows):
            stream = row.streams[target]
            capital = stream.better if side == "better" else stream.worse
            total += capital.value if number == self._current else capital.secured
        return total / self._horizon

    def verdict(self, alpha: float, rivals: int = 1) -> Verdict:
        """Return what is proven by now.

        Parameters
        ----------
        alpha
            Chance of a wrong proof, over the whole life of the test.
        rivals
            How many challengers share `alpha` between them for being called better.
        """
        for target in self._proven:
            value = self.e_value("worse", target)
            if value >= 1.0 / alpha:
                return Verdict("worse", f"{target} is proven worse (e = {value:.3g} ≥ {1 / alpha:.3g})")
        better, worse = self.e_value("better"), self.e_value("worse")
        if better >= rivals / alpha:
            return Verdict("better", f"better on {self.pairs} pairs (e = {better:.3g} ≥ {rivals / alpha:.3g})")
        if worse >= 1.0 / alpha and better < 1.0:
            return Verdict("worse", f"worse on {self.pairs} pairs (e = {worse:.3g} ≥ {1 / alpha:.3g})")
        return Verdict("open", f"nothing is proven on {self.pairs} pairs (e = {better:.3g} < {rivals / alpha:.3g})")

    def evidence(self) -> dict[str, Any]:
        """Return all numbers behind the verdict, as JSON can hold them; losses are means per observation."""
        targets = {target: self._evidence(target) for target in TARGETS}
        return {
            "pairs": self.pairs,
            "times": self.times,
            "e_better": _rounded(self.e_value("better")),
            "e_worse": _rounded(self.e_value("worse")),
            "overlapping": self.overlapping,
            "targets": {target: found for target, found in targets.items() if found["times"]},
        }

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        rows = [
            {"until": row.until.isoformat(), "streams": {name: part.state() for name, part in row.streams.items()}}
            for row in self._rows
        ]
        counts = {"pairs": self.pairs, "overlapping": self.overlapping, "current": self._current}
        return counts | {"rows": rows, "baselines": self._baselines.state()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over what `state` returned, unless it is of longer labels."""
        if len(state["rows"]) > self._horizon:
            return self
        self.pairs, self.overlapping = int(state["pairs"]), int(state["overlapping"])
        self._current = int(state["current"])
        self._rows = [
            _Row(
                datetime.fromisoformat(row["until"]),
                {target: Stream(self._enter).restore(row["streams"][target]) for target in TARGETS},
            )
            for row in state["rows"]
        ]
        self._baselines.restore(state["baselines"])
        return self

    def _row(self, feature_time: datetime, label_end: datetime) -> _Row | None:
        """Return the row that a forecast belongs to; None if its label overlaps with that of every one."""
        for number, row in enumerate(self._rows):
            if row.until <= feature_time:
                row.until, self._current = label_end, number
                return row
        if len(self._rows) >= self._horizon:
            return None
        self._rows.append(_Row(label_end, {target: Stream(self._enter) for target in TARGETS}))
        self._current = len(self._rows) - 1
        return self._rows[-1]

    def _evidence(self, target: Target) -> dict[str, Any]:
        streams = [row.streams[target] for row in self._rows]
        times = sum(stream.times for stream in streams)

        def mean(name: str) -> float:
            return float(sum(getattr(stream, name) * stream.times for stream in streams) / max(times, 1))

        skill = mean("skill")
        return {
            "times": times,
            "advantage": _rounded(mean("mean")),
            "champion_skill": _rounded(mean("gain")),
            "baseline_loss": _rounded(mean("base")),
            "needed": _rounded(max(self._margins.improvement * skill, self._margins.floor * mean("base"))),
            "clipped": sum(stream.clipped for stream in streams),
            "e_better": _rounded(self.e_value("better", target)),
            "e_worse": _rounded(self.e_value("worse", target)),
        }


def _observe(losses: Sequence[Losses]) -> tuple[float, float | None, float | None]:
    """Return the symbols' mean advantage of the challenger, gain of the champion, and loss of the baseline."""
    difference = sum(each.champion - each.challenger for each in losses) / len(losses)
    scored = [(each.baseline - each.champion, each.baseline) for each in losses if each.baseline is not None]
    if not scored:
        return difference, None, None
    return difference, sum(gain for gain, _ in scored) / len(scored), sum(base for _, base in scored) / len(scored)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
