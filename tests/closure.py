"""Each stage's code dependencies in dvc.yaml, worked out from its imports; ``--write`` puts them there."""

from __future__ import annotations

import sys
from pathlib import Path

import grimp
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
# Packages whose __init__ finds its modules by discovery: any change inside may change what the stage does.
DISCOVERED = ("tradeloop.features", "tradeloop.metrics", "tradeloop.models", "tradeloop.sources")
# Files that are read, not imported.
DATA_FILES = {
    "tradeloop.report": "tradeloop/templates/report.html.j2",
    "tradeloop.integrity.page": "tradeloop/templates/integrity.html.j2",
}
# Modules that a module needs without an import: Feast's classes are named in its configuration; a Bento copies files.
NAMED = {
    "tradeloop.bento": {"bentos.service"},
    "tradeloop.state.feast_repo": {"tradeloop.state.asof", "tradeloop.state.feast_registry"},
}


def stage_module(command: str) -> str:
    """Return the module that a stage's ``python -m module [argument]`` runs."""
    return command.split()[2]


def path_of(module: str) -> str:
    """Return a module's file below the root; a discovered package's folder for any module in it."""
    for package in DISCOVERED:
        if module == package or module.startswith(f"{package}."):
            return package.replace(".", "/")
    base = module.replace(".", "/")
    return f"{base}/__init__.py" if (ROOT / base).is_dir() else f"{base}.py"


def _parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts))}


def code_dependencies(graph: grimp.ImportGraph, module: str) -> list[str]:
    """Return the files and folders whose change may change what `module` does, sorted."""
    seen: set[str] = set()
    wanted = {module}
    while wanted:
        name = wanted.pop()
        if name in seen or name not in graph.modules:
            continue
        seen.add(name)
        wanted |= graph.find_modules_directly_imported_by(name) | _parents(name)
        wanted |= NAMED.get(name, set())
        if any(name == package or name.startswith(f"{package}.") for package in DISCOVERED):
            package = next(p for p in DISCOVERED if name == p or name.startswith(f"{p}."))
            wanted |= {package} | graph.find_descendants(package)
    found = {path_of(name) for name in seen} | {DATA_FILES[name] for name in seen & DATA_FILES.keys()}
    return sorted(path for path in found if is_code(path))


def is_code(dependency: str) -> bool:
    """Return whether a dependency of dvc.yaml is one that this module writes."""
    return dependency.startswith(("tradeloop/", "stages/"))


def expected() -> dict[str, list[str]]:
    """Return each stage's code dependencies as its imports demand."""
    graph = grimp.build_graph("tradeloop", "stages", "bentos", cache_dir=None)
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return {name: code_dependencies(graph, stage_module(stage["cmd"])) for name, stage in stages.items()}


def write() -> None:
    """Put the expected code dependencies into dvc.yaml, leaving all else as it is."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(ROOT / "dvc.yaml")
    for name, code in expected().items():
        stage = content["stages"][name]
        stage["deps"] = [d for d in stage.get("deps", []) if not is_code(d)] + code
    yaml.dump(content, ROOT / "dvc.yaml")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.closure --write")
    write()
