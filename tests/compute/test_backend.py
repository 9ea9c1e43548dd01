"""Threads and Ray: the same results in the same order, few items under way, errors as they were raised."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compute.conftest import contents
from tradeloop.bars import Bars
from tradeloop.compute.backend import Backend, open_backend
from tradeloop.compute.features import write_parts
from tradeloop.config import Compute
from tradeloop.errors import ConfigError, DataError
from tradeloop.schema import Schema


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Backend]:
    """Ray with two processes, for the tests that can share it."""
    with open_backend(Compute(backend="ray", workers=2)) as backend:
        yield backend


@pytest.fixture(params=["one thread", "threads", pytest.param("ray", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_here")
        return
    with open_backend(Compute(workers=1 if request.param == "one thread" else 3)) as found:
        yield found


def test_results_come_in_the_items_order(backend: Backend) -> None:
    from time import sleep

    def late_if_early(item: int) -> int:
        sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(backend.map(late_if_early, range(20))) == [item * item for item in range(20)]
    assert list(backend.map(late_if_early, [])) == []


def test_an_error_comes_as_it_was_raised_and_ends_the_work(backend: Backend) -> None:
    def refuse(item: int) -> int:
        if item == 3:
            raise DataError("AAA has no bars")
        return item

    found = backend.map(refuse, range(1_000_000))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"^AAA has no bars$"):
        next(found)


def test_few_items_are_under_way(backend: Backend) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    found = backend.map(abs, items())
    for seen in range(1, 40):
        next(found)
        assert len(taken) <= seen + 8


def test_files_are_the_same_bit_for_bit(backend: Backend, tmp_path: Path, bars: Bars, schema: Schema) -> None:
    def write(stop: int) -> str:
        part = bars[:stop]
        write_parts(there / str(stop), part, schema)
        return str(stop)

    there, stops = tmp_path / "there", [900, 1700, 2500]
    assert list(backend.map(write, stops)) == [str(stop) for stop in stops]
    for stop in stops:
        write_parts(tmp_path / "here" / str(stop), bars[:stop], schema)
    assert contents(there) == contents(tmp_path / "here")


def test_as_many_threads_as_workers() -> None:
    barrier = threading.Barrier(3, timeout=30)
    with open_backend(Compute(workers=3)) as backend:
        names = list(backend.map(lambda _: (barrier.wait(), threading.current_thread().name)[1], range(3)))
    assert len(set(names)) == 3
    with open_backend(Compute(workers=1)) as backend:
        assert list(backend.map(lambda _: threading.current_thread(), range(2))) == 2 * [threading.current_thread()]


@pytest.mark.slow
def test_as_many_processes_as_workers(ray_here: Backend) -> None:
    import ray

    assert ray.cluster_resources()["CPU"] == 2
    assert os.getpid() not in set(ray_here.map(lambda _: os.getpid(), range(4)))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_an_address_without_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def nobody(**_: object) -> None:
        raise ConnectionError("could not be connected to\nfor long")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    config = Compute(backend="ray")
    with pytest.raises(ConfigError, match=r"no cluster at 127\.0\.0\.1:1$"), open_backend(config):
        pass


def test_ray_is_imported_only_when_asked() -> None:
    import subprocess

    code = "import sys, stages.features, tradeloop.state.asof; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
