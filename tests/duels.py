"""Models of known skill that forecast the same bars, and the loop's turn around the rollout, for tests of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import delete, insert, select

from tradeloop.config import Rollout as Config
from tradeloop.config import Target
from tradeloop.loop.actions import Action, Done
from tradeloop.loop.losses import Forecasts, Pair
from tradeloop.loop.rollout import Rollout
from tradeloop.loop.trial import Standing
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.state.tables import CheckpointRow, RetrainingLogRow

MARKET = "synthetic"
START = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
EDGE = 2.0
"""Log odds of up for a signal of one; a forecast with this edge is the best there is."""


@dataclass(frozen=True)
class Skill:
    """What a model makes of the signal: its own `edge`, and `noise` in its log range."""

    edge: float = 0.0
    noise: float = 0.0


def hash_of(name: str) -> str:
    """Return the bundle hash of a model by its name."""
    return hashlib.sha256(name.encode()).hexdigest()


def at(step: int) -> datetime:
    """Return the feature time of a step."""
    return START + step * HOUR


def resolved(
    step: int, skills: Mapping[str, Skill], *, symbols: Sequence[str] = ("SYN",), horizon: int = 1, seed: int = 0
) -> list[Resolved]:
    """Return what all models forecast at a step and what came of it; the same for the same step and seed."""
    found: list[Resolved] = []
    for place, symbol in enumerate(symbols):
        rng = np.random.default_rng([seed, step, place])
        signal, level, error, size = rng.standard_normal(4).tolist()
        up = float(rng.random() < 1 / (1 + math.exp(-EDGE * signal)))
        log_range = -5.0 + 0.3 * level + 0.3 * error
        ret = (2 * up - 1) * abs(size) * math.exp(log_range)
        for name, skill in skills.items():
            own = np.random.default_rng([seed, step, place, *name.encode()])
            seq = (step * len(symbols) + place) * 100 + len(found) % 100
            prediction = Logged(
                id=f"{name}-{symbol}-{step}",
                symbol=symbol,
                model=hash_of(name),
                arm="champion",
                answered=True,
                parent=None,
                asked_at=at(step),
                feature_time=at(step),
                clock="virtual",
                verdict="trade",
                p_up=1 / (1 + math.exp(-skill.edge * signal)),
                ret=0.0,
                ret_low=-0.02,
                ret_high=0.02,
                range=math.exp(-5.0 + 0.3 * level + skill.noise * float(own.standard_normal())),
                range_low=0.001,
                range_high=0.02,
                side=None,
                edge=None,
                latency=1.0,
                adaptation=None,
            )
            end = at(step + horizon)
            outcome = Outcome(seq, prediction.id, "resolved", None, end, up, ret, log_range, "normal", 0, end)
            found.append(Resolved(prediction, outcome))
    return found


def pair(found: Sequence[Resolved], champion: str, challenger: str) -> list[Pair]:
    """Return the pairs of two models among the outcomes of one step."""
    models = {(each.prediction.model, each.prediction.symbol): each for each in found}
    pairs = []
    for (model, symbol), each in models.items():
        if model == hash_of(champion):
            outcome, other = each.outcome, models[hash_of(challenger), symbol]
            assert each.prediction.feature_time is not None
            assert outcome.label_end is not None
            assert outcome.direction is not None
            assert outcome.ret is not None
            assert outcome.range is not None
            when = (each.prediction.feature_time, outcome.label_end)
            labels = (outcome.direction, outcome.ret, outcome.range)
            pairs.append(Pair(symbol, *when, Forecasts.of(each), Forecasts.of(other), *labels))
    return pairs


@dataclass
class Loop:
    """The loop's turn, as far as the rollout takes part: outcomes, decisions and state in one transaction, then deeds.

    `fail` may name a point (``before commit``, ``before deed``, ``after deed``) at which every action raises `Crash`
    once; `crashed` remembers which did.
    """

    database: Database
    config: Config
    skills: Mapping[str, Skill]
    symbols: Sequence[str] = ("SYN",)
    seed: int = 0
    fail: str | None = None
    proven: tuple[Target, ...] = ()
    done: list[Done] = field(default_factory=list)
    crashed: set[str] = field(default_factory=set)
    market: str = MARKET

    def __post_init__(self) -> None:
        self.registry = Registry(self.database, self.market)
        self.rollout = Rollout(self.registry, self.config, standing_of=lambda _: Standing(self.proven))
        with self.database.read() as connection:
            content = connection.execute(
                select(CheckpointRow.content).where(CheckpointRow.market == self.market)
            ).scalar()
        self.step = int(content["step"]) if content else 0
        if content:
            self.rollout.restore(content["rollout"])

    def register(self, *names: str) -> None:
        for name in names:
            self.registry.register(hash_of(name), version=name, actor="trainer", reason="passed", passed=True)

    def admit(self, name: str) -> None:
        self.rollout.admit(hash_of(name), now=at(self.step), reason="passed the gate")

    def outcomes(self) -> list[Resolved]:
        """Return the outcomes that become known at the next step."""
        return resolved(self.step, self.skills, symbols=self.symbols, seed=self.seed)

    def turn(self) -> list[Action]:
        """Take one step."""
        self.rollout.observe(self.outcomes())
        self.step += 1
        return self.settle()

    def run(self, steps: int) -> Iterator[Action]:
        """Take so many steps; return the actions of each kind and version once."""
        seen: set[str] = set()
        for _ in range(steps):
            for action in self.turn():
                if action.key not in seen:
                    seen.add(action.key)
                    yield action

    def settle(self) -> list[Action]:
        """Decide, commit, do."""
        actions = self.rollout.advance(at(self.step))
        with self.database.write() as connection:
            for action in actions:
                row = action.decision()
                here = RetrainingLogRow.market == self.market
                known = select(RetrainingLogRow.seq).where(here, RetrainingLogRow.dedupe == row.dedupe)
                if connection.execute(known).first() is None:
                    connection.execute(insert(RetrainingLogRow).values(_values(row, self.market)))
            content = {"step": self.step, "rollout": self.rollout.state()}
            self._checkpoint(connection, content)
            for action in actions:
                self._may_crash("before commit", action)
        for action in actions:
            self._may_crash("before deed", action)
            self.done.append(self.rollout.execute(action))
            self._may_crash("after deed", action)
        return actions

    def decisions(self) -> list[tuple[str, str]]:
        """Return kind and version of each decision on record."""
        with self.database.read() as connection:
            query = select(RetrainingLogRow.__table__).where(RetrainingLogRow.market == self.market)
            rows = connection.execute(query.order_by(RetrainingLogRow.seq)).mappings().all()
        return [(row["decision"], row["evidence"]["version"]) for row in rows]

    def events(self) -> list[tuple[str, str, str]]:
        """Return kind, version and actor of each event of the registry."""
        return [(event.kind, event.version, event.actor) for event in self.registry.events()]

    def _checkpoint(self, connection: Any, content: dict[str, Any]) -> None:
        connection.execute(delete(CheckpointRow).where(CheckpointRow.market == self.market))
        row = {"market": self.market, "component": "rollout", "outcome_seq": 0, "wall_time": START, "content": content}
        connection.execute(insert(CheckpointRow).values(row))

    def _may_crash(self, point: str, action: Action) -> None:
        if self.fail == point and action.key not in self.crashed:
            self.crashed.add(action.key)
            raise Crash(point)


class Crash(Exception):
    """What a test raises where a process would have died."""


def _values(row: Any, market: str) -> dict[str, Any]:
    return {
        "market": market,
        "market_time": row.market_time,
        "wall_time": START,
        "outcome_seq": row.outcome_seq,
        "dedupe": row.dedupe,
        "kind": row.kind,
        "decision": row.decision,
        "reason": row.reason,
        "evidence": dict(row.evidence),
        "job_id": None,
    }
