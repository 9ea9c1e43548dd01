"""Alembic's scripts: every step from an older state database to the present tables."""
