"""What DVC's output tells of a run: which stage it is at, which ran, and why it failed."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import yaml

from tradeloop.loop.limits import Cause

_STAGE = re.compile(r"^(Running stage|Stage) '([^']+)'", re.MULTILINE)
_FAILED = re.compile(r"^ERROR: failed to reproduce '([^']+)'", re.MULTILINE)
_SIGNAL = re.compile(r"exited with -(\d+)")
_TAIL = 16_384
_LONGEST = 500


class Progress:
    """Follows a log that others write.

    Attributes
    ----------
    ran
        The stages that were really run, in order.
    of
        How many stages there are; None if that is not known.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.is_file() else 0
        self._seen: dict[str, None] = {}
        self.ran: list[str] = []
        self.of: int | None = None

    def read(self) -> bool:
        """Take in what was written since; return whether a stage began."""
        if not self._log.is_file():
            return False
        with self._log.open("rb") as log:
            log.seek(self._offset)
            added = log.read()
        whole = added.rfind(b"\n") + 1
        self._offset += whole
        found = _STAGE.findall(added[:whole].decode(errors="replace"))
        for how, stage in found:
            self._seen[stage] = None
            if how == "Running stage" and stage not in self.ran:
                self.ran.append(stage)
        return bool(found)

    def as_dict(self) -> dict[str, Any]:
        """Return the newest stage, its number, and how many there are."""
        return {"stage": next(reversed(self._seen), None), "number": len(self._seen), "of": self.of}

    def tail(self) -> str:
        """Return the end of the log."""
        with self._log.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _TAIL))
            return log.read().decode(errors="replace")


def stages_before(lock: Path, target: str) -> int | None:
    """Return how many stages a run of `target` has, itself included, by the last run's lock; None without one."""
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        needed, pending = set(), [target]
        while pending:
            name = pending.pop()
            needed.add(name)
            paths = [entry["path"] for entry in stages[name].get("deps", [])]
            for other, stage in stages.items():
                outs = [entry["path"] for entry in stage.get("outs", [])]
                if other not in needed and any(_overlap(path, out) for path in paths for out in outs):
                    pending.append(other)
        return len(needed)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def explain(tail: str, status: int) -> tuple[Cause, str]:
    """Return the cause and one line for a DVC command that exited with `status` after printing `tail`."""
    tail = tail[tail.rfind("\n== ") + 1 :]
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    failed = _FAILED.search(tail)
    if failed is None:
        text = errors[-1].removeprefix("ERROR: ") if errors else lines[-1] if lines else "it printed nothing"
        where = "" if status > 0 else f"signal {-status}; "
        return _cause(tail, status), f"{where}{text}"[:_LONGEST]
    stage = failed[1]
    signal = _SIGNAL.search(tail[failed.start() :])
    if signal is not None:
        return _cause(tail, -int(signal[1])), f"stage {stage} was killed by signal {signal[1]}"
    before = [line.strip() for line in tail[: failed.start()].splitlines() if line.strip()]
    said = before[-1] if before and not before[-1].startswith(("> ", "Running stage")) else errors[-1]
    return _cause(tail, status), f"stage {stage}: {said}"[:_LONGEST]


def _cause(tail: str, status: int) -> Cause:
    if os.strerror(errno.ENOSPC) in tail:
        return "disk"
    return "killed" if status < 0 else "failed"
