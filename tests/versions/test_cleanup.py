"""What is deleted, and above all what is not."""

from __future__ import annotations

import pytest

from tests.versions.conftest import WHY, Bench
from tradeloop.errors import BundleError, RegistryError
from tradeloop.manifest import verify
from tradeloop.versions import cleanup as module
from tradeloop.versions.cleanup import Item, clean, plan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own


def scores(bench: Bench, *aucs: float) -> list[str]:
    """Add versions with these AUCs, and log losses the other way round; return their hashes."""
    return [
        bench.add(20 + i, metrics={"direction": {"auc": auc, "log_loss": auc, "rows": 7}}).hash
        for i, auc in enumerate(aucs)
    ]


def kept(items: list[Item]) -> set[str]:
    return {item.hash for item in items if item.keep}


def asked(bench: Bench, **changes: object) -> list[Item]:
    wanted: dict[str, object] = {"metric": "direction.auc", "best": 0, "newest": 0} | changes
    return plan(bench.registry, bench.store, **wanted)  # type: ignore[arg-type]


def test_what_ever_answered_or_takes_part_is_kept(bench: Bench) -> None:
    first, champion, waiting = bench.home.hashes
    made = scores(bench, 0.5, 0.6, 0.7)
    bench.registry.stage(made[0], mode="shadow", **WHY)
    bench.registry.stage(made[1], mode="canary", share=0.1, **WHY)
    bench.registry.unstage(made[1], **WHY)
    items = {item.hash: item for item in asked(bench)}
    assert {model for model, item in items.items() if not item.keep} == {waiting, made[2]}
    assert items[champion].reason == "the champion; it has answered"
    assert (items[first].reason, items[made[1]].reason) == ("it has answered", "it has answered")
    assert items[made[0]].reason == "a challenger"


def test_the_best_and_the_newest_are_kept(bench: Bench) -> None:
    made = scores(bench, 0.7, 0.5, 0.6, 0.4)
    served = set(bench.home.hashes[:2])
    assert kept(asked(bench, best=2)) - served == {made[0], made[2]}
    assert kept(asked(bench, best=1, metric="direction.log_loss")) - served == {made[3]}  # less is better
    assert kept(asked(bench, newest=2)) - served == {made[2], made[3]}
    assert kept(asked(bench, best=1, newest=1)) - served == {made[0], made[3]}
    bench.registry.quarantine(made[0], **WHY)
    assert kept(asked(bench, best=1)) - served == {made[2]}


@pytest.mark.parametrize("metric", ["direction.nothing", "direction.rows", "auc"])
def test_a_metric_that_cannot_be_best_is_refused(bench: Bench, metric: str) -> None:
    scores(bench, 0.5)
    with pytest.raises(RegistryError, match=rf"{metric}' \(known: direction.auc, direction.log_loss\)"):
        asked(bench, best=1, metric=metric)


def test_cleaning_archives_and_deletes_bundles_and_bentos(bench: Bench) -> None:
    made = scores(bench, 0.5, 0.6)
    bento = bench.store.bento_folder(made[0])
    bento.mkdir(parents=True)
    (bento / "bento.yaml").write_text("x" * 1000)
    items = asked(bench, best=1)
    doomed = {item.hash for item in items if not item.keep}
    assert doomed == {bench.home.hashes[2], made[0]}
    deleted = clean(bench.registry, bench.store, items, actor="tester")
    assert {item.hash for item in deleted} == doomed
    assert next(item.size for item in deleted if item.hash == made[0]) > 6000
    for model in doomed:
        assert bench.registry.find(model).state == "archived"
        assert bench.store.size(model) == 0
        with pytest.raises(BundleError):
            bench.store.get(model)
    for item in items:
        assert bench.store.has(item.hash) == item.keep
    latest = bench.store.folder(made[1]).parent.parent / "latest"
    assert (latest.parent / latest.read_text()).is_dir()
    assert list((bench.home.layout.bentoml / "tmp").iterdir()) == []
    after = asked(bench, best=1)
    assert kept(after) == {item.hash for item in after}


def test_a_plan_alone_changes_nothing(bench: Bench) -> None:
    scores(bench, 0.5, 0.6)
    events = bench.registry.events()
    sizes = {item.hash: item.size for item in asked(bench)}
    assert {item.hash: item.size for item in asked(bench)} == sizes
    assert bench.registry.events() == events


def test_after_a_crash_between_archive_and_deletion_the_next_one_finishes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scores(bench, 0.5)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.BundleStore, "delete", crash)
    with pytest.raises(KeyboardInterrupt):
        clean(bench.registry, bench.store, asked(bench), actor="tester")
    monkeypatch.undo()
    items = asked(bench)
    assert any(item.state == "archived" and not item.keep for item in items)
    clean(bench.registry, bench.store, items, actor="tester")
    assert bench.store.size(made[0]) == 0 and bench.store.size(bench.home.hashes[2]) == 0


def test_what_was_promoted_since_the_plan_is_left_alone(bench: Bench) -> None:
    made = scores(bench, 0.5, 0.6)
    items = asked(bench)
    bench.registry.promote(made[0], **WHY)
    bench.registry.stage(made[1], mode="shadow", **WHY)
    deleted = clean(bench.registry, bench.store, items, actor="tester")
    assert {item.hash for item in deleted} == {bench.home.hashes[2]}
    assert bench.store.has(made[0]) and bench.store.has(made[1])


def test_the_last_of_a_store_leaves_no_latest_behind(bench: Bench) -> None:
    for model in bench.home.hashes:
        bench.store.delete(model)
        bench.store.delete(model)
    assert not (bench.home.layout.bentoml / "models" / bench.store.name / "latest").exists()
    folder = bench.home.root / "packaged" / "1"
    bench.store.put(verify(folder))
    assert bench.store.has(bench.home.hashes[0])
