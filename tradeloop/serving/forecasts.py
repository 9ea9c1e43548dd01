"""A request's forecasts: each symbol's by the model that answers it, the champion's wherever another one cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tradeloop.errors import ModelError, TradeloopError
from tradeloop.predictor import Prediction
from tradeloop.serving.features import Asked, FeatureReader
from tradeloop.serving.lineup import Challenger, Lineup
from tradeloop.serving.questions import Question, Tally
from tradeloop.state.feature_rows import OnlineRows


class Forecaster:
    """Reads the features once and asks the models; one instance serves many threads."""

    def __init__(self, features: FeatureReader, max_age: timedelta, tally: Tally) -> None:
        self._features = features
        self._max_age = max_age
        self._tally = tally

    def answer(self, lineup: Lineup, symbols: Sequence[str], as_of: datetime | None, since: float) -> Question:
        """Return the answers, with what those who watch need to see.

        Parameters
        ----------
        since
            `time.perf_counter` when the question came.

        Raises
        ------
        SchemaMismatch, StoreError
            There are no features to answer from.
        """
        schema = lineup.champion.schema
        features = self._features
        asked = features.read(symbols, schema) if as_of is None else features.as_of(symbols, schema, as_of)
        reading = time.perf_counter() - since
        by_arms = self._by_arms(lineup, symbols, asked, as_of=as_of, since=since) if lineup.shared else {}
        left = [i for i in range(len(symbols)) if i not in by_arms] if by_arms else None
        champions = lineup.champion.predictor.predict(
            symbols if left is None else [symbols[i] for i in left],
            asked.rows if left is None else asked.rows.at(left),
            now=asked.now,
            max_age=self._max_age,
            clock=features.clock.mode,
            since=since,
        )
        if left is not None:
            answers = {**by_arms, **dict(zip(left, champions, strict=True))}
            champions = [answers[i] for i in range(len(symbols))]
        return Question(champions, asked.rows, schema.hash, reading, as_of)

    def _by_arms(self, lineup: Lineup, symbols: Sequence[str], asked: Asked, **of: Any) -> dict[int, Prediction]:
        """Return the answers of canaries and A/B arms, by place."""
        places: dict[str, list[int]] = {}
        arms: dict[str, Challenger] = {}
        for i, symbol in enumerate(symbols):
            challenger = lineup.answering(symbol, _moment(asked.rows, i))
            if challenger is not None:
                arms[challenger.model.hash] = challenger
                places.setdefault(challenger.model.hash, []).append(i)
        found: dict[int, Prediction] = {}
        for model, mine in places.items():
            found |= self._by_arm(arms[model], symbols, mine, asked, **of)
        return found

    def _by_arm(
        self,
        challenger: Challenger,
        symbols: Sequence[str],
        places: Sequence[int],
        asked: Asked,
        *,
        as_of: datetime | None,
        since: float,
    ) -> dict[int, Prediction]:
        """Return what a challenger answers; the places where it has none, or fails, are left to the champion."""
        model, mode = challenger.model, challenger.route.mode
        mine = [symbols[i] for i in places]
        started = time.perf_counter()
        try:
            same = asked.schema_hash == model.schema.hash
            rows = asked.rows.at(places) if same else self._features.rows(mine, model.schema, as_of)
            now, clock = asked.now, self._features.clock.mode
            made = model.predictor.predict(
                mine, rows, now=now, max_age=self._max_age, clock=clock, arm=mode, since=since
            )
            if any(answer.reasons == ("invalid_forecast",) for answer in made):
                raise ModelError("its forecast is not finite")
        except Exception as error:  # an answer must not depend on a challenger, whatever is wrong with it
            reason = str(error) if isinstance(error, TradeloopError) else f"{type(error).__name__}: {error}"
            challenger.breaker.failed(reason)
            self._tally.failed(model.version, reason)
            self._tally.fell_back(model.version, mode, len(places))
            return {}
        if challenger.breaker.succeeded(time.perf_counter() - started):
            self._tally.failed(model.version, str(challenger.breaker.reason))
        usable = (rows.found & (rows.feature_time == asked.rows.feature_time[list(places)])).tolist()
        answers = {
            i: answer
            for i, answer, fine in zip(places, made, usable, strict=True)
            if answer.id is not None and (same or fine)
        }
        self._tally.fell_back(model.version, mode, len(places) - len(answers))
        return answers


def _moment(rows: OnlineRows, place: int) -> datetime | None:
    moment: datetime | None = rows.feature_time[place].astype("datetime64[us]").item()
    return None if moment is None else moment.replace(tzinfo=UTC)
