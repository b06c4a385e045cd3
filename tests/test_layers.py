"""Imports point one way. The table below is the rule; a new module must be given its place in it."""

import ast
import os
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layer: its modules, and the layers that they may import beside their own. A package's name stands for all in
# it that has no place of its own.
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
    "spots": ({"spots"}, set()),
    "topology": ({"topology"}, {"spots", "terms", "errors"}),
    "cost": ({"cost"}, {"topology", "schedule", "errors"}),
    "plan": ({"plan"}, {"schedule", "collectives", "errors"}),
    "flight": ({"flight"}, set()),
    "agreement": ({"agreement"}, {"plan", "collectives", "terms"}),
    # What decides beside the call, read by rank 0 and told to all.
    "guide": ({"guide", "tuning", "wishes"}, {"topology", "algorithms", "schedule", "collectives", "terms", "errors"}),
    "selector": (
        {"selector", "planner", "request", "semantics", "explain", "trial"},
        {
            "guide",
            "topology",
            "cost",
            "algorithms",
            "schedule",
            "collectives",
            "plugins",
            "proof",
            "plan",
            "agreement",
            "terms",
            "errors",
        },
    ),
    # What moves bytes, and what joins ranks for that; nothing here knows of schedules.
    "base": ({"transports.base", "transports.verdict", "transports.waiting"}, {"errors"}),
    "connections": ({"transports.connections"}, {"errors", "compiled"}),
    "store": ({"transports.store"}, {"connections", "errors"}),
    "meeting": ({"transports.meeting"}, {"store", "base", "errors"}),
    "transports": ({"transports"}, {"base", "connections", "store", "meeting", "errors", "compiled"}),
    # What runs plans; nothing here knows of schedules or algorithms.
    "known": ({"known"}, {"compiled", "terms"}),
    "engine": (
        {"engine", "reference"},
        {"known", "plan", "agreement", "flight", "collectives", "base", "terms", "errors"},
    ),
    "native": (
        {"native"},
        {"known", "plan", "agreement", "flight", "collectives"} | {"base", "transports", "compiled", "terms", "errors"},
    ),
    "mpi": (
        {"mpi"},
        {"engine", "known", "plan", "agreement", "flight", "collectives"}
        | {"base", "transports", "compiled", "terms", "errors"},
    ),
    # Collectives on GPU memory, by plans of all ranks.
    "cuda": (
        {"cuda"},
        {"selector", "guide", "plan", "schedule", "algorithms", "collectives", "plugins", "agreement", "engine"}
        | {"flight", "transports", "base", "terms", "errors"},
    ),
    "decisions": ({"decisions"}, {"guide", "engine", "schedule", "spots", "errors"}),
    # What the user calls.
    "buffers": (
        {"buffers", "memory", "device_arrays", "device_libraries", "dlpack"},
        {"transports", "terms", "errors"},
    ),
    "communicator": (
        {"communicator", "forming", "bearings", "calls", "layout", "member", "leaving", "messages", "handle", "on_gpu"}
        | {"work", "shrink", "group", "fusion"},
        {
            "agreement",
            "collectives",
            "compiled",
            "topology",
            "spots",
            "buffers",
            "selector",
            "guide",
            "cuda",
            "decisions",
            "schedule",
            "known",
            "engine",
            "flight",
            "base",
            "terms",
            "errors",
        },
    ),
    # Processes: finding, starting and ending ranks needs nothing of what they will do.
    "processes": (
        {"bootstrap", "environment", "jobs", "lifeline", "launcher", "started", "witness"},
        {"connections", "errors"},
    ),
    "world": (
        {"world", "ending", "groups", "spawning"},
        {"processes", "communicator", "decisions", "engine", "native", "mpi", "terms", "errors"}
        | {"base", "transports", "meeting", "connections"},
    ),
    "public": ({"collx"}, {"communicator", "world", "store", "schedule", "terms", "errors"}),
    # What stands on the public API, as a user's program does; the register of algorithms belongs to it, who is in a
    # job, and what is predicted.
    "perf": (
        {"perf"},
        {"public", "guide", "selector", "topology", "cost", "collectives", "transports"}
        | {"processes", "algorithms", "plugins", "schedule", "terms", "errors"},
    ),
    # Doors for programs written for other libraries.
    "compat": ({"compat"}, {"public", "launch"}),
    "launch": ({"compat.torch.launch"}, {"public", "processes", "connections"}),
    "shim": ({"compat.mpi4py"}, {"public", "communicator", "world", "buffers", "transports", "terms", "errors"}),
    "examples": ({"examples"}, {"public"}),
    "explaining": ({"explaining"}, {"selector", "decisions", "topology", "compiled", "errors"}),
    "command": ({"cli", "__main__"}, {"perf", "proof", "topology", "explaining", "processes", "public", "errors"}),
}

# Narrower than its layer: of the transports the native engine knows only the lanes that it runs on, of what every
# transport is the communicator only how survivors agree, and buffers only how memory of GPUs is reached.
ONLY = {
    "native": {"transports": {"collx.transports.lanes"}},
    "communicator": {"base": {"collx.transports.base"}},
    "buffers": {"transports": {"collx.transports.cuda.driver"}},
    "shim": {"transports": {"collx.transports.cuda.driver"}},
}


def modules() -> dict[str, Path]:
    """Import name -> file, for the package as it is laid out and for the examples."""
    found = {}
    for top in ("collx", "examples"):
        for folder, _, files in os.walk(ROOT / top, followlinks=True):
            for path in (Path(folder, file) for file in files if file.endswith(".py")):
                name = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
                found[name] = path
    return dict(sorted(found.items()))


MODULES = modules()


def layer_of(module: str) -> str:
    part, places = module.removeprefix("collx."), list[str]()
    while part and not (places := [name for name, (members, _) in LAYERS.items() if part in members]):
        part = part.rpartition(".")[0]
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
    parts = {"_core", "examples"} | {name.removeprefix("collx.") for name in MODULES}
    listed = set().union(*(members for members, _ in LAYERS.values()))
    assert listed <= parts, f"in the table, but no such module: {sorted(listed - parts)}"


@pytest.mark.parametrize("link", ["algorithms", "transports", "perf"])
def test_top_folders_are_linked_into_the_package(link: str) -> None:
    path = ROOT / "collx" / link
    assert path.is_symlink()
    assert path.readlink() == Path("..") / link
