"""Stands in for DVC where a test is about what surrounds it: ``python fake_dvc.py cache dir | repro … | exp save …``.

The folder `$FAKE_DVC` says how `repro` behaves (file ``behaviour``) and counts its calls (file ``calls``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CONTROL = Path(os.environ.get("FAKE_DVC", "."))
MODEL = "ab" * 32


def repro(target: str) -> int:
    """Behave as told; write what the package stage would."""
    path = CONTROL / "behaviour"
    behaviour = path.read_text() if path.exists() else "pass"
    print("Running stage 'train':", flush=True)
    (CONTROL / "started").touch()
    if behaviour == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (CONTROL / "child").write_text(str(child.pid))
        time.sleep(600)
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "grow":
        hoard = bytearray(300 * 2**20)
        time.sleep(600 + len(hoard) * 0)
    if behaviour == "full":
        print("OSError: [Errno 28] No space left on device: 'data/models'")
        print("ERROR: failed to reproduce 'train': failed to run: python -m stages.train, exited with 1")
        return 255
    if behaviour in ("refuse", f"refuse {target}"):
        print("train: the training matrix has no rows")
        print("ERROR: failed to reproduce 'train': failed to run: python -m stages.train, exited with 1")
        return 255
    print("Running stage 'package':")
    verdict = "fail" if behaviour == "worse" else "pass"
    reports, bundle = Path("data/reports"), Path("data/models/bundle")
    reports.mkdir(parents=True, exist_ok=True)
    bundle.mkdir(parents=True, exist_ok=True)
    packaged = {"bundle": MODEL, "version": MODEL[:12], "verdict": verdict, "reason": f"{verdict}: a test"}
    (reports / "package.json").write_text(json.dumps(packaged))
    (reports / "metrics.json").write_text(json.dumps({"range": {"r2": 0.3}}))
    (bundle / "manifest.json").write_text(json.dumps({"data_hash": "da" * 32}))
    return 0


def main(arguments: list[str]) -> int:
    """Do what the first arguments say."""
    with (CONTROL / "calls").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    if arguments[0] == "cache":
        print(Path.cwd() / ".dvc" / "cache")
        return 0
    if arguments[0] == "repro":
        return repro(arguments[-1])
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{arguments[arguments.index('--name') + 1]}"
    subprocess.run(["git", "update-ref", ref, "HEAD"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
