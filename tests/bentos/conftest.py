"""One server for all tests over HTTP that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Home, Server, make_home


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a project whose live state belongs to the shared server."""
    return make_home(tmp_path_factory.mktemp("serving") / "home")


@pytest.fixture(scope="session")
def server(home: Home) -> Iterator[Server]:
    """Yield the shared server; its champion is the home's second bundle, and tests leave it so."""
    with Server(home) as running:
        yield running.wait_ready()
