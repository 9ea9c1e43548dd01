from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tradeloop.errors import StoreError
from tradeloop.paper.exchange import Account, Fill, Position, Target
from tradeloop.paper.ledger import Bar, Ledger, retire

AT = datetime(2020, 1, 1, tzinfo=UTC)
SETTINGS = {"cash": 100.0, "seed": 1}


def fill(name: str) -> Fill:
    return Fill(name, "p", "AAA", "buy", 1.0, 10.0, 9.9, 0.1, None, AT)


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "live" / "a.db"
    account = Account(90.0, 100.0, {"AAA": Position(1.0, 10.0, "p", AT)}, {"AAA": 10.0})
    with Ledger(path) as ledger:
        state = ledger.begin(Account.open(100.0), SETTINGS)
        state = replace(state, cursor=AT, account=account, targets={"AAA": Target(-1, "q")})
        ledger.commit(state, [fill("one"), fill("two")], Bar(AT, 100.0, 10.0, 3, 1))
        ledger.reported({"one": ("accepted", None)})
    with Ledger(path) as ledger:
        assert ledger.begin(Account.open(1.0), SETTINGS) == state
        assert [one.fill_id for one in ledger.unreported()] == ["two"]
        assert ledger.fills() == [fill("one"), fill("two")]
        assert ledger.statuses() == {"accepted": 1, "unreported": 1}
        assert ledger.bars() == [Bar(AT, 100.0, 10.0, 3, 1)]


def test_a_bar_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.db") as ledger:
        state = ledger.begin(Account.open(100.0), SETTINGS)
        ledger.commit(state, [fill("one")], Bar(AT, 100.0, 0.0, 1, 0))
        later = replace(state, cursor=AT)
        with pytest.raises(StoreError, match="UNIQUE constraint failed"):
            ledger.commit(later, [fill("two"), fill("one")], None)
        assert ledger.begin(Account.open(1.0), SETTINGS).cursor is None
        assert len(ledger.fills()) == 1


def test_an_account_is_not_continued_under_other_rules(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Ledger(path) as ledger:
        ledger.begin(Account.open(100.0), SETTINGS)
        with pytest.raises(StoreError, match=r"an account with seed 1, now it is 2: begin a new one with --new"):
            ledger.begin(Account.open(100.0), {**SETTINGS, "seed": 2})
    assert retire(path) == tmp_path / "a.1.db"
    assert retire(path) is None
    with Ledger(path) as ledger:
        first = ledger.begin(Account.open(100.0), {**SETTINGS, "seed": 2})
    assert retire(path) == tmp_path / "a.2.db"
    with Ledger(path) as ledger:
        assert ledger.begin(Account.open(100.0), SETTINGS).run != first.run


def test_what_is_no_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(StoreError, match=r"the bot's ledger .*a\.db: file is not a database"):
        Ledger(path)
