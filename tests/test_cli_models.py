"""The command line's view of the registry and the store: challengers, the archive, comparing, cleaning up, moving."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bundles import tiny_bundle, tiny_schema
from tests.servers import Home, make_home
from tradeloop.bundle_store import BundleStore
from tradeloop.cli import main
from tradeloop.manifest import verify
from tradeloop.registry import Registry
from tradeloop.state.database import REVISION

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    shutil.copytree(made.root, tmp_path / "home")
    return Home(tmp_path / "home", hashes=list(made.hashes))


@pytest.fixture
def run(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command on the project, in this process."""

    def command(*arguments: str, root: Path = home.root) -> Outcome:
        monkeypatch.setenv("TRADELOOP_HOME", str(root))
        monkeypatch.setattr(sys, "argv", ["tradeloop", *arguments])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return command


def states(run: Run) -> list[str]:
    return [model["state"] for model in run("models", "--json").json]


def test_a_challengers_life(run: Run, home: Home) -> None:
    former, champion, waiting = home.versions
    staged = run("stage", waiting, "--mode", "canary", "--share", "0.25", "--reason", "try it")
    assert staged.out == f"{waiting} is a challenger, canary of 25%\n"
    assert (
        run("stage", waiting, "--mode", "canary", "--share", "0.25").out == f"{waiting}: nothing to do, it is staging\n"
    )
    assert run("stage", former).out == f"{former} is a challenger, shadow\n"
    listed = run("models").out
    assert "canary, 25%" in listed and "champion, 75%" in listed and "shadow" in listed
    routes = [model["route"] for model in run("models", "--json").json]
    assert [route and (route["mode"], route["share"]) for route in routes] == [("shadow", 0), None, ("canary", 0.25)]
    gate = verify(home.bundle_folder(2)).manifest.files["gate.json"].sha256
    event = next(e for e in run("events", "--json").json if e["kind"] == "staged")
    assert (event["evidence"]["gate_report"], event["reason"]) == (gate, "try it")
    too_much = run("stage", waiting, "--mode", "ab", "--share", "1.0")
    assert too_much.status == 0  # alone it may have all
    full = run("stage", former, "--mode", "ab", "--share", "0.5")
    assert (full.status, full.err.count("\n")) == (1, 1) and "1 is taken, 0.5 was asked" in full.err
    assert run("unstage", waiting).out == f"{waiting} is no challenger any more\n"
    assert run("demote", champion).out == f"{champion} is demoted; {former} is the champion again\n"
    assert states(run) == ["production", "retired", "validation"]


def test_promotion_and_staging_refuse_features_that_the_store_does_not_hold(run: Run, home: Home) -> None:
    folder = home.root / "packaged" / "9"
    bundle = tiny_bundle(folder, seed=9, schema=tiny_schema(("ret_1", "novelty")))
    BundleStore(home.layout, home.params).put(verify(folder))
    database = home.database()
    Registry(database, home.params.market).register(bundle.hash, passed=True, actor="t", reason="r")
    database.close()
    before = run("events", "--json").json
    for command in ("promote", "stage"):
        refused = run(command, bundle.version)
        assert refused.status == 1 and refused.err.count("\n") == 1
        assert "it needs novelty and it does not know ret_5, vol_20, volume_ratio, gap, weekday" in refused.err
    assert run("events", "--json").json == before


def test_archive_and_quarantine(run: Run, home: Home) -> None:
    former, champion, waiting = home.versions
    assert run("archive", waiting).out == f"{waiting} is archived\n"
    assert "is archived and cannot be promoted" in run("promote", waiting).err
    assert run("archive", waiting, "--undo").out == f"{waiting} is out of the archive\n"
    run("archive", waiting)
    BundleStore(home.layout, home.params).delete(home.hashes[2])
    assert run("archive", waiting, "--undo").status == 1  # its bundle is gone
    content = run("quarantine", former, "--reason", "leaks", "--json").json
    assert (content["model"]["state"], content["changed"]) == ("quarantined", True)
    assert content["champion"]["version"] == champion
    refused = run("quarantine", champion)
    assert (refused.status, refused.err) == (
        1,
        f"tradeloop: {champion} is the champion: roll back before it is quarantined\n",
    )


def test_what_served(run: Run, home: Home) -> None:
    events = run("events", "--json").json
    first = next(event for event in events if event["kind"] == "promoted")
    found = run("served", "AAPL", first["time"], "--json").json
    assert found["hash"] == home.hashes[0] and found["state"] == "production"
    assert run("served", "AAPL", datetime.now(UTC).isoformat()).out.startswith(
        f"{home.versions[1]} (production) since "
    )
    nothing = run("served", "AAPL", "2000-01-01T00:00:00Z")
    assert (nothing.status, nothing.out) == (1, "nothing served AAPL at 2000-01-01T00:00:00+00:00\n")
    naive = run("served", "AAPL", "2000-01-01")
    assert naive.err == "tradeloop: TIME must carry its UTC offset (2013-02-28T21:00:00Z), got '2000-01-01'\n"


def test_status_says_the_revision(run: Run) -> None:
    assert run("status", "--json").json["revision"] == REVISION
    assert f"tradeloop.db, revision {REVISION}" in run("status").out


def test_compare(run: Run, home: Home) -> None:
    shown = run("compare", home.versions[1], home.versions[2]).out
    assert f"{home.versions[1]} (production) and {home.versions[2]} (validation)" in shown
    assert "direction.auc" in shown and "latency p99" in shown
    content = run("compare", home.versions[1], home.versions[2], "--json").json
    assert content["a"]["hash"] == home.hashes[1] and content["latency"][1]["p50"] > 0


def test_cleanup_shows_first_and_deletes_with_yes(run: Run, home: Home) -> None:
    options = ("--best", "0", "--newest", "0")
    shown = run("cleanup", *options).out
    assert "1 would be deleted" in shown and states(run)[2] == "validation"
    content = run("cleanup", *options, "--yes", "--json").json
    assert content["deleted"] == [home.hashes[2]]
    assert states(run) == ["retired", "production", "archived"]
    assert "0 deleted" in run("cleanup", *options, "--yes").out


def test_export_and_import(run: Run, home: Home, tmp_path: Path) -> None:
    path = tmp_path / "model.tar"
    digest = run("export", home.versions[2], str(path), "--json").json["sha256"]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(home.layout.params, other)
    assert "expected 00" in run("import", str(path), "--sha256", "00", root=other).err
    assert (
        run("import", str(path), "--sha256", digest, root=other).out == f"{home.versions[2]} is here, in validation\n"
    )
    assert run("models", "--json", root=other).json[0]["hash"] == home.hashes[2]
