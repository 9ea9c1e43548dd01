"""What /metrics says beyond BentoML's own request counts and times.

prometheus_client decides at its first import whether it writes for several processes, and BentoML sets that up only
in its workers: build `Telemetry` there, not at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tradeloop.predictor import Prediction

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_FORECAST_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LOG_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_AGE_BUCKETS = (60, 300, 900, 3600, 4 * 3600, 86_400, 2 * 86_400, 5 * 86_400, 10 * 86_400, 30 * 86_400)


class Telemetry:
    """Counters and histograms of one worker.

    Parameters
    ----------
    registry
        Where they are registered; by default where BentoML looks for them.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        to: Any = {"registry": registry or REGISTRY}
        self._predictions = Counter(
            "tradeloop_predictions", "Predictions answered, all of them logged", ["model", "verdict"], **to
        )
        self._unknown = Counter("tradeloop_unknown_symbols", "Symbols asked for that the market does not have", **to)
        self._champion = Gauge(
            "tradeloop_champion", "1 for the model that serves", ["model", "source"], multiprocess_mode="livemax", **to
        )
        self._refused = Counter("tradeloop_swaps_refused", "Champions that could not be swapped in", **to)
        handed = "From handing predictions to the log until they are durable"
        self._log_seconds = Histogram("tradeloop_log_seconds", handed, buckets=_LOG_BUCKETS, **to)
        self._log_failures = Counter("tradeloop_log_failures", "Requests not answered because the log failed", **to)
        age = "Age of the features used, on the market's clock"
        self._age = Histogram("tradeloop_feature_age_seconds", age, buckets=_AGE_BUCKETS, **to)
        self._arms = Counter("tradeloop_answers", "Predictions answered, by the arm that answered", ["arm"], **to)
        watched = "Forecasts of models that only watch, made and handed to the log"
        self._watched = Counter("tradeloop_challenger_predictions", watched, ["model", "arm"], **to)
        seconds = "Time of a challenger's batch of forecasts"
        self._watch_seconds = Histogram(
            "tradeloop_challenger_seconds", seconds, ["model"], buckets=_FORECAST_BUCKETS, **to
        )
        failures = "Challengers' forecasts that failed or took too long"
        self._failures = Counter("tradeloop_challenger_failures", failures, ["model"], **to)
        drops = "Challengers' forecasts that were not made or not logged"
        self._drops = Counter("tradeloop_challenger_drops", drops, ["model", "reason"], **to)
        fallbacks = "Questions of a canary or A/B arm that the champion answered because the arm could not"
        self._fallbacks = Counter("tradeloop_arm_fallbacks", fallbacks, ["model", "arm"], **to)
        self._fills = Counter("tradeloop_fills", "Fills that the bot reported", ["status"], **to)
        self._verdicts: dict[tuple[str, str], Any] = {}
        self._answers: dict[str, Any] = {}
        self._serving: Any = None

    def answered(self, predictions: Sequence[Prediction]) -> None:
        """Count one request's predictions and note the age of their features."""
        for prediction in predictions:
            key = (prediction.version, prediction.verdict)
            counter = self._verdicts.get(key)
            if counter is None:
                counter = self._verdicts[key] = self._predictions.labels(*key)
            counter.inc()
            arm = self._answers.get(prediction.arm)
            if arm is None:
                arm = self._answers[prediction.arm] = self._arms.labels(prediction.arm)
            arm.inc()
            age = prediction.feature_age
            if age is not None:
                self._age.observe(age)

    def unknown(self, count: int) -> None:
        """Count symbols that were not known."""
        if count:
            self._unknown.inc(count)

    def logged(self, seconds: float) -> None:
        """Note how long the log took to make a request's predictions durable."""
        self._log_seconds.observe(seconds)

    def log_failed(self) -> None:
        """Count a request that got no answer because its predictions could not be logged."""
        self._log_failures.inc()

    def serves(self, model: str, source: str) -> None:
        """Note which model serves from now on."""
        if self._serving is not None:
            self._serving.set(0)
        self._serving = self._champion.labels(model, source)
        self._serving.set(1)

    def refused(self) -> None:
        """Count a swap that was refused."""
        self._refused.inc()

    def watched(self, version: str, arm: str, count: int, seconds: float) -> None:
        """Count forecasts of a model that only watches; they took `seconds` together."""
        self._watched.labels(version, arm).inc(count)
        self._watch_seconds.labels(version).observe(seconds)

    def dropped(self, version: str, why: str, count: int) -> None:
        """Count a challenger's forecasts that were not made, or not logged."""
        self._drops.labels(version, why).inc(count)

    def failed(self, version: str) -> None:
        """Count a challenger's failure."""
        self._failures.labels(version).inc()

    def fell_back(self, version: str, arm: str, count: int) -> None:
        """Count questions that the champion answered in an arm's place."""
        self._fallbacks.labels(version, arm).inc(count)

    def filled(self, status: str, count: int) -> None:
        """Count fills that the bot reported."""
        self._fills.labels(status).inc(count)
