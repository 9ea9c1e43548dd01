"""The journal of a market's streamed bars: append-only, a checksum a line, on disk before anybody acts on them.

One line is one commit: the bars and context values that were taken together, and how far each origin was read. So a
crash leaves a whole commit or none, and bars and offsets never disagree. The journal lies in numbered segments below
``data/stream/<market>``, which the stage ingest depends on: what was streamed is seen by the next `dvc repro`.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from tradeloop.errors import StoreError

SEGMENT_BYTES = 64 << 20
"""A segment that has grown so large is followed by a new one: what is old need not be read for its hash again."""

_CHECKSUM = 9  # eight hexadecimal digits and a space


class Bar(NamedTuple):
    """One closed bar; `time` is its close in microseconds since 1970, UTC; `inputs` by name, as known at the close."""

    symbol: str
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    inputs: Mapping[str, float] | None = None


class Level(NamedTuple):
    """One value of a context series: the close at `time`, known from `known` on; microseconds since 1970, UTC."""

    series: str
    time: int
    known: int
    close: float


@dataclass(frozen=True)
class Commit:
    """What was taken together.

    Attributes
    ----------
    positions
        Where each origin is to be read on from, by the origin's name.
    refused
        Size in bytes of the file of refused messages once this commit's are in it.
    written_at
        When, in microseconds of the wall's time since 1970.
    """

    bars: Sequence[Bar] = ()
    levels: Sequence[Level] = ()
    positions: Mapping[str, str] = field(default_factory=dict)
    refused: int = 0
    written_at: int = 0

    def encode(self) -> bytes:
        """Return the commit as a line of the journal."""
        content = {
            "at": self.written_at,
            "bars": [tuple(bar) if bar.inputs else tuple(bar)[:-1] for bar in self.bars],
            "levels": [tuple(level) for level in self.levels],
            "positions": dict(self.positions),
            "refused": self.refused,
        }
        body = orjson.dumps(content)
        return b"%08x %s\n" % (zlib.crc32(body), body)

    @classmethod
    def decode(cls, line: bytes) -> Commit | None:
        """Return the commit of a line without its end, or None where its checksum is wrong."""
        body = line[_CHECKSUM:]
        if line[:_CHECKSUM] != b"%08x " % zlib.crc32(body):
            return None
        content = orjson.loads(body)
        bars, levels = tuple(Bar(*row) for row in content["bars"]), tuple(Level(*row) for row in content["levels"])
        return cls(bars, levels, content["positions"], content["refused"], content["at"])


class Mark(NamedTuple):
    """A place between two commits: the segment's number and the offset in it."""

    segment: int = 1
    offset: int = 0


BEGINNING = Mark()


class Journal:
    """One market's journal; any number of processes may read, and append one after another under `sole_writer`.

    Parameters
    ----------
    folder
        Where the segments lie; made when something is appended.
    lock
        File that writers lock, outside `folder`, which is what DVC looks at; who only reads needs none.
    """

    def __init__(self, folder: Path, lock: Path | None = None, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._lock = lock
        self._segment_bytes = segment_bytes

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Hold off other writers, in this process and in others; the lock ends with its holder."""
        if self._lock is None:
            raise ValueError("this journal was opened without a lock: it is for reading")
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self, mark: Mark = BEGINNING) -> tuple[list[Commit], Mark]:
        """Return the commits after `mark`, oldest first, and the mark to go on from.

        A line that was being written, or was cut short by a crash, is none yet.

        Raises
        ------
        StoreError
            A line other than the last is damaged, or the journal is shorter than it was.
        """
        commits: list[Commit] = []
        numbers = self._numbers()
        last = max(numbers, default=0)
        if mark != BEGINNING and mark.segment not in numbers:
            raise StoreError(f"{self._path(mark.segment)} is gone: start again what was reading it")
        for number in (n for n in numbers if n >= mark.segment):
            offset = mark.offset if number == mark.segment else 0
            found, offset = self._read_segment(number, offset, newest=number == last)
            commits += found
            mark = Mark(number, offset)
        return commits, mark

    def append(self, commit: Commit, mark: Mark) -> Mark:
        """Write a commit to the disk, to be called under `sole_writer`; return the mark behind it.

        What a crash left behind the last whole commit is cut off first.

        Parameters
        ----------
        mark
            The end of the journal, as `read` returned it under the same lock.

        Raises
        ------
        StoreError
            The disk refuses; nothing was appended.
        """
        if mark.offset >= self._segment_bytes:
            mark = Mark(mark.segment + 1)
        path, line = self._path(mark.segment), commit.encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not path.exists()
            with path.open("ab") as handle:
                handle.truncate(mark.offset)
                try:
                    handle.write(line)
                    handle.flush()
                    os.fsync(handle.fileno())
                except OSError:
                    handle.truncate(mark.offset)
                    raise
            if fresh:
                _sync_folder(path.parent)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from error
        return Mark(mark.segment, mark.offset + len(line))

    def size(self) -> Mark:
        """Return how far the files reach, whole commits or not: what changes when something is appended; cheap."""
        last = max(self._numbers(), default=0)
        return Mark(last, self._path(last).stat().st_size) if last else BEGINNING

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.journal"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.journal"

    def _read_segment(self, number: int, offset: int, *, newest: bool) -> tuple[list[Commit], int]:
        path = self._path(number)
        with path.open("rb") as handle:
            if handle.seek(0, os.SEEK_END) < offset:
                raise StoreError(f"{path} is shorter than it was: start again what was reading it")
            handle.seek(offset)
            content = handle.read()
        commits: list[Commit] = []
        lines = content.split(b"\n")
        for place, line in enumerate(lines[:-1]):
            commit = Commit.decode(line)
            if commit is None:
                if newest and place == len(lines) - 2 and not lines[-1]:
                    return commits, offset  # it never reached the disk as a whole, and nobody was told that it had
                raise StoreError(f"{path} is damaged at byte {offset}: its checksum is wrong")
            commits.append(commit)
            offset += len(line) + 1
        if lines[-1] and not newest:
            raise StoreError(f"{path} is damaged at byte {offset}: its last line has no end")
        return commits, offset


def wall_microseconds() -> int:
    """Return the wall's time in microseconds since 1970."""
    return time.time_ns() // 1000


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
