"""Two judged holdouts, made once a session."""

from __future__ import annotations

import pytest

from tests.holdouts import Case, make_case


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Range can be forecast, direction cannot."""
    return make_case(tmp_path_factory.mktemp("honest"), momentum=0.5)


@pytest.fixture(scope="session")
def skilled(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two bars in three go the way of the one before."""
    return make_case(tmp_path_factory.mktemp("skilled"), momentum=0.67)
