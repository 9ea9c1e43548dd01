from __future__ import annotations

import httpx
import pytest

from tests.paper.market import feed
from tests.paper.service import Service
from tradeloop.monitoring.feed import ArrayFeed


@pytest.fixture
def service() -> Service:
    """Return a service in memory."""
    return Service()


@pytest.fixture
def client(service: Service) -> httpx.Client:
    """Return a client of that service."""
    return httpx.Client(base_url="http://service", transport=httpx.MockTransport(service.handle))


@pytest.fixture
def market() -> ArrayFeed:
    """Return two symbols' bars."""
    return feed()
