"""One attempt at a retraining, as a process of its own: ``python -m tradeloop.loop.attempt``.

Its first line of input says what to do; the rest of the input is its lifeline. When that ends (the loop was killed) or
says to stop, everything that the attempt started is killed, and the next attempt goes on from the last finished stage.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml

from tradeloop.atomic import write_json
from tradeloop.errors import ConfigError, TradeloopError
from tradeloop.layout import Layout
from tradeloop.loop.limits import MARK, Cause, Limits, Stopped, Watch, kill_marked, step_back
from tradeloop.loop.progress import Progress, explain, stages_before
from tradeloop.loop.workspace import TARGET, Workspace
from tradeloop.state.job import Attempt

_TELL_SECONDS = 2.0


@dataclass(frozen=True)
class Spec:
    """What an attempt is told.

    `name` is that of the experiment; `ingest` has the source read anew, where DVC cannot see that it has newer bars;
    `dvc` is the command that runs DVC, `environment` what its stages need beside what the workspace itself knows.
    """

    root: str
    job_id: str
    attempt: int
    name: str
    overrides: dict[str, Any]
    ingest: bool
    limits: dict[str, Any]
    dvc: list[str]
    environment: dict[str, str]

    @property
    def log(self) -> Path:
        """Where all that is printed goes, of all attempts of the job."""
        return jobs_folder(Layout(Path(self.root))) / f"{self.job_id}.log"

    @property
    def progress(self) -> Path:
        """Where the attempt says how far it is."""
        return self.log.with_name(f"{self.job_id}.progress.json")

    @property
    def result(self) -> Path:
        """Where the attempt says how it ended."""
        return self.log.with_name(f"{self.job_id}.{self.attempt}.json")


def jobs_folder(project: Layout) -> Path:
    """Return where logs, progress and results of retrainings lie."""
    return project.live / "jobs"


class Lifeline:
    """Listens to who started this process: a line is the reason to stop, the end of the stream is their death."""

    def __init__(self, stream: IO[str]) -> None:
        self._stop: tuple[Cause, str] | None = None
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def __call__(self) -> tuple[Cause, str] | None:
        """Return why to stop, if so."""
        return self._stop

    def _listen(self, stream: IO[str]) -> None:
        line = stream.readline().strip()
        self._stop = ("cancelled", line) if line else ("lost", "the loop that started it is gone")


class Training:
    """Runs the pipeline in a workspace and collects what came of it."""

    def __init__(self, spec: Spec, lifeline: Lifeline) -> None:
        self._spec = spec
        self._workspace = Workspace(Layout(Path(spec.root)), spec.job_id)
        limits = Limits(**spec.limits)
        self._watch = Watch(limits, Path(spec.root), interrupted=lifeline, tick=self._tick)
        self._progress = Progress(spec.log)
        self._told = 0.0
        own = {**spec.environment, **limits.environment, MARK: spec.job_id}
        self._environment = self._workspace.environment(own)

    def run(self) -> dict[str, Any]:
        """Return how the attempt ended, as JSON has it; nothing that goes wrong is raised."""
        state, cause, error, summary = "failed", None, None, {}
        try:
            summary = self._steps()
            state = "succeeded"
        except Stopped as stopped:
            cause, error = stopped.cause, str(stopped)
        except ConfigError as refused:
            cause, error = "params", f"params: {refused}"
        except (TradeloopError, OSError) as failed:
            cause = "disk" if os.strerror(errno.ENOSPC) in str(failed) else "failed"
            error = f"{cause}: {failed}"
        if cause == "cancelled":
            state = "cancelled"
        attempt = asdict(self._facts(state == "succeeded"))
        wall = round(self._watch.wall_seconds, 1)
        return {
            "state": state,
            "cause": cause,
            "error": error,
            "attempt": attempt,
            "summary": {**summary, "wall_seconds": wall},
        }

    def _steps(self) -> dict[str, Any]:
        spec, workspace = self._spec, self._workspace
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        self._note(f"attempt {spec.attempt} of job {spec.job_id}")
        if (left := kill_marked(spec.job_id)) > 0:
            self._note(f"killed {left} processes that an earlier attempt had left")
        self._watch.check()
        resumed = workspace.prepare(spec.overrides, spec.dvc)
        self._progress.of = stages_before(workspace.root / "dvc.lock", TARGET)
        if spec.ingest and not workspace.ingested:
            self._dvc("repro", "--single-item", "--force", "config", "ingest")
            workspace.note_ingested()
        self._dvc("repro", TARGET)
        if TARGET not in self._progress.ran:
            # DVC had its outputs; the registry and the model store, which are no outputs, may have lost the model.
            self._dvc("repro", "--single-item", "--force", TARGET)
        workspace.add_all()
        self._dvc("exp", "save", "--force", "--name", spec.name, TARGET)
        workspace.publish_experiment(spec.name)
        packaged = json.loads((workspace.layout.reports / "package.json").read_text(encoding="utf-8"))
        report = {key: packaged.get(key) for key in ("version", "verdict", "reason")}
        self._note(f"{report['version']} {report['reason']}; experiment {spec.name}")
        return {"model": packaged["bundle"], **report, "resumed": resumed, "ran": self._progress.ran}

    def _dvc(self, *arguments: str) -> None:
        """Run DVC in the workspace; a failure is told in the words of the stage that failed."""
        self._note("dvc " + " ".join(arguments))
        with self._spec.log.open("ab") as log:
            status = self._watch.run(
                [*self._spec.dvc, *arguments], cwd=self._workspace.root, environment=self._environment, log=log
            )
        self._progress.read()
        if status:
            raise Stopped(*explain(self._progress.tail(), status))

    def _facts(self, finished: bool) -> Attempt:
        """Return what is known of the attempt, as much as it came to."""
        workspace = self._workspace
        made: dict[str, Any] = {}
        if finished:
            reports, bundle = workspace.layout.reports, workspace.layout.models / "bundle" / "manifest.json"
            packaged = _read(reports / "package.json")
            made = {"model": packaged.get("bundle"), "verdict": packaged.get("verdict"), "name": self._spec.name}
            made |= {"metrics": _read(reports / "metrics.json"), "data_hash": _read(bundle).get("data_hash")}
        return Attempt(
            git_revision=workspace.revision,
            params=_parameters(workspace.layout.params),
            cpu_seconds=round(self._watch.cpu_seconds, 2),
            peak_mib=round(self._watch.peak_mib, 1),
            **made,
        )

    def _tick(self, memory: float, seconds: float) -> None:
        if self._progress.read() or self._watch.wall_seconds - self._told >= _TELL_SECONDS:
            self._told = self._watch.wall_seconds
            figures = {"memory_mib": round(memory), "cpu_seconds": round(seconds, 1)}
            write_json(self._spec.progress, self._progress.as_dict() | figures)

    def _note(self, text: str) -> None:
        with self._spec.log.open("a", encoding="utf-8") as log:
            log.write(f"\n== {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _parameters(path: Path) -> dict[str, Any]:
    """Return all parameters that it trained with, dates as text."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return dict(json.loads(json.dumps(content, default=str))) if isinstance(content, dict) else {}


def main() -> int:
    """Do what the first line of input says; whatever comes of it stands in the result file."""
    spec = Spec(**json.loads(sys.stdin.readline()))
    lifeline = Lifeline(sys.stdin)
    step_back(Limits(**spec.limits))
    result = Training(spec, lifeline).run()
    write_json(spec.result, result)
    if result["state"] == "succeeded":
        Workspace(Layout(Path(spec.root)), spec.job_id).discard()
    return 0


if __name__ == "__main__":
    sys.exit(main())
