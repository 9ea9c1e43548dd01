"""Evidently's HTML report on drift: for a person who wants to look, not for the loop to decide on.

The newest served rows are shown beside the champion's reference. Of that the bundle holds 41 quantiles a column; the
sample that Evidently is given is drawn from them at equal steps of probability, so that the report needs no training
data and belongs to the very model that serves. Columns are shown one by one: a sample by quantiles has their
distributions, not their joint one.

Evidently takes seconds to import and to draw. It runs in a process of its own, at a low priority, and only there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.atomic import write_bytes
from tradeloop.bars import Floats
from tradeloop.config import Drift, parse_interval
from tradeloop.monitoring.drift import DriftMonitor
from tradeloop.reference import Reference, Sketch

STEPS = 1000
NICE = 10
TIMEOUT = 1800.0
"""Wall seconds after which a report is given up; on a busy machine one takes a minute."""
_STAMP = "drift-%Y%m%dT%H%M%SZ.html"


@dataclass(frozen=True)
class Attempt:
    """A report that was written, or why it was not."""

    path: Path | None
    error: str | None


class DriftReports:
    """Writes a report every ``drift.report_every`` of the market's time, and keeps the newest ``keep_reports``.

    Parameters
    ----------
    folder
        Live state, such as ``data/live/reports``; never a DVC output. When the last one was made is read off the names.
    """

    def __init__(self, folder: Path, config: Drift) -> None:
        self._folder = folder
        self._config = config
        self._every = parse_interval(config.report_every)
        written = self.written()
        self._last = _made_at(written[-1]) if written else None
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._target = Path()
        self._given = self._said = Path()

    def written(self) -> list[Path]:
        """Return the reports there are, oldest first."""
        return sorted(self._folder.glob("drift-*.html"))

    def step(self, now: datetime, monitor: DriftMonitor, reference: Reference) -> Attempt | None:
        """Start a report if one is due, and tell of one that ended; never wait.

        Parameters
        ----------
        now
            The market's time.
        reference
            The one that `monitor` compares with.
        """
        if self._child is not None:
            return self._ended()
        due = self._last is None or abs(now - self._last) >= self._every
        if due and len(rows := monitor.recent()) >= self._config.min_rows:
            self._last = now
            sketches = [*reference.features.train, reference.forecasts.p_up, reference.forecasts.range]
            self._start(now, monitor.names, rows, sample(sketches))
        return None

    def close(self) -> None:
        """Give up a report that is being written."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._forget()

    def _start(self, now: datetime, names: Sequence[str], current: NDArray[np.float32], reference: Floats) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._target = self._folder / now.astimezone(UTC).strftime(_STAMP)
        handle, name = tempfile.mkstemp(prefix=".drift-", suffix=".npz", dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, names=np.array(names), current=current, reference=reference)
        self._given = Path(name)
        self._said = self._given.with_suffix(".log")
        command = [sys.executable, "-m", __name__, name, str(self._target), repr(self._config.wasserstein)]
        environment = os.environ | {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
        with self._said.open("wb") as log:
            self._child = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self._started = time.monotonic()

    def _ended(self) -> Attempt | None:
        """Return what became of the running report; None if it still runs."""
        assert self._child is not None
        code = self._child.poll()
        if code is None:
            if time.monotonic() - self._started < TIMEOUT:
                return None
            self.close()
            return Attempt(None, f"the drift report took longer than {TIMEOUT:g} seconds and was stopped")
        lines = self._said.read_text(errors="replace").split("\n")
        self._forget()
        if code != 0 or not self._target.is_file():
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            return Attempt(None, f"the drift report failed with exit status {code}: {last}")
        for old in self.written()[: -self._config.keep_reports]:
            old.unlink(missing_ok=True)
        return Attempt(self._target, None)

    def _forget(self) -> None:
        self._child = None
        self._given.unlink(missing_ok=True)
        self._said.unlink(missing_ok=True)


def sample(sketches: Sequence[Sketch], steps: int = STEPS) -> Floats:
    """Return `steps` values (steps, d) of each sketch, at equal steps of probability."""
    wanted = (np.arange(steps) + 0.5) / steps
    columns = [np.interp(wanted, np.linspace(0, 1, len(one.quantiles)), one.quantiles) for one in sketches]
    return np.stack(columns, axis=1)


def usable(current: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which columns Evidently survives: with two values or more in both, and none that is not finite."""
    finite = np.isfinite(current).all(axis=0) & np.isfinite(reference).all(axis=0)
    varied = [np.ptp(part, axis=0) > 0 for part in (np.nan_to_num(current), np.nan_to_num(reference))]
    return np.asarray(finite & varied[0] & varied[1])


def write_report(source: Path, target: Path, threshold: float) -> None:
    """Write the report on the arrays in `source` (an npz file) to `target`, whole or not at all.

    Parameters
    ----------
    threshold
        Wasserstein distance in standard deviations of the reference from which on Evidently calls a column drifted.
    """
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    with np.load(source, allow_pickle=False) as arrays:
        names, current, reference = arrays["names"], arrays["current"], arrays["reference"]
    kept = usable(current, reference)
    if not kept.any():
        raise ValueError("no column has two different values both in the window and in the reference")
    frames = [pd.DataFrame(part[:, kept].astype(np.float64), columns=names[kept]) for part in (current, reference)]
    drift = DataDriftPreset(num_method="wasserstein", num_threshold=threshold)
    snapshot = Report([drift]).run(*frames)
    write_bytes(target, snapshot.get_html_str(as_iframe=False).encode())


def _made_at(path: Path) -> datetime:
    return datetime.strptime(path.name, _STAMP).replace(tzinfo=UTC)


if __name__ == "__main__":
    os.nice(NICE)
    data, wanted_at, limit = sys.argv[1:]
    write_report(Path(data), Path(wanted_at), float(limit))
