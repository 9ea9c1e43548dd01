from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import NAMES, tiny_bundle, tiny_schema
from tradeloop.bundle import Bundle
from tradeloop.errors import SchemaMismatch
from tradeloop.promotion import promotion_evidence, require_schema
from tradeloop.schema import Schema


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("promotion") / "bundle")


def never(schema: Schema) -> bool:
    raise AssertionError(f"the store was asked about {schema.hash[:12]}")


def test_the_current_schema_passes_without_asking_the_store(bundle: Bundle) -> None:
    require_schema(bundle, current=tiny_schema(), holds=never)


def test_a_schema_that_the_store_still_holds_passes(bundle: Bundle) -> None:
    asked: list[Schema] = []
    require_schema(bundle, current=tiny_schema(("ret_1",)), holds=lambda schema: not asked.append(schema))
    assert asked == [bundle.schema]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (NAMES[1:], "it needs ret_1$"),
        ((*NAMES, "rsi", "macd"), "it does not know rsi, macd$"),
        (("rsi", *NAMES[2:]), "it needs ret_1, ret_5 and it does not know rsi$"),
        (("only",), "it needs ret_1, ret_5, vol_20, volume_ratio, gap and 1 more and it does not know only$"),
        (NAMES[::-1], "the names are the same, their order or definitions are not$"),
    ],
)
def test_another_schema_is_refused_by_the_features_that_differ(
    bundle: Bundle, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SchemaMismatch, match=f"bundle {bundle.version} .*{bundle.schema.hash[:12]}.*: {said}"):
        require_schema(bundle, current=tiny_schema(names), holds=lambda _: False)


def test_without_a_known_schema_only_the_store_decides(bundle: Bundle) -> None:
    with pytest.raises(SchemaMismatch, match=r"holds no rows$"):
        require_schema(bundle, current=None, holds=lambda _: False)


def test_the_evidence_is_the_gate_reports_hash(bundle: Bundle, tmp_path: Path) -> None:
    evidence = promotion_evidence(bundle)
    assert (evidence["verdict"], len(evidence["gate_report"])) == ("pass", 64)
    failed = tiny_bundle(tmp_path / "failed", passed=False)
    assert promotion_evidence(failed)["gate_report"] != evidence["gate_report"]
    assert promotion_evidence(tiny_bundle(tmp_path / "other", seed=3)) == evidence
