"""Machine code is kept by what it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tradeloop.features import compiled

CALL = """
import numpy as np
from tradeloop.features.ordered import _extreme, maximum
from tradeloop.features.compiled import cache_folder
assert maximum(np.array([3.0, 1.0, 2.0]), 2)[2] == 2.0
print(cache_folder(), sum(_extreme.stats.cache_hits.values()), sum(_extreme.stats.cache_misses.values()))
"""


def call(root: Path, cache: Path) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", CALL], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_clone_finds_it_and_any_change_of_the_kernels_does_not(tmp_path: Path) -> None:
    clone, cache = tmp_path / "clone", tmp_path / "cache"
    shutil.copytree(ROOT / "tradeloop", clone / "tradeloop", ignore=shutil.ignore_patterns("__pycache__"))
    folder, hits, misses = call(ROOT, cache)
    assert (hits, misses) == ("0", "1") and Path(folder).parent == cache / "tradeloop"
    assert call(clone, cache) == [folder, "1", "0"]
    # Another file than the kernel's own: Numba would not look at it.
    with (clone / "tradeloop/features/rolling.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    other, hits, misses = call(clone, cache)
    assert other != folder and (hits, misses) == ("0", "1")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compiled.cache_folder.cache_clear()
    try:
        assert compiled.cache_folder().parent == tmp_path / f"tradeloop-{os.getuid()}"
    finally:
        compiled.cache_folder.cache_clear()
