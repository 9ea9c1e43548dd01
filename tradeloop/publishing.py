"""From trained models to a champion: assemble the bundle, store and register it, promote it.

Each step may be repeated: after a crash anywhere the next run finishes what is missing and changes nothing else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tradeloop.bento import build_bento
from tradeloop.bundle import Bundle
from tradeloop.bundle_store import BundleStore
from tradeloop.champion import open_registry
from tradeloop.config import Params
from tradeloop.errors import BundleError
from tradeloop.layout import Layout
from tradeloop.lifecycle import SERVING, ModelRecord
from tradeloop.manifest import Verified, verify
from tradeloop.promotion import promotion_evidence, require_schema
from tradeloop.registry import Registry
from tradeloop.schema import Schema
from tradeloop.version_facts import VersionFacts

ACTOR = "pipeline"

_EXPERIMENT_VARIABLES = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")  # set by `dvc exp run` for the stages it runs


def package(layout: Layout, params: Params) -> dict[str, Any]:
    """Assemble the bundle and register it; if it passed the gate, store it and build its Bento first.

    Returns
    -------
    dict
        For the report: hash, version, verdict, reason, and the BentoML tags, null where nothing was stored or built.
    """
    from tradeloop.assembly import assemble

    bundle = assemble(layout, params)
    model = bento = None
    if bundle.passed:
        model = BundleStore(layout, params).put(verify(layout.models / "bundle", expect=bundle.hash))
        bento = build_bento(layout, params, bundle.hash) if params.package.build_bento else None
    with open_registry(layout, params) as registry:
        _register(registry, bundle)
    return {
        "bundle": bundle.hash,
        "version": bundle.version,
        "verdict": "pass" if bundle.passed else "fail",
        "reason": _verdict(bundle),
        "model": model,
        "bento": bento,
    }


def publish(layout: Layout, params: Params) -> dict[str, Any]:
    """Fill the online store and promote the packaged bundle, unless something speaks against that.

    Returns
    -------
    dict
        For the report: whether the bundle is the champion now, and why.
    """
    from tradeloop.state.online import OnlineStore

    files, bundle = _packaged(layout, params)
    schema = Schema.load(layout.store / "schema.json")
    require_schema(bundle, current=schema, holds=lambda _: False)  # the store is filled from the current rows below
    store = OnlineStore(layout, params)
    try:
        store.fill(schema)
    finally:
        store.close()
    with open_registry(layout, params) as registry:
        record = _register(registry, bundle)
        obstacle = _obstacle(record, params)
        if obstacle is None:
            BundleStore(layout, params).put(files)  # it may have been deleted since it was packaged
            registry.promote(bundle.hash, actor=ACTOR, reason=_verdict(bundle), evidence=_evidence(bundle))
    return {
        "bundle": bundle.hash,
        "version": bundle.version,
        "champion": obstacle is None,
        "reason": obstacle or _verdict(bundle),
        "view": schema.vector_view,
    }


def ensure_published(layout: Layout, params: Params) -> ModelRecord | None:
    """Repair what live state may have lost since the pipeline ran, and return the champion; called before serving.

    A champion whose bundle is gone from the model store is put back from the pipeline's output. A registry without a
    champion (its database was deleted) gets the pipeline's last one, if that run promoted it.

    Raises
    ------
    BundleError
        The champion's bundle is nowhere, or the pipeline's is damaged.
    """
    store = BundleStore(layout, params)
    with open_registry(layout, params) as registry:
        champion = registry.champion()
        if champion is None and _was_promoted(layout.reports / "publish.json"):
            _, bundle = _packaged(layout, params)
            if _obstacle(_register(registry, bundle), params) is None:
                reason = "restored: the registry had no champion"
                champion = registry.promote(
                    bundle.hash, actor=ACTOR, reason=reason, evidence=_evidence(bundle)
                ).champion
    if champion is not None and not store.folder(champion.hash).parent.exists():
        store.restore(champion.hash)
    return champion


def _packaged(layout: Layout, params: Params) -> tuple[Verified, Bundle]:
    """Return the pipeline's last bundle, verified; it must be of the active market."""
    files = verify(layout.models / "bundle")
    if files.manifest.market != params.market:
        raise BundleError(
            f"the packaged bundle is of market {files.manifest.market}, the active one is {params.market}"
        )
    return files, Bundle.open(files)


def _register(registry: Registry, bundle: Bundle) -> ModelRecord:
    return registry.register(
        bundle.hash,
        version=bundle.version,
        actor=ACTOR,
        reason=_verdict(bundle),
        evidence=_evidence(bundle),
        passed=bundle.passed,
        facts=VersionFacts.of(bundle),
    )


def _obstacle(record: ModelRecord, params: Params) -> str | None:
    """Return why the pipeline must not promote a version."""
    if record.state in SERVING:
        return None
    if record.state in ("quarantined", "archived"):
        return f"{record.state}: {record.reason}"
    if any(os.environ.get(name) for name in _EXPERIMENT_VARIABLES):
        return "a DVC experiment registers its model and leaves the champion: promote it by hand"
    if not params.publish.promote:
        return "publish.promote is false"
    if "rolled_back" in (record.state, record.before):
        return f"it was rolled back and is not promoted again by a rerun: {record.reason}"
    return None


def _verdict(bundle: Bundle) -> str:
    if bundle.passed:
        return "passed the gate"
    failed = [str(reason.get("text")) for reason in bundle.gate.get("reasons", []) if not reason.get("ok")]
    return f"failed the gate: {'; '.join(failed[:3]) or 'no reason given'}"


def _evidence(bundle: Bundle) -> dict[str, Any]:
    kept = bundle.manifest.model_dump(mode="json", include={"data_hash", "git_revision", "git_dirty", "train_end"})
    targets = bundle.gate.get("targets", {})
    return {**kept, **promotion_evidence(bundle), "metrics": dict(bundle.metrics), "targets": targets}


def _was_promoted(report: Path) -> bool:
    """Return whether the pipeline's last run ended with its bundle as champion."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("champion") is True
