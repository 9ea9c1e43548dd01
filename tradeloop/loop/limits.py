"""Running a command beside a service: at low priority, on few cores, and no longer than its limits hold.

Every command is a session of its own. Whatever is over a limit is killed with all that it started, at once: the
pipeline survives that at any moment, so an orderly end would only be a second way to end.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import psutil

if TYPE_CHECKING:
    from tradeloop.config import Retrain

Cause = Literal["timeout", "memory", "disk", "killed", "failed", "params", "cancelled", "lost"]

MARK = "TRADELOOP_JOB"
"""Environment variable that every process of a retraining carries, so that none is left behind."""

_MIB = 2**20
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "NUMEXPR_MAX_THREADS")
_FIRST_TO_DIE = "900"


class Stopped(Exception):
    """A command did not come to a good end: the cause, and one line for a person."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(f"{cause}: {text}")
        self.cause: Cause = cause


@dataclass(frozen=True)
class Limits:
    """What a retraining may use: wall seconds, MiB in all its processes, MiB that stay free on its disk, cores."""

    timeout: float
    memory_mib: int
    min_free_mib: int
    cores: int
    nice: int

    @classmethod
    def of(cls, config: Retrain) -> Limits:
        """Return what params.yaml allows."""
        from tradeloop.config import parse_interval  # the training's own process does without it: it starts sooner

        timeout = parse_interval(config.timeout).total_seconds()
        return cls(timeout, config.memory_mib, config.min_free_mib, config.cores, config.nice)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that keep numeric libraries from starting more threads than there are cores for them."""
        return dict.fromkeys(_THREADS, str(self.cores))


def step_back(limits: Limits) -> None:
    """Give this process, and all that it starts from now on, the lowest claim on processor, disk and memory."""
    with contextlib.suppress(OSError):  # a container may forbid any of these; the rest still holds
        os.nice(limits.nice)
    process = psutil.Process()
    with contextlib.suppress(OSError, psutil.Error, AttributeError):
        process.ionice(psutil.IOPRIO_CLASS_IDLE)
    with contextlib.suppress(OSError, AttributeError):
        # The last cores: a service that is pinned, or an interrupt, is more often on the first.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-limits.cores :])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)


class Watch:
    """Runs commands one after another under one set of limits, and adds up what they use.

    Parameters
    ----------
    limits
        The timeout is that of all commands together, from the making of this object.
    folder
        Where they write: its disk must keep `limits.min_free_mib`.
    interrupted
        Asked a few times a second; a cause and a text stop the command.
    tick
        Called as often, with MiB in use and processor seconds so far.
    free
        Bytes free on the disk of a folder.

    Attributes
    ----------
    peak_mib
        Most memory seen in all processes together, shared pages counted in each.
    """

    def __init__(
        self,
        limits: Limits,
        folder: Path,
        *,
        interrupted: Callable[[], tuple[Cause, str] | None] = lambda: None,
        tick: Callable[[float, float], None] = lambda *_: None,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        every: float = 0.2,
    ) -> None:
        self._limits = limits
        self._folder = folder
        self._interrupted = interrupted
        self._tick = tick
        self._free = free
        self._every = every
        self._start = time.monotonic()
        self._orphans = 0.0
        self.peak_mib = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of all commands so far; of killed ones what was last seen."""
        return _reaped() + self._orphans

    def run(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: IO[bytes]) -> int:
        """Run a command to its end and return its exit status (negative: the signal that killed it).

        Raises
        ------
        Stopped
            A limit was reached, or it was interrupted; none of its processes is left.
        """
        self.check()
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        before, seen = _reaped(), 0.0
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(self._every)
                memory, seen = _usage(process.pid)
                self.check(memory)
                self._tick(memory, self.cpu_seconds + seen)
        finally:
            kill_tree(process.pid)
            process.wait()
            # What a killed process had started is reaped by nobody here.
            self._orphans += max(0.0, seen - (_reaped() - before))

    def check(self, memory: float = 0.0) -> None:
        """Raise `Stopped` if a limit is reached, given the MiB in use."""
        self.peak_mib = max(self.peak_mib, memory)
        if (stop := self._interrupted()) is not None:
            raise Stopped(*stop)
        if self.wall_seconds > self._limits.timeout:
            raise Stopped("timeout", f"it took longer than retrain.timeout = {self._limits.timeout:g} s")
        if memory > self._limits.memory_mib:
            rule = f"more than retrain.memory_mib = {self._limits.memory_mib}"
            raise Stopped("memory", f"it used {memory:.0f} MiB, {rule}")
        free = self._free(self._folder) / _MIB
        if free < self._limits.min_free_mib:
            rule = f"less than retrain.min_free_mib = {self._limits.min_free_mib}"
            raise Stopped("disk", f"{free:.0f} MiB are free at {self._folder}, {rule}")


def _reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _usage(pid: int) -> tuple[float, float]:
    """Return MiB and processor seconds of a process and all below it."""
    memory = seconds = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory += process.memory_info().rss / _MIB
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
    return memory, seconds


def kill_tree(pid: int) -> None:
    """Kill a session's leader with all that it started; what is gone already is no error."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            _kill(child)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_marked(job_id: str) -> int:
    """Kill what an earlier attempt at a job left running; return how many processes that were."""
    found = [process for process in psutil.process_iter() if _mark(process) == job_id]
    for process in found:
        _kill(process)
    psutil.wait_procs(found, timeout=10)
    return len(found)


def _mark(process: psutil.Process) -> str | None:
    try:
        value = process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
    return None if value is None else str(value)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()
