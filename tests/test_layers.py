"""Imports point one way. The table below is the rule; a new module must be given its place in it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layer: its modules, and the layers that they may import beside their own. A package's name stands for all of it.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "errors": ({"errors", "version"}, set()),
    "terms": ({"types", "checks"}, {"errors"}),
    "compiled": ({"_core"}, set()),
    # What a collective is, how it is done, and the proof; nothing here knows of bytes on the move.
    "collectives": ({"collectives"}, set()),
    "schedule": ({"schedule"}, {"errors"}),
    "algorithms": ({"algorithms"}, {"schedule"}),
    "plugins": ({"plugins"}, {"schedule", "errors"}),
    "proof": ({"verify"}, {"schedule", "collectives", "algorithms", "plugins", "processes", "errors"}),
    "plan": ({"plan"}, {"schedule", "collectives", "errors"}),
    "flight": ({"flight"}, set()),
    "agreement": ({"agreement"}, {"plan", "collectives", "terms"}),
    "selector": (
        {"selector", "planner", "request", "semantics"},
        {"algorithms", "schedule", "collectives", "plugins", "proof", "plan", "agreement", "terms", "errors"},
    ),
    # What moves bytes; nothing here knows of schedules.
    "transports": ({"transports"}, {"errors", "compiled"}),
    # What runs plans; nothing here knows of schedules or algorithms.
    "known": ({"known"}, {"compiled", "terms"}),
    "engine": (
        {"engine", "reference"},
        {"known", "plan", "agreement", "flight", "collectives", "transports", "terms", "errors"},
    ),
    "native": (
        {"native"},
        {"known", "plan", "agreement", "flight", "collectives", "transports", "compiled", "terms", "errors"},
    ),
    "mpi": (
        {"mpi"},
        {"engine", "known", "plan", "agreement", "flight", "collectives", "transports", "compiled", "terms", "errors"},
    ),
    # What the user calls.
    "buffers": ({"buffers", "memory"}, {"terms", "errors"}),
    "communicator": (
        {"communicator", "calls", "layout", "member", "messages", "oneself", "handle", "work", "shrink"},
        {"buffers", "selector", "known", "engine", "flight", "transports", "terms", "errors"},
    ),
    # Processes: finding, starting and ending ranks needs nothing of what they will do.
    "processes": ({"bootstrap", "jobs", "lifeline", "launcher", "started", "witness"}, {"transports", "errors"}),
    "world": (
        {"world", "ending", "groups", "spawning"},
        {"processes", "communicator", "engine", "native", "mpi", "transports", "terms", "errors"},
    ),
    "public": ({"collx"}, {"communicator", "world", "transports", "schedule", "terms", "errors"}),
    # What stands on the public API, as a user's program does; the register of algorithms belongs to it, and who is in a
    # job.
    "perf": ({"perf"}, {"public", "processes", "algorithms", "plugins", "schedule", "terms", "errors"}),
    "examples": ({"examples"}, {"public"}),
    "command": ({"cli", "__main__"}, {"perf", "proof", "processes", "public", "errors"}),
}

# Narrower than its layer: of the transports, the engine knows only what every transport is and what ranks say of one
# that failed, the native engine the lanes that it runs on, and the communicator how survivors agree.
# The store is public as it is.
ONLY = {
    "engine": {"transports": {"collx.transports.base", "collx.transports.verdict", "collx.transports.waiting"}},
    "native": {"transports": {"collx.transports.base", "collx.transports.lanes", "collx.transports.verdict"}},
    "communicator": {"transports": {"collx.transports.base"}},
    "public": {"transports": {"collx.transports.store"}},
}


def modules() -> dict[str, Path]:
    """Import name -> file, for the package as it is laid out and for the examples."""
    found = {}
    packages = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "collx").iterdir()) if path.is_dir()]
    for folder in ("collx", *packages, "examples"):
        for path in sorted((ROOT / folder).glob("*.py")):
            name = f"{folder}/{path.stem}".removesuffix("/__init__").replace("/", ".")
            found[name] = path
    return found


MODULES = modules()


def layer_of(module: str) -> str:
    first, _, rest = module.partition(".")
    part = rest.split(".")[0] if rest else first
    part = first if first == "examples" else part
    places = [name for name, (members, _) in LAYERS.items() if part in members]
    assert len(places) == 1, f"{module} must have exactly one place in the table of tests/test_layers.py: {places}"
    return places[0]


def imports(path: Path) -> Iterator[str]:
    """Every collx module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "collx")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module and node.module.split(".")[0] == "collx":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in MODULES or inner == "collx._core" else node.module


@pytest.mark.parametrize("module", MODULES)
def test_imports_keep_to_the_table(module: str) -> None:
    own = layer_of(module)
    for imported in imports(MODULES[module]):
        theirs = layer_of(imported)
        assert theirs == own or theirs in LAYERS[own][1], f"{module} ({own}) must not import {imported} ({theirs})"
        narrow = ONLY.get(own, {}).get(theirs)
        assert narrow is None or imported in narrow, f"{module} may import {narrow} only, not {imported}"


def test_layers_have_no_cycle() -> None:
    try:
        tuple(TopologicalSorter({name: below for name, (_, below) in LAYERS.items()}).static_order())
    except CycleError as error:
        pytest.fail(f"the table itself goes round: {error.args[1]}")


def test_modules_have_no_cycle() -> None:
    try:
        tuple(TopologicalSorter({name: set(imports(path)) - {name} for name, path in MODULES.items()}).static_order())
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")


def test_table_names_only_what_exists() -> None:
    parts = {"collx", "examples", "_core"} | {name.split(".")[1] for name in MODULES if name.startswith("collx.")}
    listed = set().union(*(members for members, _ in LAYERS.values()))
    assert listed <= parts, f"in the table, but no such module: {sorted(listed - parts)}"


@pytest.mark.parametrize("link", ["algorithms", "transports", "perf"])
def test_top_folders_are_linked_into_the_package(link: str) -> None:
    path = ROOT / "collx" / link
    assert path.is_symlink()
    assert path.readlink() == Path("..") / link
