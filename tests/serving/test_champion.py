"""Which model serves: the registry's champion, the one before it if that is broken, else the Bento's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bundles import tiny_bundle
from tradeloop.bundle import Bundle
from tradeloop.errors import BundleError, RegistryError, SchemaMismatch
from tradeloop.registry import Registry
from tradeloop.serving import holder as module
from tradeloop.serving.champion import Loaded, Refusal, promote_verified, roll_back_verified
from tradeloop.serving.holder import LineupHolder
from tradeloop.state.database import Database


@dataclass
class Bench:
    """A holder over a real registry and bundles in folders named by their hashes."""

    root: Path
    registry: Registry
    holder: LineupHolder = field(init=False)
    swaps: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    refusals: list[tuple[str, bool]] = field(default_factory=list)
    unwanted: list[str] = field(default_factory=list)
    loads: int = 0

    def __post_init__(self) -> None:
        self.serve(baked=None)

    def serve(self, baked: Path | None) -> None:
        self.holder = LineupHolder(self.registry, self.load, self, market="us_daily", baked=baked)

    @property
    def serving(self) -> Loaded:
        assert self.holder.current is not None
        return self.holder.current.champion

    def require(self, bundle: Bundle) -> None:
        if bundle.hash in self.unwanted:
            raise SchemaMismatch("the store holds no such features")

    def takes_over(self, champion: Loaded) -> None:
        self.swaps.append(champion.hash)

    def joins(self, challenger: Loaded) -> None:
        self.joined.append(challenger.hash)

    def refused(self, refusal: Refusal, *, challenger: bool) -> None:
        self.refusals.append((refusal.hash, challenger))

    def load(self, bundle_hash: str) -> Bundle:
        self.loads += 1
        return Bundle.load(self.root / bundle_hash, expect=bundle_hash)

    def add(self, seed: int, *, promote: bool = False) -> str:
        bundle = tiny_bundle(self.root / "new", seed=seed)
        (self.root / "new").rename(self.root / bundle.hash)
        self.registry.register(bundle.hash, actor="test", reason="made", passed=True)
        if promote:
            self.registry.promote(bundle.hash, actor="test", reason="made")
        return bundle.hash


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = Database.open(f"sqlite:///{tmp_path / 'state.db'}")
    yield Bench(tmp_path, Registry(database, "us_daily"))
    database.close()


def test_nothing_serves_without_champion_and_bundle(bench: Bench) -> None:
    assert not bench.holder.refresh()
    assert bench.holder.current is None


def test_the_bentos_own_bundle_serves_until_there_is_a_champion(bench: Bench) -> None:
    baked = tiny_bundle(bench.root / "baked", seed=9)
    bench.serve(bench.root / "baked")
    assert bench.holder.refresh()
    assert (bench.serving.hash, bench.serving.source) == (baked.hash, "bento")
    champion = bench.add(1, promote=True)
    assert bench.holder.refresh()
    assert (bench.serving.hash, bench.serving.source) == (champion, "registry")
    assert bench.swaps == [baked.hash, champion]


def test_a_broken_baked_bundle_is_refused(bench: Bench) -> None:
    tiny_bundle(bench.root / "baked", seed=9)
    (bench.root / "baked" / "golden.json").unlink()
    bench.serve(bench.root / "baked")
    assert not bench.holder.refresh()
    assert bench.holder.refused is not None
    assert "golden.json" in bench.holder.refused.reason


def test_only_new_events_are_looked_at(bench: Bench) -> None:
    bench.add(1, promote=True)
    assert bench.holder.refresh()
    assert not bench.holder.refresh()
    bench.add(2)  # registered, not promoted
    assert not bench.holder.refresh()
    assert bench.loads == 1


def test_a_broken_champion_leaves_the_old_one_until_it_is_put_right(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    old = bench.add(1, promote=True)
    bench.holder.refresh()
    new = bench.add(2, promote=True)
    shutil.move(bench.root / new, bench.root / "elsewhere")
    for _ in range(3):
        assert not bench.holder.refresh()
    assert bench.holder.refused is not None
    assert (bench.serving.hash, bench.holder.refused.hash) == (old, new)
    assert (bench.loads, bench.refusals) == (4, [(new, False)])  # tried each time, told once
    shutil.move(bench.root / "elsewhere", bench.root / new)
    assert bench.holder.refresh()
    assert (bench.serving.hash, bench.holder.refused) == (new, None)


def test_a_refusal_ends_with_a_rollback_to_what_serves(bench: Bench) -> None:
    old = bench.add(1, promote=True)
    bench.holder.refresh()
    shutil.rmtree(bench.root / bench.add(2, promote=True))
    bench.holder.refresh()
    assert bench.holder.refused is not None
    bench.holder.rollback(None, actor="test", reason="broken")
    assert (bench.serving.hash, bench.holder.refused) == (old, None)


def test_promoting_here_loads_the_bundle_once(bench: Bench) -> None:
    bench.add(1, promote=True)
    bench.holder.refresh()
    new = bench.add(2)
    bench.loads = 0
    change = bench.holder.promote(new[:12], actor="test", reason="better")
    assert (change.champion.hash, change.changed, bench.loads) == (new, True, 1)
    assert bench.swaps[-1] == new


def test_a_broken_bundle_causes_no_event(bench: Bench) -> None:
    first, second = bench.add(1, promote=True), bench.add(2, promote=True)
    third = bench.add(3)
    (bench.root / third / "stack.json").write_text("{}")
    (bench.root / first / "stack.json").write_text("{}")
    before = bench.registry.champion_version()
    with pytest.raises(BundleError, match=r"stack\.json"):
        promote_verified(bench.registry, bench.load, third, actor="test", reason="broken")
    with pytest.raises(BundleError, match=r"stack\.json"):
        roll_back_verified(bench.registry, bench.load, None, actor="test", reason="broken")
    assert bench.registry.champion_version() == before
    champion = bench.registry.champion()
    assert champion is not None
    assert champion.hash == second


def test_what_cannot_be_served_is_neither_promoted_nor_gone_back_to(bench: Bench) -> None:
    first, second = bench.add(1, promote=True), bench.add(2, promote=True)
    third = bench.add(3)
    bench.holder.refresh()
    bench.unwanted = [first, third]
    before = bench.registry.champion_version()
    with pytest.raises(SchemaMismatch):
        bench.holder.promote(third, actor="test", reason="another schema")
    with pytest.raises(SchemaMismatch):
        bench.holder.rollback(None, actor="test", reason="another schema")
    assert (bench.registry.champion_version(), bench.serving.hash) == (before, second)


def test_a_promotion_names_the_gate_report(bench: Bench) -> None:
    bench.add(1, promote=True)
    bench.holder.refresh()
    new = bench.add(2)
    bench.holder.promote(new, actor="test", reason="better")
    files = Bundle.load(bench.root / new).manifest.files
    assert bench.registry.events()[-1].evidence == {"gate_report": files["gate.json"].sha256, "verdict": "pass"}


def test_there_is_nothing_to_roll_back_without_a_champion(bench: Bench) -> None:
    with pytest.raises(RegistryError, match="nothing to roll back"):
        roll_back_verified(bench.registry, bench.load, None, actor="test", reason="none")
