from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tradeloop.atomic import write_bytes, write_json, write_parquet


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_is_sorted_and_the_same_each_time(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1, 2]})
    write_json(tmp_path / "b", {"a": [1, 2], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parquet_is_the_same_each_time(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "t": pd.to_datetime(["2020-01-01", "2020-01-02"], utc=True).as_unit("us")})
    write_parquet(tmp_path / "a", frame)
    write_parquet(tmp_path / "b", frame.copy())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a"), frame)


WRITER = """
import itertools, sys
from pathlib import Path
from tradeloop.atomic import write_bytes
path = Path(sys.argv[1])
print("up", flush=True)
for n in itertools.count():
    write_bytes(path, bytes([n % 256]) * 400_000)
"""


def test_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_bytes(path, b"\0" * 400_000)
    for attempt in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.01 + 0.007 * attempt)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = path.read_bytes()
        assert len(content) == 400_000
        assert len(set(content)) == 1
