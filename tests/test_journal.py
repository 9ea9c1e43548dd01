"""Whole commits or none: torn, damaged and missing pieces of the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.errors import StoreError
from tradeloop.journal import BEGINNING, Bar, Commit, Journal, Level, Mark

COMMITS = [
    Commit((Bar("A", 1, 1.0, 2.0, 0.5, 1 / 3, 7.0),), (Level("X", 1, 2, 0.1),), {"file": "12"}, 5, 99),
    Commit((Bar("B", 2, 1.0, 2.0, 0.5, 1.5, 0.0, {"book.spread": 0.25}),)),
    Commit(positions={"file": "20"}),
]


def journal(folder: Path, **options: int) -> Journal:
    return Journal(folder / "journal", folder / "lock", **options)


def written(folder: Path, commits: list[Commit], **options: int) -> Mark:
    made, mark = journal(folder, **options), BEGINNING
    for commit in commits:
        with made.sole_writer():
            mark = made.append(commit, mark)
    return mark


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    end = written(tmp_path, COMMITS)
    commits, mark = journal(tmp_path).read()
    assert commits == COMMITS and mark == end == journal(tmp_path).size()
    assert commits[0].bars[0].close == 1 / 3, "to the last bit"


def test_who_follows_sees_only_what_is_new(tmp_path: Path) -> None:
    reader = journal(tmp_path)
    assert reader.read() == ([], BEGINNING) and reader.size() == BEGINNING
    mark = written(tmp_path, COMMITS[:1])
    _, seen = reader.read()
    with reader.sole_writer():
        mark = reader.append(COMMITS[1], mark)
    assert reader.read(seen) == ([COMMITS[1]], mark) and reader.read(mark) == ([], mark)


def test_segments_follow_one_another(tmp_path: Path) -> None:
    end = written(tmp_path, COMMITS, segment_bytes=10)
    assert [path.name for path in sorted((tmp_path / "journal").iterdir())] == [f"00000{n}.journal" for n in (1, 2, 3)]
    assert journal(tmp_path).read() == (COMMITS, end)
    _, middle = Journal(tmp_path / "journal").read()
    assert middle == end


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_at_any_byte_leaves_whole_commits(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    written(folder, COMMITS)
    path = folder / "journal" / "000001.journal"
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:kept] + data.draw(st.sampled_from([b"", b"\0" * 9, b"12345678 {}\n"])))
    ends = [0]
    for commit in COMMITS:
        ends.append(ends[-1] + len(commit.encode()))
    whole = sum(end <= kept for end in ends[1:])
    again = journal(folder)
    commits, mark = again.read()
    assert commits == COMMITS[:whole] and mark.offset == ends[whole]
    with again.sole_writer():
        again.append(COMMITS[0], mark)
    assert again.read()[0] == [*COMMITS[:whole], COMMITS[0]]


@pytest.mark.parametrize("at", [3, 20])
def test_damage_in_the_middle_is_told(tmp_path: Path, at: int) -> None:
    written(tmp_path, COMMITS)
    path = tmp_path / "journal" / "000001.journal"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"000001.journal is damaged at byte 0: its checksum is wrong"):
        journal(tmp_path).read()


def test_an_older_segment_must_be_whole(tmp_path: Path) -> None:
    written(tmp_path, COMMITS, segment_bytes=10)
    path = tmp_path / "journal" / "000001.journal"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StoreError, match=r"000001.journal is damaged at byte 0: its last line has no end"):
        journal(tmp_path).read()


def test_a_journal_that_shrank_is_told(tmp_path: Path) -> None:
    mark = written(tmp_path, COMMITS)
    path = tmp_path / "journal" / "000001.journal"
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(StoreError, match="is shorter than it was"):
        journal(tmp_path).read(mark)
    path.unlink()
    with pytest.raises(StoreError, match="is gone"):
        journal(tmp_path).read(mark)


def test_who_only_reads_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="opened without a lock"), Journal(tmp_path).sole_writer():
        pass
