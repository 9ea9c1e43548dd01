"""The clone in which a retraining runs: HEAD's code and the working tree's parameters, on the project's DVC cache.

`dvc repro` writes ``dvc.lock`` after every stage, so that the same workspace goes on where a killed attempt stopped. A
workspace is used again only for the same commit and the same parameters; even a new one finds the stages that ran
anywhere on this cache with the same inputs. Nothing of the project is written but its Git objects and one reference
below ``refs/exps``, which is what makes the run an experiment there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeloop.atomic import write_bytes, write_json
from tradeloop.errors import ConfigError, TrainingError
from tradeloop.layout import HOME_VARIABLE, SOURCES_VARIABLE, Layout

TARGET = "package"
"""The stage that a retraining ends with: what follows it, publish, belongs to the project alone."""

DVC = (sys.executable, "-m", "dvc")

_MARK = Path(".git") / "tradeloop.json"
_LEFT_BY_A_KILL = (".git/index.lock", ".git/HEAD.lock", ".dvc/tmp/rwlock")
_AUTHOR = ("tradeloop", "tradeloop@localhost")


@dataclass(frozen=True)
class Workspace:
    """One retraining's clone, ``data/live/workspaces/<job>``."""

    project: Layout
    job_id: str

    @property
    def root(self) -> Path:
        """The clone's root."""
        return folder(self.project) / self.job_id

    @property
    def layout(self) -> Layout:
        """Where things lie in the clone."""
        return Layout(self.root)

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return what a command in the clone needs: the project's model store and sources, and what `own` adds."""
        environment = dict(os.environ)
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        environment |= {
            HOME_VARIABLE: str(self.root),
            SOURCES_VARIABLE: str(self.project.sources),
            "BENTOML_HOME": str(self.project.bentoml),
            "BENTOML_DO_NOT_TRACK": "True",
            "DVC_NO_ANALYTICS": "1",
            "DVC_STUDIO_OFFLINE": "true",
            "PYTHONUNBUFFERED": "1",
            "TQDM_MININTERVAL": "10",
        }
        for role in ("AUTHOR", "COMMITTER"):
            environment.setdefault(f"GIT_{role}_NAME", _AUTHOR[0])
            environment.setdefault(f"GIT_{role}_EMAIL", _AUTHOR[1])
        return {**environment, **own}

    def prepare(self, overrides: Mapping[str, Any], dvc: Sequence[str] = DVC) -> bool:
        """Make the clone, or take up the one that an earlier attempt left; return whether it is such a one.

        Raises
        ------
        TrainingError
            The project has no commit, or is not a DVC repository; Git's or DVC's last line says why.
        ConfigError
            The parameters with their overrides break a rule.
        """
        revision = git(self.project.root, "rev-parse", "HEAD")
        params = overridden(self.project.params, overrides)
        wanted = {"revision": revision, "params": hashlib.sha256(params).hexdigest()}
        if self._mark().get("made") == wanted:
            for name in _LEFT_BY_A_KILL:
                (self.root / name).unlink(missing_ok=True)
            return True
        self.discard()
        self.root.parent.mkdir(parents=True, exist_ok=True)
        git(self.root.parent, "clone", "--quiet", "--local", "--no-tags", str(self.project.root), str(self.root))
        git(self.root, "checkout", "--quiet", revision)
        cache = _output([*dvc, "cache", "dir"], self.project.root, "dvc cache dir")
        config = f"[cache]\n    dir = {cache}\n[core]\n    site_cache_dir = {self.root}/.dvc/site\n"
        write_bytes(self.root / ".dvc" / "config.local", config.encode())
        write_bytes(self.layout.params, params)
        _copy_features(self.project, self.layout)
        if overrides:
            from tradeloop.config import load_params

            load_params(self.layout.params)
        write_json(self.root / _MARK, {"made": wanted})
        return False

    @property
    def revision(self) -> str | None:
        """The commit whose code it trains with; None before it is prepared."""
        made = self._mark().get("made")
        return None if made is None else str(made["revision"])

    @property
    def ingested(self) -> bool:
        """Whether the source was read already: the bars of the first attempt are those of the later ones."""
        return bool(self._mark().get("ingested"))

    def note_ingested(self) -> None:
        """Remember that the source was read."""
        write_json(self.root / _MARK, self._mark() | {"ingested": True})

    def add_all(self) -> None:
        """Let Git know of new files, a first run's lock and metrics: an experiment holds only what Git knows."""
        git(self.root, "add", "--all")

    def publish_experiment(self, name: str) -> None:
        """Make the experiment that was saved under `name` one of the project."""
        found = git(self.root, "for-each-ref", "--format=%(refname)", "refs/exps")
        refs = [ref for ref in found.splitlines() if ref.endswith(f"/{name}")]
        if not refs:
            raise TrainingError(f"DVC saved no experiment {name} in {self.root}")
        git(self.project.root, "fetch", "--quiet", "--no-write-fetch-head", str(self.root), f"+{refs[0]}:{refs[0]}")

    def discard(self) -> None:
        """Remove the clone; what it produced lies in the project's cache and stores."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _mark(self) -> dict[str, Any]:
        try:
            content = json.loads((self.root / _MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _copy_features(project: Layout, clone: Layout) -> None:
    """Give the clone the project's feature parts, of which its stage computes again what has changed since.

    What goes away meanwhile is computed. No links: DVC would make its cache's files of them, and protect those.
    """
    with contextlib.suppress(OSError):
        shutil.copytree(project.features, clone.features, dirs_exist_ok=True)


def folder(project: Layout) -> Path:
    """Return where all workspaces lie."""
    return project.live / "workspaces"


def prune(project: Layout, *, active: Collection[str], keep: int) -> list[str]:
    """Remove the workspaces of jobs that are not `active`, but the `keep` newest; return the removed ones' names."""
    left = [path for path in folder(project).glob("*") if path.is_dir() and path.name not in active]
    left.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in left[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in left[keep:]]


def overridden(params: Path, overrides: Mapping[str, Any]) -> bytes:
    """Return the parameter file with values set by dotted name, its comments and its order as they are.

    Raises
    ------
    ConfigError
        The file cannot be read, or a name leads through something that is no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = params.read_bytes()
        if not overrides:
            return text
        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 4096
        content = yaml.load(text)
    except (OSError, YAMLError) as error:
        raise ConfigError(f"{params} cannot be read: {' '.join(str(error).split())}") from None
    for name, value in sorted(overrides.items()):
        *blocks, key = name.split(".")
        block = content
        for part in blocks:
            block = block.setdefault(part, {}) if isinstance(block, dict) else None
        if not isinstance(block, dict):
            raise ConfigError(f"{name!r} cannot be set: a block before its last dot is not a mapping")
        block[key] = value
    written = io.BytesIO()
    yaml.dump(content, written)
    return written.getvalue()


def git(root: Path, *arguments: str) -> str:
    """Run Git in `root` and return what it prints; TrainingError with its last line where it fails."""
    return _output(["git", "-C", str(root), *arguments], root, f"git {arguments[0]}")


def _output(command: Sequence[str], root: Path, what: str) -> str:
    # Variables of a surrounding Git command (a hook) would lead to its repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "true", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TrainingError(f"{what} cannot be run in {root}: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise TrainingError(f"{what} failed in {root}: {last}")
    return done.stdout.strip()
