"""The documentation says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.generated_docs import FEATURES, features_page

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_feature_page_is_what_the_registry_says() -> None:
    assert FEATURES.read_text(encoding="utf-8") == features_page(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_parameters_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)`", text)) <= targets
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dotted in re.findall(
        r"`((?:split|tune|train|stack|evaluate|gate|package|publish|serving|labels)(?:\.\w+)+)", text
    ):
        block = params
        for part in dotted.split("."):
            assert part in block, f"{page.name} names the parameter {dotted}"
            block = block[part]
