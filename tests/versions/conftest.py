from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import tiny_bundle
from tests.servers import Home, make_home
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.state.database import Database
from tradeloop.version_facts import VersionFacts

WHY: dict[str, Any] = {"actor": "tester", "reason": "because"}


@dataclass
class Bench:
    """A project with its registry open: its second model is the champion, the first was before it, the third waits."""

    home: Home
    database: Database

    @property
    def registry(self) -> Registry:
        return Registry(self.database, self.home.params.market)

    @property
    def store(self) -> BundleStore:
        return BundleStore(self.home.layout, self.home.params)

    def add(self, seed: int, *, metrics: dict[str, Any] | None = None, passed: bool = True, **facts: Any) -> Bundle:
        """Pack, store and register another bundle, with its facts; `metrics` only go into the registry."""
        folder = self.home.root / "packaged" / str(seed)
        bundle = tiny_bundle(folder, seed=seed, passed=passed, **facts)
        self.store.put(verify(folder))
        known = VersionFacts.of(bundle)
        if metrics is not None:
            known = VersionFacts(**{**vars(known), "metrics": metrics})
        self.registry.register(bundle.hash, passed=passed, facts=known, **WHY)
        return bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("versions") / "home").root


@pytest.fixture
def bench(made: Path, tmp_path: Path) -> Iterator[Bench]:
    shutil.copytree(made, tmp_path / "home")
    home = Home(tmp_path / "home")
    database = home.database()
    home.hashes = [record.hash for record in Registry(database, home.params.market).models()]
    yield Bench(home, database)
    database.close()
