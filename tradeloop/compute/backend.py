"""Where independent pieces of work are done: in threads here, or as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, TypeVar

from tradeloop.config import Compute
from tradeloop.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Names the cluster to join; without it, one of `workers` processes is started here and stopped at the end."""


class Backend(ABC):
    """Does a task for each of many items, several at a time."""

    @abstractmethod
    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the task's results in the items' order.

        Only a few items are under way at any moment, so what they hold in memory does not grow with their number. The
        first error ends it, as the task raised it.
        """


class Local(Backend):
    """Threads of this process: the kernels, and whatever reads and writes files, run without Python's lock."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the task's results in the items' order."""
        if self._workers == 1:
            yield from map(task, items)
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="compute") as pool:
            window = _Window[Future[Result]](2 * self._workers)
            try:
                for future in window.slide(pool.submit(task, item) for item in items):
                    yield future.result()
            finally:
                for future in window.pending:
                    future.cancel()


class OnRay(Backend):
    """Tasks of a Ray cluster, one core each. Every node must see the project's folder under the same path."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the task's results in the items' order."""
        ray = self._ray
        # Errors must come as they were raised; a node that is lost costs its tasks another try.
        remote = ray.remote(num_cpus=1, max_retries=3)(_attempt).options(name=getattr(task, "__name__", "task"))
        function = ray.put(task)
        window = _Window[Any](2 * max(int(ray.cluster_resources().get("CPU", 1)), 1))
        try:
            for reference in window.slide(remote.remote(function, item) for item in items):
                result, error = ray.get(reference)
                if error is not None:
                    raise error
                yield result
        finally:
            for reference in window.pending:
                ray.cancel(reference)


class _Window(Generic[Item]):
    """Keeps up to `size` pieces of work under way."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.pending: deque[Item] = deque()

    def slide(self, work: Iterator[Item]) -> Iterator[Item]:
        """Yield each piece in order, after those behind it have been begun."""
        self.pending.extend(islice(work, self._size))
        while self.pending:
            yield self.pending.popleft()
            self.pending.extend(islice(work, 1))


def _attempt(task: Callable[[Item], Result], item: Item) -> tuple[Result | None, Exception | None]:
    """Return what the task returns or raises: Ray would wrap an error in one of its own, and print its traceback."""
    try:
        return task(item), None
    except Exception as error:  # whatever it is, `map` raises it again where it was asked for
        return None, error


@contextmanager
def open_backend(config: Compute) -> Iterator[Backend]:
    """Yield the backend that ``compute`` of params.yaml names.

    Raises
    ------
    ConfigError
        There is no Ray cluster at ``$RAY_ADDRESS``.
    """
    if config.backend == "local":
        yield Local(config.workers)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing reports home
    import ray

    address = os.environ.get(ADDRESS_VARIABLE)
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {} if address else {"num_cpus": config.workers, "include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING, **options)
        except ConnectionError:
            raise ConfigError(f"compute.backend is ray, but there is no cluster at {address}") from None
    try:
        yield OnRay(ray)
    finally:
        if started:
            ray.shutdown()
