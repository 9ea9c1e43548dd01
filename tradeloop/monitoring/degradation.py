"""Has the champion's skill fallen? An alarm as soon as outcomes carry the information, at a bounded rate of false ones.

What is asked of every outcome is how it compares with the champion's *own* validation skill (`tradeloop.reference`):

``direction``
    Up or down, given the log odds x: alternatives have another line than the holdout's ``sigmoid(a + b x)``; the edge
    is lost (b = 0), turned round (−b) or halved, or ups have become more or less frequent.
``ret``
    The sign of the return given its size and its forecast, so that being wrong on a large move counts for more; the
    edge of the return forecast is lost or turned round. A return of exactly zero says nothing.
``range``
    The error of the log range, less what the error before it lets expect, as a normal score of the holdout's errors:
    its level has jumped, its mean has moved, or its spread has grown. Beyond the holdout's most extreme error scores
    grow more slowly, and end at six.

The reference is an estimate. The null hypothesis is therefore taken at the worse end of it, `margin` standard errors
below the skill that was measured, and for the range `tolerance` standard deviations of its error further: no forecast
of volatility is unbiased in every stretch of a year, and that is not what an alarm is for. A target whose edge cannot
be told from nothing so far takes no part, and its weight goes to the others. How the bets become one statistic with a
bounded rate of false alarms: `sequential`.

A restated outcome (``revision`` above 0) is counted, not tested again: its first form has been, and a test that could
take back what it has seen would lose its bound. Predictions of other arms and models are for the caller to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import NormalDist
from typing import Any

from tradeloop.config import Degradation
from tradeloop.monitoring.bets import Bets
from tradeloop.monitoring.losses import LossWatch
from tradeloop.monitoring.records import Resolved
from tradeloop.monitoring.scored import SKILL, Scored, moment, score
from tradeloop.monitoring.sequential import Detector
from tradeloop.reference import Reference

Json = dict[str, Any]


@dataclass(frozen=True)
class Alarm:
    """The moment at which the statistic reached its threshold.

    Attributes
    ----------
    seq, time
        Outcome that did it, and when it was learned.
    statistic, threshold
        In logs.
    targets
        Each target's share of the statistic; they sum to 1.
    alternative
        The likeliest alternative, ``target: name``.
    change, outcomes
        Feature time of the first outcome after the likeliest change, and how many there have been since.
    skill
        Since then, ``{value, low, high, expected}`` by name; low and high at `confidence`, as if the change point were
        known, which makes them a little pessimistic.
    """

    seq: int
    time: datetime
    statistic: float
    threshold: float
    targets: Mapping[str, float]
    alternative: str
    change: datetime
    outcomes: int
    skill: Mapping[str, Mapping[str, float]]

    def as_dict(self) -> Json:
        """Return it as JSON."""
        return asdict(self) | {"time": self.time.isoformat(), "change": self.change.isoformat()}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Alarm:
        """Return what `as_dict` wrote."""
        times = {name: datetime.fromisoformat(content[name]) for name in ("time", "change")}
        return cls(**{**content, **times})


class SkillMonitor:
    """The watch over one champion.

    Deterministic: the same reference, parameters and outcomes in the same batches give the same statistic, whether it
    ran through or was restored in between.

    Parameters
    ----------
    reference
        The champion's.
    config
        ``params.degradation``.
    """

    def __init__(self, reference: Reference, config: Degradation) -> None:
        self._reference = reference
        self._config = config
        self._bets = Bets.against(reference, config)
        self._detector = Detector(self._bets.bets, config.run_length, width=2 * len(SKILL))
        self._losses = LossWatch(reference, config)
        self._restated = self._unusable = 0
        self._resets: list[Json] = []
        self._alarm: Alarm | None = None

    @property
    def alarm(self) -> Alarm | None:
        """The first alarm since the last reset; it stays until then, whatever comes after."""
        return self._alarm

    @property
    def statistic(self) -> float:
        """Log of the statistic; the alarm is raised at log(run_length)."""
        return self._detector.statistic

    def update(self, batch: Sequence[Resolved]) -> None:
        """Take the outcomes of one feature time, of all symbols together, in the order of their `seq`."""
        last = None
        usable: list[Scored] = []
        for resolved in batch:
            if resolved.outcome.revision:
                self._restated += 1
            elif (scored := score(resolved)) is None:
                self._unusable += 1
            else:
                last = resolved
                usable.append(scored)
        if last is None:
            return
        sums = [0.0] * (2 * len(SKILL))
        for scored in usable:
            self._losses.update(scored.losses)
            for number, value in enumerate(scored.skill):
                sums[2 * number] += value
                sums[2 * number + 1] += value * value
        ratios, onsets = self._bets.log_ratios(usable)
        crossed = self._detector.update(ratios, len(usable), at=usable[0].at, sums=sums, onsets=onsets)
        if crossed and self._alarm is None:
            self._alarm = self._raise(last)

    def evidence(self) -> Json:
        """Return all that is known, as JSON with finite numbers."""
        statistic = self._detector.statistic
        return {
            "outcomes": self._detector.count,
            "restated": self._restated,
            "unusable": self._unusable,
            "statistic": statistic if math.isfinite(statistic) else None,
            "threshold": self._detector.threshold,
            "run_length": self._config.run_length,
            "watched": self._bets.weights,
            "targets": self._detector.shares(),
            "alarm": None if self._alarm is None else self._alarm.as_dict(),
            "loss": self._losses.evidence(),
            "resets": self._resets[-5:],
        }

    def reset(self, reason: str) -> None:
        """Forget all evidence, the alarm too, and begin again: after a rollback, say, or a repair of the data."""
        self._resets = [*self._resets[-4:], {"reason": reason, "outcomes": self._detector.count}]
        self._detector.clear()
        self._losses.clear()
        self._bets.clear()
        self._alarm = None

    def state(self) -> Json:
        """Return what `restore` needs, as JSON."""
        return {
            "detector": self._detector.state(),
            "losses": self._losses.state(),
            "bets": self._bets.state(),
            "restated": self._restated,
            "unusable": self._unusable,
            "resets": self._resets,
            "alarm": None if self._alarm is None else self._alarm.as_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`.

        Raises
        ------
        ValueError
            It is that of a monitor with other bets: of another champion, or other parameters.
        """
        self._detector.restore(state["detector"])
        self._losses.restore(state["losses"])
        self._bets.restore(state["bets"])
        self._restated, self._unusable = int(state["restated"]), int(state["unusable"])
        self._resets = list(state["resets"])
        self._alarm = None if state["alarm"] is None else Alarm.parse(state["alarm"])

    def _raise(self, last: Resolved) -> Alarm:
        number = self._detector.leader()
        change, outcomes, sums = self._detector.change(number)
        bet = self._detector.bets[number]
        return Alarm(
            seq=last.seq,
            time=last.outcome.resolved_at,
            statistic=self._detector.statistic,
            threshold=self._detector.threshold,
            targets=self._detector.shares(),
            alternative=f"{bet.target}: {bet.name}",
            change=moment(change),
            outcomes=outcomes,
            skill=self._skill(outcomes, sums),
        )

    def _skill(self, count: int, sums: Sequence[float]) -> dict[str, dict[str, float]]:
        """Return the skill over `count` outcomes from their sums, beside what the holdout lets expect."""
        direction, ret, range_ = self._reference.direction, self._reference.ret, self._reference.range
        expected = (
            (direction.accuracy.value, direction.design_effect),
            (direction.loss.value, direction.design_effect),
            (ret.alignment.mean, ret.design_effect),
            (range_.mean.value, range_.location_effect),
            (range_.loss.value, range_.location_effect),
        )
        z = NormalDist().inv_cdf((1 + self._config.confidence) / 2)
        skill = {}
        for number, (name, (value, effect)) in enumerate(zip(SKILL, expected, strict=True)):
            mean, square = sums[2 * number] / count, sums[2 * number + 1] / count
            radius = z * math.sqrt(max(square - mean * mean, 0.0) * effect / count)
            skill[name] = {"value": mean, "low": mean - radius, "high": mean + radius, "expected": value}
        return skill
