from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.loop.conftest import EASY
from tradeloop.config import Retrain
from tradeloop.loop.limits import Cause, Limits, Stopped, Watch


def run(watch: Watch, code: str, folder: Path) -> int:
    with (folder / "log").open("wb") as log:
        return watch.run([sys.executable, "-c", code], cwd=folder, environment=os.environ, log=log)


def test_status_signal_and_usage(tmp_path: Path) -> None:
    watch = Watch(EASY, tmp_path, every=0.05)
    assert run(watch, "raise SystemExit(3)", tmp_path) == 3
    assert run(watch, "import os; os.kill(os.getpid(), 9)", tmp_path) == -9
    before = watch.cpu_seconds
    burn = "import time; hoard = bytearray(64 * 2**20)\nwhile time.process_time() < 0.6: pass"
    run(watch, burn, tmp_path)
    assert 0.5 < watch.cpu_seconds - before < 3
    assert watch.peak_mib > 64


def test_usage_of_what_was_killed_counts_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile True: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    watch = Watch(replace(EASY, timeout=1.5), tmp_path, every=0.1)
    with pytest.raises(Stopped, match=r"timeout: it took longer than retrain\.timeout = 1\.5 s"):
        run(watch, code, tmp_path)
    assert watch.cpu_seconds > 0.3


def test_the_timeout_is_that_of_all_commands(tmp_path: Path) -> None:
    watch = Watch(replace(EASY, timeout=1.0), tmp_path, every=0.05)
    with pytest.raises(Stopped, match="timeout"):
        for _ in range(4):
            run(watch, "import time; time.sleep(0.4)", tmp_path)


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    free = iter([10 * 2**30, 10 * 2**30, 5 * 2**20])
    watch = Watch(replace(EASY, min_free_mib=6), tmp_path, free=lambda _: next(free), every=0.02)
    with pytest.raises(Stopped, match=r"disk: 5 MiB are free at .*, less than retrain\.min_free_mib = 6"):
        run(watch, "import time; time.sleep(30)", tmp_path)


def test_an_interruption(tmp_path: Path) -> None:
    why: list[tuple[Cause, str]] = []
    watch = Watch(
        EASY,
        tmp_path,
        interrupted=lambda: why[0] if why else None,
        tick=lambda *_: why.append(("lost", "x")),
        every=0.02,
    )
    with pytest.raises(Stopped) as stopped:
        run(watch, "import time; time.sleep(30)", tmp_path)
    assert stopped.value.cause == "lost"


def test_params_are_the_limits() -> None:
    config = Retrain(timeout="3m", memory_mib=7, min_free_mib=8, cores=2, nice=3)
    assert Limits.of(config) == Limits(timeout=180.0, memory_mib=7, min_free_mib=8, cores=2, nice=3)
    assert Limits.of(config).environment["OMP_NUM_THREADS"] == "2"


def test_step_back(tmp_path: Path) -> None:
    code = "from tradeloop.loop.limits import Limits, step_back; import os\n"
    code += "before = os.nice(0); step_back(Limits(1, 1, 1, 1, 7))\n"
    code += "print(os.nice(0) - before, len(os.sched_getaffinity(0)), open('/proc/self/oom_score_adj').read().strip())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "1", "900"]
