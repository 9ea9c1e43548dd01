"""The questions that a bot would ask: every bar, every symbol, answered and shadowed as the service does it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tradeloop.adaptation import Adaptation
from tradeloop.bundle import Bundle
from tradeloop.clock import VirtualClock
from tradeloop.lifecycle import Lifecycle
from tradeloop.predictor import Arm, Prediction, Predictor
from tradeloop.simulation.ahead import Ahead, ahead
from tradeloop.simulation.world import World


@dataclass(frozen=True)
class _Rows:
    """Feature rows as the online store would return them."""

    vectors: NDArray[np.float32]
    feature_time: NDArray[np.datetime64]
    found: NDArray[np.bool_]


class Traffic:
    """Asks for one bar at a time.

    Parameters
    ----------
    load
        Returns the bundle of a hash.
    """

    def __init__(self, world: World, clock: VirtualClock, load: Callable[[str], Bundle], *, max_age: timedelta) -> None:
        self._world = world
        self._clock = clock
        self._load = load
        self._max_age = max_age
        self._predictors: dict[str, Predictor] = {}
        self._asked = 0

    def ask(self, step: int, state: Lifecycle) -> list[Prediction]:
        """Return every model's prediction for the bars at ``world.times[step]``, answered ones first.

        Which model answers a symbol, and which only watch, is the lifecycle's to say.
        """
        rows = self._world.at(step)
        symbols = [str(symbol) for symbol in self._world.symbol[rows]]
        champion = state.champion
        if champion is None:
            return []
        modes: dict[str, Arm] = {champion.hash: "champion"}
        modes |= {route.model: route.mode for route in state.routes}
        at = self._world.times[step].item().replace(tzinfo=UTC)
        answering = [_hash(state, symbol, at) for symbol in symbols]
        ids = {model: self._ids(len(symbols)) for model in modes}
        parents = [ids[model][i] for i, model in enumerate(answering)]
        found = []
        for model, arm in modes.items():
            told = self._predict(model, symbols, rows, arm=arm, ids=ids[model], parents=parents)
            for answerer, prediction in zip(answering, told, strict=True):
                mine = answerer == model
                found.append(replace(prediction, answered=True, parent=None) if mine else prediction)
        return sorted(found, key=lambda prediction: not prediction.answered)

    def adapt(self, model: str, snapshot: str | None, adaptation: Adaptation | None) -> None:
        """Apply a snapshot of online adaptation to a model's forecasts from now on; None for none."""
        bundle = self._predictors[model].bundle if model in self._predictors else self._ahead(model)
        self._predictors[model] = Predictor(bundle, adaptation, snapshot)

    def _predict(
        self, model: str, symbols: list[str], rows: slice, *, arm: Arm, ids: list[str], parents: list[str]
    ) -> list[Prediction]:
        predictor = self._predictors.get(model)
        if predictor is None:
            predictor = self._predictors[model] = Predictor(self._ahead(model))
        ensemble = predictor.bundle.ensemble
        assert isinstance(ensemble, Ahead)
        ensemble.rows = rows
        now = self._clock.now()
        times = np.full(len(symbols), np.datetime64(now.replace(tzinfo=None), "us"))
        asked = _Rows(self._world.x[rows], times, np.ones(len(symbols), dtype=bool))
        mode = self._clock.mode
        return predictor.predict(
            symbols, asked, now=now, max_age=self._max_age, clock=mode, arm=arm, ids=ids, parents=parents
        )

    def _ahead(self, model: str) -> Bundle:
        return ahead(self._load(model), self._world.x)

    def _ids(self, count: int) -> list[str]:
        """Return UUIDs of version 7 whose time is the market's and whose rest counts on: the same in every run."""
        stem = int(self._clock.now().timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62
        numbers = range(self._asked, self._asked + count)
        self._asked += count
        return [str(uuid.UUID(int=stem | number)) for number in numbers]


def _hash(state: Lifecycle, symbol: str, at: datetime) -> str:
    answering = state.answering(symbol, at)
    assert answering is not None
    return answering.hash
