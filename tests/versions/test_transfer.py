"""A version as one file, from one project to another."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Home
from tests.versions.conftest import WHY, Bench
from tradeloop.errors import BundleError
from tradeloop.versions.transfer import Imported, bring_in, export

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own


@pytest.fixture
def other(tmp_path: Path, made: Path) -> Iterator[Bench]:
    """Return another project, without any model."""
    root = tmp_path / "other"
    root.mkdir()
    shutil.copy(made / "params.yaml", root)
    home = Home(root)
    database = home.database()
    yield Bench(home, database)
    database.close()


def give_bento(bench: Bench, model: str) -> None:
    """Put a Bento beside a bundle, of the shape that the real one has."""
    folder = bench.store.bento_folder(model)
    shutil.copytree(bench.store.folder(model), folder / "src" / "bundle")
    (folder / "src" / "bentos").mkdir()
    (folder / "src" / "bentos" / "service.py").write_text("raise SystemExit('this must not run')\n")
    (folder / "bento.yaml").write_text("service: bentos.service\n")


def take(other: Bench, path: Path, sha256: str | None = None) -> Imported:
    return bring_in(other.registry, other.home.layout, other.home.params, path, actor="tester", sha256=sha256)


def test_a_version_arrives_whole(bench: Bench, other: Bench, tmp_path: Path) -> None:
    bundle = bench.add(11)
    give_bento(bench, bundle.hash)
    path = tmp_path / "version.tar"
    digest = export(bench.registry, bench.store, bundle.version, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    found = take(other, path, digest)
    assert found.bento and found.record.state == "validation" and found.record.hash == bundle.hash
    assert other.store.get(bundle.hash).hash == bundle.hash
    assert other.registry.facts() == bench.registry.facts()
    source, target = bench.store.bento_folder(bundle.hash), other.store.bento_folder(bundle.hash)
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert len(files) > 10 and {path.relative_to(target) for path in target.rglob("*") if path.is_file()} == files
    assert all((source / name).read_bytes() == (target / name).read_bytes() for name in files)
    assert (target.parent / "latest").read_text() == target.name
    past = found.record.evidence["imported"]["events"]
    assert [event["kind"] for event in past] == ["registered"]


def test_exporting_again_gives_the_same_bytes_and_importing_again_changes_nothing(
    bench: Bench, other: Bench, tmp_path: Path
) -> None:
    bundle = bench.add(11)
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    assert export(bench.registry, bench.store, bundle.hash, first) == export(
        bench.registry, bench.store, bundle.hash, second
    )
    assert not take(other, first).bento
    history = other.registry.events()
    take(other, second)
    assert other.registry.events() == history


@pytest.mark.parametrize("archived", [False, True])
def test_what_was_quarantined_stays_so(bench: Bench, other: Bench, tmp_path: Path, archived: bool) -> None:
    bundle = bench.add(11)
    bench.registry.quarantine(bundle.hash, actor="tester", reason="leaks")
    if archived:
        bench.registry.archive(bundle.hash, **WHY)
    export(bench.registry, bench.store, bundle.hash, tmp_path / "v.tar")
    record = take(other, tmp_path / "v.tar").record
    assert record.state == "quarantined" and ("because" if archived else "leaks") in record.reason
    failed = bench.add(12, passed=False)
    export(bench.registry, bench.store, failed.hash, tmp_path / "f.tar")
    assert take(other, tmp_path / "f.tar").record.state == "quarantined"


def test_no_champion_arrives_and_no_archive_stays_shut(bench: Bench, other: Bench, tmp_path: Path) -> None:
    champion = bench.home.hashes[1]
    export(bench.registry, bench.store, champion, tmp_path / "v.tar")
    assert take(other, tmp_path / "v.tar").record.state == "validation"
    assert other.registry.champion() is None
    other.registry.archive(champion, **WHY)
    other.store.delete(champion)
    assert take(other, tmp_path / "v.tar").record.state == "validation"
    assert other.store.has(champion)


def test_a_bundle_that_is_gone_cannot_be_exported(bench: Bench, tmp_path: Path) -> None:
    bundle = bench.add(11)
    bench.store.delete(bundle.hash)
    with pytest.raises(BundleError, match="cannot be read"):
        export(bench.registry, bench.store, bundle.hash, tmp_path / "v.tar")
    assert not (tmp_path / "v.tar").exists()


Content = dict[str, bytes]


def edit(path: Path, change: Callable[[Content], None], *, sealed: bool = True) -> None:
    """Write the file anew with another content; with `sealed`, its index says so."""
    with tarfile.open(path) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    change(content)
    if sealed:
        index = json.loads(content["export.json"])
        rest = {name: body for name, body in content.items() if name != "export.json"}
        index["files"] = {n: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in rest.items()}
        content["export.json"] = json.dumps(index).encode()
    with tarfile.open(path, "w") as tar:
        for name, body in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def index_of(content: Content, **changes: object) -> None:
    content["export.json"] = json.dumps(json.loads(content["export.json"]) | changes).encode()


def flip(content: Content, name: str) -> None:
    content[name] = content[name][:-2] + bytes([content[name][-2] ^ 1]) + content[name][-1:]


@pytest.mark.parametrize(
    ("change", "sealed", "rule"),
    [
        (lambda c: flip(c, "bundle/mlp/range.onnx"), False, "bundle/mlp/range.onnx is not what the index says"),
        (lambda c: flip(c, "bundle/mlp/range.onnx"), True, r"mlp/range.onnx does not have the manifest's SHA-256"),
        (lambda c: flip(c, "bundle/manifest.json"), True, "manifest.json is that of bundle"),
        (lambda c: c.pop("bundle/gate.json"), False, "bundle/gate.json is in the file or in its index"),
        (lambda c: c.pop("bundle/gate.json"), True, "gate.json is missing from the bundle"),
        (lambda c: c.update({"bundle/more.json": b"{}"}), True, "more.json is in the bundle, but the manifest"),
        (lambda c: c.update({"bundle/../../evil": b"x"}), True, "is not a plain file below bundle/ or bento/"),
        (lambda c: c.update({"/etc/evil": b"x"}), True, "is not a plain file below bundle/ or bento/"),
        (lambda c: flip(c, "bento/src/bundle/gate.json"), True, "the Bento carries another bundle"),
        (lambda c: c.pop("export.json"), False, "it has no export.json"),
        (lambda c: index_of(c, format=2), False, "reads exports of format 1"),
        (lambda c: index_of(c, market="btc_15m"), False, "belongs to tradeloop_us_daily, the models of this project"),
        (lambda c: index_of(c, files=[]), False, "must hold objects"),
        (lambda c: c.update({"export.json": b"{"}), False, "export.json is not valid JSON"),
    ],
)
def test_a_file_that_was_edited_is_refused_and_leaves_nothing(
    bench: Bench, other: Bench, tmp_path: Path, change: Callable[[Content], None], sealed: bool, rule: str
) -> None:
    bundle = bench.add(11)
    give_bento(bench, bundle.hash)
    path = tmp_path / "v.tar"
    digest = export(bench.registry, bench.store, bundle.hash, path)
    edit(path, change, sealed=sealed)
    with pytest.raises(BundleError, match=rule) as caught:
        take(other, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="expected"):
        take(other, path, digest)
    assert other.registry.events() == [] and not other.home.layout.bentoml.exists()


@pytest.mark.parametrize("body", [b"", b"no tar at all" * 100])
def test_what_is_no_export_is_one_line(other: Bench, tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "v.tar"
    path.write_bytes(body)
    with pytest.raises(BundleError, match=r"v\.tar"):
        take(other, path)
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        take(other, tmp_path / "nothing.tar")


def test_a_link_is_refused(other: Bench, tmp_path: Path) -> None:
    path = tmp_path / "v.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("bundle/gate.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(BundleError, match="is not a plain file"):
        take(other, path)
