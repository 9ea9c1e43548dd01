"""The loop: outcomes, fills, windows, versions, jobs, decisions, checkpoints, heartbeats, leases, errors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the loop's tables, and its columns to the others."""
    op.create_table(
        "adaptations",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("outcome_seq", sa.BigInteger(), nullable=False),
        sa.Column("market_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wall_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("adaptations_model", "adaptations", ["market", "model", "seq"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("component", sa.String(length=64), nullable=False),
        sa.Column("outcome_seq", sa.BigInteger(), nullable=False),
        sa.Column("wall_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("market", "component"),
    )
    op.create_table(
        "errors",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("component", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=2000), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("count", sa.Integer(), server_default="1", nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("errors_market", "errors", ["market", "last_at"], unique=False)
    op.create_table(
        "fills",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("fill_id", sa.String(length=64), nullable=False),
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("expected_price", sa.Double(), nullable=True),
        sa.Column("fee", sa.Double(), nullable=False),
        sa.Column("pnl", sa.Double(), nullable=True),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("market", "fill_id", name="fills_id"),
    )
    op.create_index("fills_market", "fills", ["market", "filled_at"], unique=False)
    op.create_index("fills_prediction", "fills", ["prediction_id"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("component", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(length=2000), nullable=False),
        sa.Column("market_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wall_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("market", "component"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("dedupe", sa.String(length=128), nullable=False),
        sa.Column("trigger", sa.String(length=32), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("market_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("market", "dedupe", name="jobs_dedupe"),
    )
    op.create_index("jobs_state", "jobs", ["market", "state"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "model_versions",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("schema_hash", sa.String(length=64), nullable=True),
        sa.Column("train_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("market", "model"),
    )
    op.create_table(
        "outcome_revisions",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("label_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("direction", sa.Double(), nullable=True),
        sa.Column("ret", sa.Double(), nullable=True),
        sa.Column("range", sa.Double(), nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("prediction_id", "revision", name="outcome_revisions_revision"),
    )
    op.create_table(
        "outcome_totals",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("market", "status"),
    )
    op.create_table(
        "outcomes",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.Column("label_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("direction", sa.Double(), nullable=True),
        sa.Column("ret", sa.Double(), nullable=True),
        sa.Column("range", sa.Double(), nullable=True),
        sa.Column("entry_price", sa.Double(), nullable=True),
        sa.Column("exit_price", sa.Double(), nullable=True),
        sa.Column("regime", sa.String(length=16), nullable=True),
        sa.Column("repeat", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("prediction_id", name="outcomes_prediction"),
    )
    op.create_index("outcomes_market", "outcomes", ["market", "seq"], unique=False)
    op.create_index("outcomes_symbol", "outcomes", ["market", "symbol", "label_end"], unique=False)
    op.create_table(
        "pending",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("prediction_id", name="pending_prediction"),
        sqlite_autoincrement=True,
    )
    op.create_index("pending_market", "pending", ["market", "seq"], unique=False)
    op.create_table(
        "performance_newest",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("regime", sa.String(length=16), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("window", sa.String(length=16), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome_seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("market", "model", "symbol", "regime", "arm", "window"),
    )
    op.create_table(
        "performance_windows",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("regime", sa.String(length=16), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("window", sa.String(length=16), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome_seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(
        "performance_windows_key",
        "performance_windows",
        ["market", "symbol", "regime", "arm", "window", "as_of"],
        unique=False,
    )
    op.create_index(
        "performance_windows_model",
        "performance_windows",
        ["market", "model", "symbol", "regime", "arm", "window", "as_of"],
        unique=False,
    )
    op.create_table(
        "retraining_log",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("market_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wall_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome_seq", sa.BigInteger(), nullable=False),
        sa.Column("dedupe", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("decision", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("market", "dedupe", name="retraining_log_dedupe"),
    )
    op.create_index("retraining_log_market", "retraining_log", ["market", "seq"], unique=False)
    op.create_table(
        "schedule",
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("market", "task"),
    )
    op.create_table(
        "training_experiments",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("market", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("git_revision", sa.String(length=64), nullable=True),
        sa.Column("data_hash", sa.String(length=64), nullable=True),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("peak_mib", sa.Double(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("training_experiments_market", "training_experiments", ["market", "started_at"], unique=False)
    op.add_column("model_events", sa.Column("mode", sa.String(length=8), nullable=True))
    op.add_column("model_events", sa.Column("share", sa.Double(), nullable=True))
    op.add_column("model_events", sa.Column("market_time", sa.DateTime(timezone=True), nullable=True))
    op.add_column("predictions", sa.Column("side", sa.String(length=8), nullable=True))
    op.add_column("predictions", sa.Column("edge", sa.Double(), nullable=True))
    op.add_column("predictions", sa.Column("arm", sa.String(length=16), server_default="champion", nullable=False))
    op.add_column("predictions", sa.Column("answered", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("predictions", sa.Column("parent", sa.String(length=36), nullable=True))
    op.add_column("predictions", sa.Column("latency", sa.Double(), nullable=True))
    op.add_column("predictions", sa.Column("adaptation", sa.String(length=36), nullable=True))
    _add_pending()


def _add_pending() -> None:
    """Make what is logged from now on pending, and what was logged so far."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER predictions_pending AFTER INSERT ON predictions BEGIN "
            "INSERT INTO pending (market, prediction_id) VALUES (new.market, new.id); END"
        )
    else:
        op.execute(
            "CREATE FUNCTION predictions_pending() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO pending (market, prediction_id) VALUES (NEW.market, NEW.id); RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER predictions_pending AFTER INSERT ON predictions "
            "FOR EACH ROW EXECUTE FUNCTION predictions_pending()"
        )
    op.execute("INSERT INTO pending (market, prediction_id) SELECT market, id FROM predictions ORDER BY id")
