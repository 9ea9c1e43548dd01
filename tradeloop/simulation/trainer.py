"""A trainer that trains in this process, on what the virtual clock lets it see; ready a few bars later."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tradeloop.config import Params
from tradeloop.errors import TradeloopError
from tradeloop.loop.retrain import TrainingResult
from tradeloop.monitoring.evidence import plain
from tradeloop.simulation.driver import ACTOR, Stage
from tradeloop.state.job import Attempt, Job
from tradeloop.version_facts import VersionFacts


class MemoryTrainer:
    """See `tradeloop.loop.retrain.Trainer`.

    The model is made when the job starts, of what is known then, and told of `delay` bars later: in the market's time
    a training takes as long as it does live.
    """

    def __init__(self, stage: Stage, *, delay: int) -> None:
        self._stage = stage
        self._delay = delay
        self._running: dict[str, tuple[int, TrainingResult]] = {}

    def start(self, job: Job) -> None:
        """Train now, answer later."""
        stage = self._stage
        try:
            params = overridden(stage.params, job.overrides)
        except TradeloopError as error:
            self._running[job.id] = (stage.step, TrainingResult(job.id, "failed", "params", str(error)))
            return
        since = params.dataset.start
        trained = stage.train(job.trigger, params=params, since=None if since is None else naive(since))
        if trained is None:
            reason = stage.record.trainings[-1].reason
            self._running[job.id] = (stage.step, TrainingResult(job.id, "failed", "failed", reason))
            return
        bundle = trained.bundle
        verdict = "pass" if trained.passed else "fail"
        stage.registry.register(
            bundle.hash,
            version=bundle.version,
            actor=ACTOR,
            reason=stage.record.trainings[-1].reason,
            passed=trained.passed,
            facts=VersionFacts.of(bundle),
        )
        attempt = Attempt(
            params=plain(job.overrides),
            metrics=dict(bundle.metrics),
            model=bundle.hash,
            verdict=verdict,
            cpu_seconds=trained.cpu_seconds,
        )
        summary = {"model": bundle.hash, "version": bundle.version, "verdict": verdict}
        result = TrainingResult(job.id, "succeeded", attempt=attempt, summary=summary)
        self._running[job.id] = (stage.step + self._delay, result)

    def poll(self) -> list[TrainingResult]:
        """Return the trainings that have ended by now."""
        ended = [job for job, (ready, _) in self._running.items() if ready <= self._stage.step]
        return [self._running.pop(job)[1] for job in ended]

    def cancel(self, job_id: str, reason: str) -> None:
        """Forget a training."""
        if job_id in self._running:
            self._running[job_id] = (self._stage.step, TrainingResult(job_id, "cancelled", error=reason))

    def status(self) -> dict[str, str]:
        """Return when each training will be ready."""
        return {job: f"ready at step {ready}" for job, (ready, _) in self._running.items()}

    def close(self) -> None:
        """Forget all trainings."""
        self._running.clear()

    def tidy(self, active: Collection[str]) -> None:
        """Do nothing: trainings here leave nothing behind."""


def overridden(params: Params, overrides: dict[str, Any]) -> Params:
    """Return `params` with some values changed, by dotted name.

    Raises
    ------
    ConfigError
        A name or value breaks the rules of params.yaml.
    """
    from pydantic import ValidationError

    from tradeloop.config.explain import explain
    from tradeloop.errors import ConfigError

    raw = params.model_dump()
    for name, value in overrides.items():
        *blocks, key = name.split(".")
        block = raw
        for part in blocks:
            if not isinstance(block.get(part), dict):
                raise ConfigError(f"there is no parameter {name!r}")
            block = block[part]
        block[key] = value
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"overrides: {explain(error, Params)}") from None


def naive(moment: datetime) -> np.datetime64:
    """Return a time (naive: UTC) as numpy holds it."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment, "us")
