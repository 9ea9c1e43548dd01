"""Which firings become retrainings: at most one a turn, not too often; and every decision on record.

A decision is a row of ``retraining_log``. The log holds one for each

- firing and what became of it (``train``, ``merged``, ``wait`` or ``hold``, with the rule), again only if that changes;
- change of the diagnosis (kind ``diagnosis``, the decision being the remedy);
- day of the market without either (kind ``turn``, decision ``nothing``).

Each row says how many turns before it brought no news. So the log tells of every turn, and reads like a diary rather
than a heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tradeloop.config import Params, Target
from tradeloop.loop.decision_log import Decision, write
from tradeloop.loop.rules import active_job, obstacle
from tradeloop.loop.triggers.base import Firing
from tradeloop.monitoring.diagnosis import Diagnosis, rows_since, window_since
from tradeloop.monitoring.evidence import Evidence, plain
from tradeloop.state.job import Job

__all__ = ["Decider", "Decision", "write"]

REMEMBERED = 64
"""Firings whose fate is kept in mind; more do not stand at one time."""
START = "dataset.start"
_WATCHED: Mapping[str, Target] = {"direction": "direction", "ret": "return", "range": "range"}
"""Targets by the names that the skill watch gives them."""
_FINAL = ("train", "merged")
_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Decider:
    """Turns firings into decisions, by the rules of `tradeloop.loop.rules`; what it remembers can be stored.

    Of several firings that may be granted at one turn the most urgent is, and the others merge into it.

    Once a retraining on the rows since a change was granted, later ones keep to these rows as well (`learn_from`),
    until the next change, or until a person asks for a ``dataset.start`` of their own. What the change did not concern
    is not learned anew from these few rows, but kept as the champion has it; see `tradeloop.keeping`.
    """

    def __init__(self, params: Params) -> None:
        self._params = params
        self._standing: tuple[str, str, bool] | None = None
        self._day = ""
        self._quiet = 0
        self._fates: dict[str, str] = {}
        self.learn_from: datetime | None = None
        self._keep: dict[str, Any] = {}

    def decide(
        self,
        evidence: Evidence,
        diagnosis: Diagnosis,
        firings: Sequence[Firing],
        *,
        history: Callable[[], Sequence[Job]],
    ) -> list[Decision]:
        """Return what is new at this turn; most turns bring nothing.

        Parameters
        ----------
        firings
            The most urgent first; see `tradeloop.loop.triggers.check_all`.
        history
            Returns the market's newest jobs, some 50; asked only if a firing is undecided. `JobQueue.jobs` fits.
        """
        undecided = [firing for firing in firings if self._fates.get(firing.dedupe) not in _FINAL]
        standing = (diagnosis.cause, diagnosis.remedy, bool(diagnosis.overrides))
        day = evidence.now.strftime("%Y%m%d")
        if not undecided and standing == self._standing and day == self._day:
            self._quiet += 1
            return []
        found = [] if standing == self._standing else [self._diagnosed(evidence, diagnosis)]
        if undecided:
            found += self._judge(evidence, diagnosis, undecided, history())
        if not found and day != self._day:
            found = [self._nothing(evidence, diagnosis)]
        self._standing, self._day = standing, day
        self._quiet = 0 if found else self._quiet + 1
        return found

    def state(self) -> dict[str, Any]:
        """Return what it remembers, as JSON."""
        return {
            "standing": list(self._standing) if self._standing else None,
            "day": self._day,
            "quiet": self._quiet,
            "fates": dict(self._fates),
            "learn_from": self.learn_from.isoformat() if self.learn_from else None,
            "keep": dict(self._keep),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        standing = state["standing"]
        self._standing = (str(standing[0]), str(standing[1]), bool(standing[2])) if standing else None
        self._day, self._quiet = str(state["day"]), int(state["quiet"])
        self._fates = dict(state["fates"])
        self.learn_from = datetime.fromisoformat(state["learn_from"]) if state["learn_from"] else None
        self._keep = dict(state["keep"])

    def _judge(
        self, evidence: Evidence, diagnosis: Diagnosis, firings: Sequence[Firing], jobs: Sequence[Job]
    ) -> list[Decision]:
        """Return the decisions about firings, without those that stay as they are."""
        found: list[Decision] = []
        granted: Firing | None = None
        asked = {job.dedupe for job in jobs}
        for firing in firings:
            if firing.dedupe in asked:  # by a loop whose memory is lost
                self._remember(firing.dedupe, "train")
                continue
            if granted is not None:
                decision, rule, reason = (
                    "merged",
                    "merged",
                    f"{granted.trigger} is granted at this turn, and serves both",
                )
            elif against := obstacle(firing, evidence, diagnosis, jobs=jobs, config=self._params.triggers):
                decision, rule, reason = against.verdict, against.rule, against.reason
            else:
                decision, rule, reason, granted = "train", "train", firing.reason, firing
            if self._fates.get(firing.dedupe) == rule:
                continue
            self._remember(firing.dedupe, rule)
            content = self._content(evidence, diagnosis) | {"rule": rule, "firing": firing.reason}
            if rule == "train":
                found.append(self._granted(firing, evidence, content, jobs))
            else:
                key = _key(f"{firing.dedupe}:{rule}", evidence)
                found.append(_decision(firing.trigger, decision, reason, key, evidence=evidence, content=content))
        return found

    def _granted(self, firing: Firing, evidence: Evidence, content: Mapping[str, Any], jobs: Sequence[Job]) -> Decision:
        overrides = {**(evidence.costs.get("overrides") or {}), **self._window(firing, evidence)}
        active = active_job(jobs)
        misled = active is not None and _start(overrides) > _start(active.overrides)
        return Decision(
            kind=firing.trigger,
            decision="train",
            reason=firing.reason,
            dedupe=firing.dedupe,
            market_time=evidence.now,
            outcome_seq=evidence.outcome_seq,
            evidence={**content, "overrides": overrides},
            firing=firing,
            supersedes=active.id if active is not None and misled else None,
        )

    def _window(self, firing: Firing, evidence: Evidence) -> dict[str, Any]:
        """Return the firing's overrides, held to the rows since the last confirmed change; remember a new one."""
        overrides, alarm = dict(firing.overrides), evidence.skill_alarm
        if firing.unbounded and START in overrides:
            self.learn_from = None if overrides[START] is None else _start(overrides)
            return overrides
        if alarm is not None and alarm.changed_at is not None:
            self.learn_from = alarm.changed_at
            self._keep = self._unconcerned(evidence, alarm.changed_at)
        if self.learn_from is None or _start(overrides) > self.learn_from:
            return overrides
        rows = rows_since(self.learn_from, evidence.now, self._params)
        kept = self._keep if rows < self._params.triggers.accuracy_drop.keep_rows else {}
        return overrides | window_since(self.learn_from, rows, self._params) | kept

    def _unconcerned(self, evidence: Evidence, changed_at: datetime) -> dict[str, Any]:
        """Return the overrides that keep the champion's members of targets in which nothing has changed."""
        champion, config = evidence.champion, self._params.triggers.accuracy_drop
        if champion is None or champion.train_end is None or champion.train_end >= changed_at:
            return {}
        shares = evidence.skill.get("targets") or {}
        kept = [target for name, target in _WATCHED.items() if 0 <= shares.get(name, 1.0) < config.keep_share]
        return {"train.keep.bundle": champion.hash, "train.keep.targets": kept} if kept else {}

    def _diagnosed(self, evidence: Evidence, diagnosis: Diagnosis) -> Decision:
        reason = f"{diagnosis.cause}: {'; '.join(diagnosis.reasons)}"
        key, content = _key(f"diagnosis:{diagnosis.cause}", evidence), self._content(evidence, diagnosis)
        return _decision("diagnosis", diagnosis.remedy, reason, key, evidence=evidence, content=content)

    def _nothing(self, evidence: Evidence, diagnosis: Diagnosis) -> Decision:
        reason = f"{self._quiet} turns brought no news; the diagnosis stands: {diagnosis.cause}, {diagnosis.remedy}"
        content = self._content(evidence, diagnosis)
        return _decision("turn", "nothing", reason, _key("turn", evidence), evidence=evidence, content=content)

    def _content(self, evidence: Evidence, diagnosis: Diagnosis) -> dict[str, Any]:
        return evidence.as_dict() | {"diagnosis": plain(diagnosis), "turns": self._quiet}

    def _remember(self, dedupe: str, rule: str) -> None:
        self._fates.pop(dedupe, None)
        self._fates[dedupe] = rule
        while len(self._fates) > REMEMBERED:
            del self._fates[next(iter(self._fates))]


def _decision(
    kind: str, decision: str, reason: str, dedupe: str, *, evidence: Evidence, content: Mapping[str, Any]
) -> Decision:
    return Decision(kind, decision, reason, dedupe, evidence.now, evidence.outcome_seq, content)


def _key(stem: str, evidence: Evidence) -> str:
    """Return a key of this turn; what tells it from others stands at its end and is kept."""
    return f"{stem}:{evidence.outcome_seq}:{evidence.now:%Y%m%dT%H%M%S}"[-128:]


def _start(overrides: Mapping[str, Any]) -> datetime:
    """Return from when on a retraining learns; the beginning of time where it is not said."""
    value = overrides.get(START)
    if value is None:
        return _BEGINNING
    at = datetime.fromisoformat(str(value))
    return at if at.tzinfo else at.replace(tzinfo=UTC)
