"""What the routes below /api/ml answer, as the OpenAPI page shows it; the tests hold the real answers to these models.

`tradeloop status`, `performance`, `experiments`, `jobs` and `decisions` print the same with ``--json``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clock(_Answer):
    """The market's clock; `now` is null while a replayed market has no bar."""

    mode: str
    now: datetime | None


class ChallengerRoute(_Answer):
    """A model beside the champion, and the share of all questions that it answers."""

    model: str
    version: str
    mode: Literal["shadow", "canary", "ab"]
    share: float
    since: datetime


class ModelState(_Answer):
    """A version and where it stands."""

    hash: str
    version: str
    state: str
    since: datetime
    registered_at: datetime
    promoted_at: datetime | None
    actor: str
    reason: str
    evidence: dict[str, Any]
    before: str | None
    promoted_in_market: datetime | None


class ModelEntry(ModelState):
    """A version with its part as a challenger, and what is known of its bundle: null for one registered without."""

    challenger: ChallengerRoute | None
    schema_hash: str | None
    train_end: datetime | None
    size: int | None
    metrics: dict[str, Any] | None


class MLModelsAnswer(_Answer):
    """Every version, in the order of registration."""

    market: str
    champion: str | None
    models: list[ModelEntry]


class Window(BaseModel):
    """Metrics of one window at one moment; ``*`` stands for all."""

    model_config = ConfigDict(frozen=True)

    model: str
    symbol: str
    regime: str
    arm: str
    window: str
    as_of: datetime
    count: int
    metrics: dict[str, Any]


class ExpectedMetric(_Answer):
    """What to expect of open predictions, with its interval, and what the holdout had; null for the AUC."""

    value: float
    low: float
    high: float
    expected: float | None


class ExpectedSkill(_Answer):
    """What to expect of the serving model's open predictions, if `assumption` holds."""

    model: str
    predictions: int
    assumption: str
    accuracy: ExpectedMetric | None
    log_loss: ExpectedMetric | None
    auc: ExpectedMetric | None


class PerformanceAnswer(_Answer):
    """The newest windows of live performance, and what to expect of predictions without outcome."""

    market: str
    expected: ExpectedSkill | None
    windows: list[Window]


class Experiment(_Answer):
    """One attempt at training."""

    id: str
    market: str
    job_id: str | None
    attempt: int
    name: str | None
    state: str
    git_revision: str | None
    data_hash: str | None
    params: dict[str, Any]
    metrics: dict[str, Any]
    model: str | None
    verdict: str | None
    cpu_seconds: float | None
    peak_mib: float | None
    started_at: datetime
    ended_at: datetime | None
    error: str | None


class ExperimentsAnswer(_Answer):
    """The newest attempts at training, the last first."""

    market: str
    experiments: list[Experiment]


class JobEntry(_Answer):
    """A retraining that was asked for, and what became of it."""

    id: str
    market: str
    dedupe: str
    trigger: str
    priority: int
    reason: str
    evidence: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    attempts: int
    max_attempts: int
    not_before: datetime | None
    market_time: datetime
    created_at: datetime
    started_at: datetime | None
    seen_at: datetime | None
    ended_at: datetime | None
    owner: str | None
    result: dict[str, Any] | None
    error: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class RetrainingAnswer(_Answer):
    """The jobs that wait, the most urgent first, that run, and the newest that ended."""

    market: str
    queued: list[JobEntry]
    running: list[JobEntry]
    ended: list[JobEntry]


class RetrainAnswer(_Answer):
    """The job of a wish; `created` is false where the same wish was there already."""

    job: JobEntry
    created: bool


class JobAnswer(_Answer):
    """A job as it is now; `changed` is false where it was so already."""

    job: JobEntry
    changed: bool


class OutcomeEntry(_Answer):
    """How a prediction ended, beside what it said; the forecast is null where the log no longer has it."""

    seq: int
    prediction_id: str
    symbol: str
    status: Literal["resolved", "expired", "void"]
    reason: str | None
    label_end: datetime | None
    direction: float | None
    ret: float | None
    range: float | None
    regime: str | None
    entry_price: float | None
    exit_price: float | None
    repeat: bool
    revision: int
    resolved_at: datetime
    model: str | None
    arm: str | None
    answered: bool | None
    asked_at: datetime | None
    feature_time: datetime | None
    verdict: str | None
    side: str | None
    p_up: float | None
    latency: float | None
    ret_low: float | None
    ret_high: float | None
    range_low: float | None
    range_high: float | None
    forecast_ret: float | None
    forecast_range: float | None


class OutcomesAnswer(_Answer):
    """How predictions ended, the last learned first; returns are gross logs, ranges fractions of the price."""

    market: str
    outcomes: list[OutcomeEntry]


class AdaptationEntry(_Answer):
    """What the loop or a person appended: a snapshot, a rollback to another one, a hold or its release."""

    id: str
    kind: Literal["snapshot", "rollback", "hold", "release"]
    outcome_seq: int
    market_time: datetime
    wall_time: datetime
    reason: str
    content: dict[str, Any]


class AdaptationsAnswer(_Answer):
    """What was learned of a model between retrainings, the last first; `applied` is null for it as packaged."""

    market: str
    model: str
    held: bool
    applied: str | None
    entries: list[AdaptationEntry]


class Predictions(_Answer):
    """How the predictions ended; each is pending or ended in one way."""

    total: int
    resolved: int
    expired: int
    void: int
    pending: int


class Jobs(_Answer):
    """How many jobs are in which state."""

    queued: int
    running: int
    failed: int
    succeeded: int
    cancelled: int


class StandingDiagnosis(_Answer):
    """The loop's diagnosis, and since when (the market's time) it stands."""

    remedy: str
    reason: str
    since: datetime


class StandingAlarm(_Answer):
    """An alarm of a watch, as the newest decision saw it."""

    watch: str
    text: str
    outcome_seq: int | None
    changed_at: datetime | None


class BriefDecision(_Answer):
    """A decision of the loop, without its evidence."""

    seq: int
    market_time: datetime
    wall_time: datetime
    kind: str
    decision: str
    reason: str
    job_id: str | None


class ComponentHeartbeat(_Answer):
    """When a component was last seen, and how long ago by the wall's clock."""

    market: str
    component: str
    state: str
    detail: str
    market_time: datetime | None
    wall_time: datetime
    age_seconds: float


class Error(_Answer):
    """Something that went wrong, and how often."""

    component: str
    kind: str
    message: str
    count: int
    first_at: datetime
    last_at: datetime


class StatusAnswer(_Answer):
    """Everything at a glance."""

    market: str
    clock: Clock
    champion: ModelState | None
    challengers: list[ChallengerRoute]
    predictions: Predictions
    jobs: Jobs
    diagnosis: StandingDiagnosis | None
    alarms: list[StandingAlarm]
    decisions: list[BriefDecision]
    heartbeats: list[ComponentHeartbeat]
    errors: list[Error]


class Event(BaseModel):
    """A step in a model's life, or a decision of the loop; beside these the columns of its own table."""

    model_config = ConfigDict(frozen=True)

    stream: Literal["lifecycle", "decision"]
    seq: int
    time: datetime
    market: str
    kind: str
    reason: str
    evidence: dict[str, Any]


class EventsAnswer(_Answer):
    """A page, oldest first; `next` is what `after` has to be for the page that follows."""

    market: str
    events: list[Event]
    next: str
