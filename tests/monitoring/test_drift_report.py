from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.evidences import changed, hourly
from tradeloop.monitoring import drift_report
from tradeloop.monitoring.drift import DriftMonitor, ServedRow
from tradeloop.monitoring.drift_report import Attempt, DriftReports, sample, usable
from tradeloop.reference import Reference
from tradeloop.reference.measure import ranked_sketch

NOW = datetime(2024, 3, 6, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def reference() -> Reference:
    """Return a reference of two features, of which the second is constant."""
    drawn = np.random.default_rng(0).standard_normal((800, 2)) * [1.0, 0.0]
    columns = [ranked_sketch(column, np.arange(800)) for column in drawn.T]
    forecast = columns[0]
    made = Reference.model_construct(rows=800, train_rows=800)
    parts: dict[str, Any] = {
        "features": {"names": ["moving_one", "standing_one"], "train": columns, "recent": columns},
        "forecasts": {"p_up": forecast, "ret": forecast, "range": forecast},
    }
    for name, part in parts.items():
        kind: Any = Reference.model_fields[name].annotation
        object.__setattr__(made, name, kind.model_validate(part))
    return made


def monitor(rows: int = 120) -> DriftMonitor:
    made = DriftMonitor(reference(), hourly().drift)
    drawn = np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)
    made.update(
        ServedRow("S", NOW + number * timedelta(hours=1), row[:2] * [1, 0], float(row[2]), float(np.exp(row[3])))
        for number, row in enumerate(drawn)
    )
    return made


def finish(reports: DriftReports, now: datetime, limit: float = 540.0) -> Attempt:
    """Turn until the child has ended."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done = reports.step(now, monitor(0), reference())
        if done is not None:
            return done
        time.sleep(0.05)
    pytest.fail(f"no report within {limit} seconds")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run a few lines instead of Evidently; return the commands that were asked for."""
    asked: list[list[str]] = []
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        asked.append(command)
        code = "import sys, pathlib; pathlib.Path(sys.argv[2]).write_text('report')"
        return real([sys.executable, "-c", code, *command[3:]], **options)

    monkeypatch.setattr(drift_report.subprocess, "Popen", start)
    return asked


@pytest.mark.slow
def test_evidently_writes_a_page_that_opens_without_a_network(tmp_path: Path) -> None:
    reports = DriftReports(tmp_path / "reports", hourly().drift)
    began = time.perf_counter()
    assert reports.step(NOW, monitor(), reference()) is None
    assert time.perf_counter() - began < 0.5  # a turn does not wait for it
    done = finish(reports, NOW)
    assert done.error is None and done.path == tmp_path / "reports" / "drift-20240306T120000Z.html"
    page = done.path.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "moving_one" in page and "p_up" in page
    assert "standing_one" not in page  # a constant column would kill the report
    assert [path.name for path in (tmp_path / "reports").iterdir()] == [done.path.name]  # no leftovers


def test_it_comes_on_its_schedule_and_the_newest_are_kept(tmp_path: Path, child: list[list[str]]) -> None:
    config = changed(hourly(), {"drift.report_every": "2d", "drift.keep_reports": 2}).drift
    reports, made = DriftReports(tmp_path, config), []
    for day in range(8):
        if reports.step(NOW + day * DAY, monitor(), reference()) is None and len(child) > len(made):
            made.append(day)
            assert finish(reports, NOW + day * DAY).error is None
    assert made == [0, 2, 4, 6]
    assert [path.name for path in reports.written()] == ["drift-20240310T120000Z.html", "drift-20240312T120000Z.html"]


def test_a_loop_that_starts_again_reads_off_when_the_last_was_made(tmp_path: Path, child: list[list[str]]) -> None:
    first = DriftReports(tmp_path, hourly().drift)
    first.step(NOW, monitor(), reference())
    finish(first, NOW)
    again = DriftReports(tmp_path, hourly().drift)
    again.step(NOW + 6 * DAY, monitor(), reference())
    assert len(child) == 1
    again.step(NOW + 7 * DAY, monitor(), reference())
    assert len(child) == 2
    again.close()


def test_too_few_rows_are_not_reported_on(tmp_path: Path, child: list[list[str]]) -> None:
    reports = DriftReports(tmp_path, hourly().drift)
    assert reports.step(NOW, monitor(99), reference()) is None
    assert child == []


def test_a_failure_is_told_in_one_line_and_tried_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        drift_report.subprocess,
        "Popen",
        lambda _, **options: real([sys.executable, "-c", "raise SystemExit('no room\\n')"], **options),
    )
    reports = DriftReports(tmp_path, hourly().drift)
    reports.step(NOW, monitor(), reference())
    assert finish(reports, NOW) == Attempt(None, "the drift report failed with exit status 1: no room")
    assert reports.step(NOW + DAY, monitor(), reference()) is None
    assert list(tmp_path.iterdir()) == []


def test_one_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def hang(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        return started[-1]

    monkeypatch.setattr(drift_report.subprocess, "Popen", hang)
    monkeypatch.setattr(drift_report, "TIMEOUT", 0.2)
    reports = DriftReports(tmp_path, hourly().drift)
    reports.step(NOW, monitor(), reference())
    error = finish(reports, NOW).error
    assert error == "the drift report took longer than 0.2 seconds and was stopped"
    assert started[0].poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_evidently_is_imported_nowhere_else() -> None:
    code = "import sys, tradeloop.monitoring.drift_report; assert not {'evidently', 'plotly'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_sample_has_the_sketch_s_distribution() -> None:
    drawn = np.random.default_rng(2).gamma(2.0, size=5000)
    sketch = type(reference().features.train[0]).model_validate(ranked_sketch(drawn, np.arange(5000)))
    values = sample([sketch, sketch])
    assert values.shape == (1000, 2)
    assert np.quantile(values[:, 0], [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(drawn, [0.1, 0.5, 0.9]), rel=0.02)


def test_columns_that_kill_evidently_are_left_out() -> None:
    good = np.arange(5.0)
    current = np.column_stack([good, np.full(5, np.nan), np.ones(5), good, np.where(good == 2, np.nan, good)])
    reference_rows = np.column_stack([good, good, good, np.zeros(5), good])
    assert usable(current, reference_rows).tolist() == [True, False, False, False, False]
