"""Run every test as `make test` does: services first, all cores, coverage, and the skips counted out loud."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINIMUM_COVERAGE = 85


def services(action: str) -> bool:
    """Run services.sh with `action`; return whether it succeeded."""
    quiet = subprocess.DEVNULL if action != "start" else None
    return (
        subprocess.run(["bash", "services.sh", action], cwd=ROOT, check=False, stdout=quiet, stderr=quiet).returncode
        == 0
    )


def start_services() -> tuple[bool, bool]:
    """Return whether Redis and PostgreSQL are up, and whether it was this run that started them."""
    if services("status"):
        return True, False
    if shutil.which("apt-get") is not None and services("start"):
        return True, True
    print("tests: Redis and PostgreSQL are NOT running: the tests marked `services` will be skipped", flush=True)
    return False, False


def main(arguments: list[str]) -> int:
    """Return pytest's exit status; a missing service fails when REQUIRE_SERVICES=1."""
    up, started = start_services()
    if not up and os.environ.get("REQUIRE_SERVICES") == "1":
        print("tests: REQUIRE_SERVICES=1 and the services cannot be started", file=sys.stderr)
        return 1
    workers = str(os.cpu_count() or 1)
    command = [sys.executable, "-m", "pytest", "-n", workers, "--dist", "loadgroup"]
    command += ["--cov", "--cov-report=term", f"--cov-fail-under={MINIMUM_COVERAGE}", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode
    finally:
        if started:
            services("stop")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
