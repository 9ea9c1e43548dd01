"""Which forecasts of which models belong together: those of one feature time, once all that are expected have ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tradeloop.loop.losses import Forecasts, Pair
from tradeloop.monitoring.records import Resolved

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A model's forecast of a symbol, and its labels."""

    forecasts: Forecasts
    label_end: datetime
    labels: tuple[float, float, float]

    def state(self) -> list[Any]:
        said = self.forecasts
        return [said.p_up, said.ret, said.log_range, self.label_end.isoformat(), *self.labels]


@dataclass
class Moment:
    """The forecasts of one feature time, by symbol and model."""

    time: datetime
    ended: dict[Key, _Ended] = field(default_factory=dict)

    def pairs(self, champion: str, challenger: str) -> list[Pair]:
        """Return the pairs of two models: the same symbol, labels and label end."""
        found = []
        for (symbol, model), ours in self.ended.items():
            theirs = self.ended.get((symbol, challenger)) if model == champion else None
            if theirs is not None and (theirs.label_end, theirs.labels) == (ours.label_end, ours.labels):
                pair = (symbol, self.time, ours.label_end, ours.forecasts, theirs.forecasts)
                found.append(Pair(*pair, *ours.labels))
        return found


class Pairing:
    """Collects forecasts by feature time; a time is closed when all that came at the last one are there.

    A time is also closed by the first forecast of a later one. What comes after that is `late` and left out, and its
    symbol and model are waited for at the next time. Of a model that was asked twice about a bar the first counts.
    What is closed when depends on the order of outcomes only, not on how they are cut into turns.
    """

    def __init__(self) -> None:
        self._open: Moment | None = None
        self._closed: datetime | None = None
        self._expected: set[Key] = set()
        self._missing: set[Key] = set()
        self.late = 0

    def add(self, resolved: Resolved, models: Collection[str]) -> list[Moment]:
        """Take in one outcome; return the times that this closes, oldest first."""
        said, outcome = resolved.prediction, resolved.outcome
        time, key = said.feature_time, (said.symbol, said.model)
        if time is None or said.model not in models or outcome.status != "resolved" or outcome.label_end is None:
            return []
        if outcome.direction is None or outcome.ret is None or outcome.range is None:
            return []
        if self._closed is not None and time <= self._closed:
            self._belated(time, key, outcome.revision)
            return []
        found = []
        if self._open is not None and time > self._open.time:
            found.append(self._close(self._open))
        elif self._open is not None and time < self._open.time:
            self.late += 1
            return []
        if self._open is None:
            self._open, self._missing = Moment(time), set(self._expected)
        labels = (outcome.direction, outcome.ret, outcome.range)
        known = self._open.ended.get(key)
        if known is None or outcome.revision:
            forecasts = known.forecasts if known else Forecasts.of(resolved)
            self._open.ended[key] = _Ended(forecasts, outcome.label_end, labels)
        self._missing.discard(key)
        if self._expected and not self._missing:
            found.append(self._close(self._open))
        return found

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        moment = self._open
        return {
            "closed": self._closed.isoformat() if self._closed else None,
            "expected": sorted(map(list, self._expected)),
            "missing": sorted(map(list, self._missing)),
            "late": self.late,
            "time": moment.time.isoformat() if moment else None,
            "ended": [[*key, *ended.state()] for key, ended in moment.ended.items()] if moment else [],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._closed = datetime.fromisoformat(state["closed"]) if state["closed"] else None
        self._expected = {(symbol, model) for symbol, model in state["expected"]}
        self._missing = {(symbol, model) for symbol, model in state["missing"]}
        self.late = int(state["late"])
        self._open = Moment(datetime.fromisoformat(state["time"])) if state["time"] else None
        for symbol, model, p_up, ret, log_range, end, *labels in state["ended"]:
            assert self._open is not None
            ended = _Ended(Forecasts(p_up, ret, log_range), datetime.fromisoformat(end), tuple(labels))
            self._open.ended[symbol, model] = ended

    def _close(self, moment: Moment) -> Moment:
        self._closed, self._open, self._expected = moment.time, None, set(moment.ended)
        return moment

    def _belated(self, time: datetime, key: Key, revision: int) -> None:
        known = time == self._closed and key in self._expected
        if not known and not revision:
            self.late += 1
        if time == self._closed:
            self._expected.add(key)
