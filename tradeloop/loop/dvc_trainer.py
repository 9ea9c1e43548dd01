"""Training as a DVC experiment: each job in a workspace of its own, run by a process that dies with the loop."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from tradeloop.config import Params
from tradeloop.layout import Layout
from tradeloop.loop.attempt import Spec, jobs_folder
from tradeloop.loop.limits import Limits, kill_marked, kill_tree
from tradeloop.loop.retrain import TrainingResult
from tradeloop.loop.workspace import DVC, prune
from tradeloop.state.database import URL_VARIABLE, database_url
from tradeloop.state.job import Attempt, Job

_CLOSE_SECONDS = 10.0
_KEPT_LOGS = 100


@dataclass(frozen=True)
class _Running:
    spec: Spec
    process: subprocess.Popen[str]
    since: float


class DvcTrainer:
    """Runs the pipeline as a DVC experiment, each job in its own workspace and its own supervised process.

    Parameters
    ----------
    layout, params
        The project that is retrained; it is only read, but for Git objects and one reference an experiment.
    limits
        What an attempt may use; ``params.retrain`` unless told otherwise.
    database
        Where the workspace's stages find the registry; the project's state database unless told otherwise.
    dvc
        The command that runs DVC.
    """

    def __init__(
        self,
        layout: Layout,
        params: Params,
        *,
        limits: Limits | None = None,
        database: str | None = None,
        dvc: Sequence[str] = DVC,
    ) -> None:
        self._layout = layout
        self._limits = limits or Limits.of(params.retrain)
        self._database = database or database_url(layout, params)
        self._dvc = list(dvc)
        self._keep = params.retrain.keep_failed
        # The bars that ship in packages never change, and drawn ones only with their parameters, which DVC sees.
        self._ingest = params.active.source == "files"
        self._running: dict[str, _Running] = {}
        self._ended: list[TrainingResult] = []

    def start(self, job: Job) -> None:
        """Begin an attempt; see `Trainer.start`."""
        if job.id in self._running:
            return
        spec = Spec(
            root=str(self._layout.root),
            job_id=job.id,
            attempt=job.attempts,
            name=f"loop-{job.trigger.replace('_', '-')}-{job.id[:8]}",
            overrides=job.overrides,
            ingest=self._ingest,
            limits=asdict(self._limits),
            dvc=self._dvc,
            environment={URL_VARIABLE: self._database},
        )
        try:
            self._running[job.id] = _Running(spec, _launch(spec), time.monotonic())
        except OSError as error:
            text = f"failed: the process cannot be started: {error.strerror}"
            self._ended.append(TrainingResult(job.id, "failed", "failed", text))

    def poll(self) -> list[TrainingResult]:
        """Return the attempts that ended; see `Trainer.poll`."""
        for job_id, running in list(self._running.items()):
            if running.process.poll() is not None:
                del self._running[job_id]
                self._ended.append(_collect(running))
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, job_id: str, reason: str) -> None:
        """Stop an attempt; see `Trainer.cancel`."""
        running = self._running.get(job_id)
        if running is not None:
            _tell(running.process, reason)

    def status(self) -> dict[str, str]:
        """Return one line for each running job; see `Trainer.status`."""
        return {job_id: _line(running) for job_id, running in self._running.items()}

    def close(self) -> None:
        """Stop all attempts; see `Trainer.close`."""
        for running in self._running.values():
            _tell(running.process, "the loop closes")
        until = time.monotonic() + _CLOSE_SECONDS
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_tree(running.process.pid)
                running.process.wait()
        self._ended += [_collect(running) for running in self._running.values()]
        self._running.clear()

    def tidy(self, active: Collection[str]) -> None:
        """Remove old workspaces, but the newest failed ones, and old logs; see `Trainer.tidy`."""
        kept = {*active, *self._running}
        prune(self._layout, active=kept, keep=self._keep)
        files = [path for path in jobs_folder(self._layout).glob("*") if path.name.split(".")[0] not in kept]
        files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_KEPT_LOGS:]:
            path.unlink(missing_ok=True)


def _launch(spec: Spec) -> subprocess.Popen[str]:
    """Start the attempt's process; its standard input is the lifeline."""
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    for path in (spec.result, spec.progress):
        path.unlink(missing_ok=True)
    with spec.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tradeloop.loop.attempt"],
            cwd=spec.root, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
    _tell(process, json.dumps(asdict(spec)))
    return process


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):  # it has ended
        process.stdin.write(f"{' '.join(line.splitlines())}\n")
        process.stdin.flush()


def _collect(running: _Running) -> TrainingResult:
    """Return what an ended process left; without a result it was killed, and its children are killed after it."""
    spec, process = running.spec, running.process
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    kill_tree(process.pid)
    try:
        found = json.loads(spec.result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kill_marked(spec.job_id)
        status = process.returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return TrainingResult(spec.job_id, "failed", "killed", f"killed: the training's process ended with {how}")
    spec.progress.unlink(missing_ok=True)
    attempt = Attempt(**found["attempt"])
    return TrainingResult(spec.job_id, found["state"], found["cause"], found["error"], attempt, found["summary"])


def _line(running: _Running) -> str:
    seconds = time.monotonic() - running.since
    try:
        at = json.loads(running.spec.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        at = {"number": 0}
    if not at["number"]:
        return f"preparing, {seconds:.0f} s"
    of = f" of {at['of']}" if at["of"] else ""
    return f"stage {at['number']}{of} {at['stage']}, {seconds:.0f} s, {at['memory_mib']} MiB"
