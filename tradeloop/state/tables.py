"""The tables of the state database.

All times go in and come out as aware datetimes in UTC. ``*_at`` named `asked_at`, `feature_time`, `label_end`,
`resolved_at` and `market_time` are the market's clock; `logged_at`, `recorded_at` and `wall_time` are the wall's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    event,
    false,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes; hand UTC to the driver."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a stored time must be aware, got {value}")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Declares every table of the state database."""


class PredictionRow(Base):
    """One answered forecast with all that is needed to compute it again.

    Returns are gross logs, ranges are fractions of price per bar; a forecast that was withheld is NULL throughout.
    `asked_at` is the market's time, `logged_at` the wall's, `max_age` is in seconds, `latency` in milliseconds.

    `arm` is ``champion``, ``shadow``, ``canary`` or ``ab``; `answered` tells whether the bot saw it; `parent` is, for
    one that it did not see, the id of the answered prediction of the same question. `adaptation` names the snapshot
    of online adaptation that was applied, None for the bundle as it was packaged.
    """

    __tablename__ = "predictions"
    __table_args__ = (Index("predictions_symbol", "market", "symbol", "asked_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    market: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    asked_at: Mapped[datetime] = mapped_column(UtcTime)
    logged_at: Mapped[datetime] = mapped_column(UtcTime)
    feature_time: Mapped[datetime | None] = mapped_column(UtcTime)
    max_age: Mapped[float] = mapped_column(Double)
    model: Mapped[str] = mapped_column(String(64))
    schema_hash: Mapped[str] = mapped_column(String(64))
    features: Mapped[bytes] = mapped_column(LargeBinary)
    p_up: Mapped[float | None] = mapped_column(Double)
    ret: Mapped[float | None] = mapped_column(Double)
    ret_low: Mapped[float | None] = mapped_column(Double)
    ret_high: Mapped[float | None] = mapped_column(Double)
    range: Mapped[float | None] = mapped_column(Double)
    range_low: Mapped[float | None] = mapped_column(Double)
    range_high: Mapped[float | None] = mapped_column(Double)
    verdict: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[str]] = mapped_column(JSON)
    clock: Mapped[str] = mapped_column(String(16))
    side: Mapped[str | None] = mapped_column(String(8))
    edge: Mapped[float | None] = mapped_column(Double)
    arm: Mapped[str] = mapped_column(String(16), server_default="champion")
    answered: Mapped[bool] = mapped_column(Boolean, server_default=true())
    parent: Mapped[str | None] = mapped_column(String(36))
    latency: Mapped[float | None] = mapped_column(Double)
    adaptation: Mapped[str | None] = mapped_column(String(36))


_SEQ = BigInteger().with_variant(Integer, "sqlite")


class PendingRow(Base):
    """A prediction that has not ended yet.

    The database itself adds the row with the prediction, in the same transaction (`PENDING_TRIGGER`); who writes the
    outcome takes it away. So a prediction has a row here or an outcome, never both and never neither, whoever wrote it
    and however late it was committed.
    """

    __tablename__ = "pending"
    __table_args__ = (
        UniqueConstraint("prediction_id", name="pending_prediction"),
        Index("pending_market", "market", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    market: Mapped[str] = mapped_column(String(64))
    prediction_id: Mapped[str] = mapped_column(String(36))


PENDING_TRIGGER = {
    "sqlite": (
        "CREATE TRIGGER predictions_pending AFTER INSERT ON predictions BEGIN "
        "INSERT INTO pending (market, prediction_id) VALUES (new.market, new.id); END",
    ),
    "postgresql": (
        "CREATE FUNCTION predictions_pending() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO pending (market, prediction_id) VALUES (NEW.market, NEW.id); RETURN NULL; END $$",
        "CREATE TRIGGER predictions_pending AFTER INSERT ON predictions "
        "FOR EACH ROW EXECUTE FUNCTION predictions_pending()",
    ),
}
"""What makes every new prediction pending, by dialect; a migration has to run it where `create_all` does not."""


@event.listens_for(PredictionRow.__table__, "after_create")
def _add_trigger(_table: Any, connection: Connection, **_options: Any) -> None:
    for statement in PENDING_TRIGGER[connection.dialect.name]:
        connection.exec_driver_sql(statement)


class OutcomeRow(Base):
    """How a prediction ended: ``resolved`` with its labels, ``expired`` or ``void`` with the reason.

    Labels as the labels stage defines them: `direction` 0 or 1, `ret` gross log return, `range` the natural log of the
    volatility per bar. `entry_price` and `exit_price` are those that the labels assume, as the bars had them when the
    outcome was learned. `repeat` marks an answer to a question (symbol and bar) that the same model had answered
    before, on the same arm. `seq` orders outcomes as the loop learned of them; `revision` counts restatements, whose
    earlier values stand in `outcome_revisions`.
    """

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("prediction_id", name="outcomes_prediction"),
        Index("outcomes_market", "market", "seq"),
        Index("outcomes_symbol", "market", "symbol", "label_end"),
    )

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    prediction_id: Mapped[str] = mapped_column(String(36))
    market: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(200))
    label_end: Mapped[datetime | None] = mapped_column(UtcTime)
    direction: Mapped[float | None] = mapped_column(Double)
    ret: Mapped[float | None] = mapped_column(Double)
    range: Mapped[float | None] = mapped_column(Double)
    entry_price: Mapped[float | None] = mapped_column(Double)
    exit_price: Mapped[float | None] = mapped_column(Double)
    regime: Mapped[str | None] = mapped_column(String(16))
    repeat: Mapped[bool] = mapped_column(Boolean, server_default=false())
    revision: Mapped[int] = mapped_column(Integer, server_default="0")
    resolved_at: Mapped[datetime] = mapped_column(UtcTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcTime)


class OutcomeTotalRow(Base):
    """How many outcomes of a status a market has; kept with each outcome, so that nobody has to count millions."""

    __tablename__ = "outcome_totals"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class OutcomeRevisionRow(Base):
    """What an outcome said before the bars behind it were restated."""

    __tablename__ = "outcome_revisions"
    __table_args__ = (UniqueConstraint("prediction_id", "revision", name="outcome_revisions_revision"),)

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    prediction_id: Mapped[str] = mapped_column(String(36))
    revision: Mapped[int] = mapped_column(Integer)
    label_end: Mapped[datetime | None] = mapped_column(UtcTime)
    direction: Mapped[float | None] = mapped_column(Double)
    ret: Mapped[float | None] = mapped_column(Double)
    range: Mapped[float | None] = mapped_column(Double)
    reason: Mapped[str] = mapped_column(String(200))
    recorded_at: Mapped[datetime] = mapped_column(UtcTime)


class FillRow(Base):
    """A fill that the bot reported; `fill_id` is the bot's own, so that sending it again changes nothing.

    `side` is ``buy`` or ``sell``. `expected_price` is the price that the bot wanted (the arrival price); `fee`, and
    `pnl` (the profit booked with this fill, before fees), are in quote currency.
    """

    __tablename__ = "fills"
    __table_args__ = (
        UniqueConstraint("market", "fill_id", name="fills_id"),
        Index("fills_prediction", "prediction_id"),
        Index("fills_market", "market", "filled_at"),
    )

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    fill_id: Mapped[str] = mapped_column(String(64))
    prediction_id: Mapped[str] = mapped_column(String(36))
    market: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    side: Mapped[str] = mapped_column(String(8))
    quantity: Mapped[float] = mapped_column(Double)
    price: Mapped[float] = mapped_column(Double)
    expected_price: Mapped[float | None] = mapped_column(Double)
    fee: Mapped[float] = mapped_column(Double)
    pnl: Mapped[float | None] = mapped_column(Double)
    filled_at: Mapped[datetime] = mapped_column(UtcTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcTime)


class PerformanceWindowRow(Base):
    """Metrics of one window at one moment; `symbol`, `regime`, `model` and `arm` are ``*`` where all are meant.

    `window` is ``n:200`` or ``t:30d``.
    """

    __tablename__ = "performance_windows"
    __table_args__ = (
        Index("performance_windows_key", "market", "symbol", "regime", "arm", "window", "as_of"),
        Index("performance_windows_model", "market", "model", "symbol", "regime", "arm", "window", "as_of"),
    )

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    market: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    regime: Mapped[str] = mapped_column(String(16))
    arm: Mapped[str] = mapped_column(String(16))
    window: Mapped[str] = mapped_column(String(16))
    as_of: Mapped[datetime] = mapped_column(UtcTime)
    outcome_seq: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(Integer)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


class PerformanceNewestRow(Base):
    """The newest row of ``performance_windows`` of each key, so that the present is found without its history."""

    __tablename__ = "performance_newest"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    symbol: Mapped[str] = mapped_column(String(32), primary_key=True)
    regime: Mapped[str] = mapped_column(String(16), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16), primary_key=True)
    window: Mapped[str] = mapped_column(String(16), primary_key=True)
    as_of: Mapped[datetime] = mapped_column(UtcTime)
    outcome_seq: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(Integer)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


