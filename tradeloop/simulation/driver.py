"""The simulation: a virtual clock, the world's bars, and a policy that decides when models change.

1. Train the first model on the warm-up and promote it, whatever its gate says: somebody has to begin.
2. For each bar: set the clock, ask all models, log the answers durably as the service does.
3. Every `turn_every` bars let the policy have its turn.

Everything that decides is the live code: predictor, prediction log, registry, resolver, monitors, triggers, rollout.
What differs is the clock, the bars (in memory), and the training (in this process instead of a workspace).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from tradeloop.bars import Bars
from tradeloop.bundle import Bundle
from tradeloop.clock import VirtualClock
from tradeloop.config import ModelName, Params, parse_interval
from tradeloop.errors import BundleError, ConfigError, ModelError
from tradeloop.keeping import Kept
from tradeloop.lifecycle import Lifecycle
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction
from tradeloop.registry import Registry
from tradeloop.simulation.record import Change, Record, Training
from tradeloop.simulation.traffic import Traffic
from tradeloop.simulation.training import Trained, train_bundle
from tradeloop.simulation.world import World
from tradeloop.state.database import Database

ACTOR = "simulation"


@dataclass(frozen=True)
class Plan:
    """From where to where, and how.

    Attributes
    ----------
    warm_up
        Distinct bar times before the first model is trained.
    stop
        The last of the world's times that is asked at, exclusive; None for all.
    turn_every
        Bars between the policy's turns.
    models
        What is trained.
    """

    warm_up: int
    stop: int | None = None
    turn_every: int = 1
    models: tuple[ModelName, ...] = ("xgboost",)


class Policy(Protocol):
    """Decides, at each turn, what becomes of the models."""

    def turn(self, stage: Stage) -> None:
        """Act on what is known at ``stage.clock.now()``; ``stage.fresh`` holds the predictions since the last turn."""


class Stage:
    """What a policy can touch: clock, world up to now, registry, training."""

    def __init__(self, params: Params, world: World, plan: Plan, *, home: Path) -> None:
        if not 0 < plan.warm_up < len(world.times):
            raise ConfigError(f"warm_up must lie between 1 and {len(world.times) - 1} bars, got {plan.warm_up}")
        self.params = params
        self.world = world
        self.plan = plan
        self.home = home
        self.step = plan.warm_up
        self.clock = VirtualClock(moment(world.times[plan.warm_up]))
        home.mkdir(parents=True, exist_ok=True)
        self.database = Database.open(f"sqlite:///{home / 'simulation.db'}", durable=False)
        self.registry = Registry(self.database, params.market, clock=self.clock)
        self.log = PredictionLog(self.database)
        self.record = Record.empty(world)
        self.fresh: list[Prediction] = []
        self._bundles: dict[str, Bundle] = {}
        self._graphs: dict[str, Mapping[str, bytes]] = {}
        self._state = Lifecycle()
        self._seen = -1

    def bundle(self, model: str) -> Bundle:
        """Return a trained bundle by its hash."""
        if model not in self._bundles:
            raise BundleError(f"no bundle {model[:12]} was trained in this simulation")
        return self._bundles[model]

    def lifecycle(self) -> Lifecycle:
        """Return who serves and who watches, read again when the registry has news."""
        newest = self.registry.champion_version()
        if newest != self._seen:
            self._state, self._seen = self.registry.state(), newest
        return self._state

    def known_bars(self) -> dict[str, Bars]:
        """Return the bars that are closed by now."""
        now = np.datetime64(self.clock.now().replace(tzinfo=None), "us")
        return {
            symbol: bars[: int(np.searchsorted(bars.timestamp, now, side="right"))]
            for symbol, bars in self.world.bars.items()
        }

    def train(
        self, trigger: str, *, params: Params | None = None, since: np.datetime64 | None = None
    ) -> Trained | None:
        """Train on what is known by now and register the result; None where there was too little to train on."""
        now = np.datetime64(self.clock.now().replace(tzinfo=None), "us")
        matrix = self.world.known(now, since)
        champion = self.lifecycle().champion
        keep = (params or self.params).train.keep
        try:
            kept = Kept(self.bundle(keep.bundle), self._graphs[keep.bundle], keep, matrix) if keep.bundle else None
            trained = train_bundle(
                matrix,
                self.known_bars(),
                params or self.params,
                models=self.plan.models,
                folder=self.home,
                champion=self.bundle(champion.hash) if champion else None,
                kept=kept,
            )
        except ModelError as error:
            self._note(trigger, len(matrix), None, 0.0, passed=False, reason=str(error))
            return None
        self._bundles[trained.bundle.hash], self._graphs[trained.bundle.hash] = trained.bundle, trained.graphs
        failed = [str(check["text"]) for check in trained.gate["reasons"] if not check["ok"]]
        verdict = "passed the gate" if trained.passed else f"failed the gate: {'; '.join(failed[:2])}"
        self._note(
            trigger, len(matrix), trained.bundle.version, trained.cpu_seconds, passed=trained.passed, reason=verdict
        )
        return trained

    def note(self, kind: str, version: str, reason: str) -> None:
        """Write an event into the record."""
        self.record.changes.append(Change(self.step, self.clock.now().isoformat(), kind, version, reason))

    def close(self) -> None:
        """Let go of the database."""
        self.log.close()
        self.database.close()

    def _note(
        self, trigger: str, rows: int, version: str | None, cpu_seconds: float, *, passed: bool, reason: str
    ) -> None:
        when = self.clock.now().isoformat()
        self.record.trainings.append(Training(self.step, when, trigger, rows, version, passed, cpu_seconds, reason))


def simulate(
    params: Params,
    world: World,
    plan: Plan,
    policy_of: Callable[[Stage], Policy],
    *,
    home: Path,
    progress: Callable[[int], object] = lambda _: None,
) -> Record:
    """Run from the warm-up's end to the end of the world.

    Parameters
    ----------
    home
        An empty folder for the state database.
    progress
        Called with the number of bars done since the last call.
    """
    began = time.perf_counter()
    with _stage(params, world, plan, home) as stage:
        _begin(stage)
        policy = policy_of(stage)
        traffic = Traffic(world, stage.clock, stage.bundle, max_age=parse_interval(params.active.max_age))
        stop = min(plan.stop or len(world.times), len(world.times))
        for step in range(plan.warm_up, stop):
            stage.step = step
            stage.clock.advance(moment(world.times[step]))
            predictions = traffic.ask(step, stage.lifecycle())
            stage.log.append(predictions).result()
            stage.record.take(step, predictions)
            stage.fresh += predictions
            if (step - plan.warm_up) % plan.turn_every == plan.turn_every - 1 or step == stop - 1:
                policy.turn(stage)
                stage.fresh = []
            progress(1)
        stage.record.wall_seconds = time.perf_counter() - began
        return stage.record


def moment(time: np.datetime64) -> datetime:
    """Return a time of the world as an aware datetime."""
    value: datetime = time.astype("datetime64[us]").item()
    return value.replace(tzinfo=UTC)


@contextmanager
def _stage(params: Params, world: World, plan: Plan, home: Path) -> Iterator[Stage]:
    stage = Stage(params, world, plan, home=home)
    try:
        yield stage
    finally:
        stage.close()


def _begin(stage: Stage) -> None:
    trained = stage.train("first")
    if trained is None:
        raise ModelError(f"the first model could not be trained: {stage.record.trainings[-1].reason}")
    version = trained.bundle.version
    reason = f"the first model, {stage.record.trainings[-1].reason}"
    stage.registry.register(trained.bundle.hash, version=version, actor=ACTOR, reason=reason, passed=True)
    stage.registry.promote(trained.bundle.hash, actor=ACTOR, reason=reason)
    stage.note("promoted", version, reason)