class ModelVersionRow(Base):
    """What does not change about a version: written once, when it is registered."""

    __tablename__ = "model_versions"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64))
    schema_hash: Mapped[str | None] = mapped_column(String(64))
    train_end: Mapped[datetime | None] = mapped_column(UtcTime)
    size: Mapped[int | None] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    recorded_at: Mapped[datetime] = mapped_column(UtcTime)


class JobRow(Base):
    """A retraining that was asked for, whatever became of it.

    `state` is ``queued``, ``running``, ``succeeded``, ``failed`` (every attempt did) or ``cancelled``. `dedupe` is what
    makes the same request twice one job. Times are the wall's but for `market_time` and `not_before`.
    """

    __tablename__ = "jobs"
    __table_args__ = (UniqueConstraint("market", "dedupe", name="jobs_dedupe"), Index("jobs_state", "market", "state"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    market: Mapped[str] = mapped_column(String(64))
    dedupe: Mapped[str] = mapped_column(String(128))
    trigger: Mapped[str] = mapped_column(String(32))
    priority: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(String(2000))
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    max_attempts: Mapped[int] = mapped_column(Integer)
    not_before: Mapped[datetime | None] = mapped_column(UtcTime)
    market_time: Mapped[datetime] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    seen_at: Mapped[datetime | None] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    owner: Mapped[str | None] = mapped_column(String(128))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[str | None] = mapped_column(Text)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcTime)
    acknowledged_by: Mapped[str | None] = mapped_column(String(64))


class ScheduleRow(Base):
    """When a periodic task of the loop last fell due and when it does next (the wall's time)."""

    __tablename__ = "schedule"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_at: Mapped[datetime | None] = mapped_column(UtcTime)
    next_at: Mapped[datetime] = mapped_column(UtcTime)


class ExperimentRow(Base):
    """One attempt at training: code, data, parameters, cost and what came of it."""

    __tablename__ = "training_experiments"
    __table_args__ = (Index("training_experiments_market", "market", "started_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    market: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(36))
    attempt: Mapped[int] = mapped_column(Integer)
    name: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    git_revision: Mapped[str | None] = mapped_column(String(64))
    data_hash: Mapped[str | None] = mapped_column(String(64))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    model: Mapped[str | None] = mapped_column(String(64))
    verdict: Mapped[str | None] = mapped_column(String(16))
    cpu_seconds: Mapped[float | None] = mapped_column(Double)
    peak_mib: Mapped[float | None] = mapped_column(Double)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    error: Mapped[str | None] = mapped_column(Text)


class RetrainingLogRow(Base):
    """Every decision about retraining and rollout, the decision to do nothing too; rows are only ever appended."""

    __tablename__ = "retraining_log"
    __table_args__ = (
        UniqueConstraint("market", "dedupe", name="retraining_log_dedupe"),
        Index("retraining_log_market", "market", "seq"),
    )

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    market: Mapped[str] = mapped_column(String(64))
    market_time: Mapped[datetime] = mapped_column(UtcTime)
    wall_time: Mapped[datetime] = mapped_column(UtcTime)
    outcome_seq: Mapped[int] = mapped_column(BigInteger)
    dedupe: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(32))
    decision: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(2000))
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    job_id: Mapped[str | None] = mapped_column(String(36))


class AdaptationRow(Base):
    """A snapshot of the online adaptation of one model; the newest that is not rolled back is applied."""

    __tablename__ = "adaptations"
    __table_args__ = (Index("adaptations_model", "market", "model", "seq"),)

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    market: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    outcome_seq: Mapped[int] = mapped_column(BigInteger)
    market_time: Mapped[datetime] = mapped_column(UtcTime)
    wall_time: Mapped[datetime] = mapped_column(UtcTime)
    reason: Mapped[str] = mapped_column(String(500))
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class CheckpointRow(Base):
    """What a component remembers, as of the outcome with number `outcome_seq`; written with that turn's decisions."""

    __tablename__ = "checkpoints"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    component: Mapped[str] = mapped_column(String(64), primary_key=True)
    outcome_seq: Mapped[int] = mapped_column(BigInteger)
    wall_time: Mapped[datetime] = mapped_column(UtcTime)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class HeartbeatRow(Base):
    """When a component was last seen, and how it was."""

    __tablename__ = "heartbeats"

    market: Mapped[str] = mapped_column(String(64), primary_key=True)
    component: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(String(2000))
    market_time: Mapped[datetime | None] = mapped_column(UtcTime)
    wall_time: Mapped[datetime] = mapped_column(UtcTime)


class LeaseRow(Base):
    """Who may act alone under a name, until when (the wall's time)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128))
    acquired_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)


class ErrorRow(Base):
    """Something that went wrong and was not the caller's fault; the same failure again raises `count`."""

    __tablename__ = "errors"
    __table_args__ = (Index("errors_market", "market", "last_at"),)

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    market: Mapped[str] = mapped_column(String(64))
    component: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(String(2000))
    detail: Mapped[str | None] = mapped_column(Text)
    count: Mapped[int] = mapped_column(Integer, server_default="1")
    first_at: Mapped[datetime] = mapped_column(UtcTime)
    last_at: Mapped[datetime] = mapped_column(UtcTime)


class ModelEventRow(Base):
    """One step in a model's life; rows are only ever appended. `mode` and `share` are a challenger's."""

    __tablename__ = "model_events"
    __table_args__ = (Index("model_events_market", "market", "seq"),)

    seq: Mapped[int] = mapped_column(_SEQ, primary_key=True, autoincrement=True)
    market: Mapped[str] = mapped_column(String(64))
    time: Mapped[datetime] = mapped_column(UtcTime)
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    previous: Mapped[str | None] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(2000))
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    mode: Mapped[str | None] = mapped_column(String(8))
    share: Mapped[float | None] = mapped_column(Double)
    market_time: Mapped[datetime | None] = mapped_column(UtcTime)


class RevisionRow(Base):
    """Which revision of these tables the database has, where Alembic looks for it."""

    __tablename__ = "alembic_version"

    version_num: Mapped[str] = mapped_column(String(32), primary_key=True)
