"""The modules of mpi4py's tests, what share of them must pass on collx, and what became of them on MPICH."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.mpi4py.outcomes import Outcome

SIZES = (1, 2, 4)
KEPT = Path(__file__).with_name("mpich.json")
LETTERS = {"passed": "p", "skipped": "s", "failed": "f", "hung": "h", "": "-"}

# The share of the tests that pass on MPICH that must pass on collx.
GOALS = {
    "test_cco_buf": 1.0,
    "test_cco_vec": 1.0,
    "test_cco_obj": 1.0,
    "test_cco_nb_buf": 1.0,
    "test_cco_nb_vec": 1.0,
    "test_cco_ngh_buf": 1.0,
    "test_cco_ngh_obj": 1.0,
    "test_p2p_buf": 1.0,
    "test_p2p_obj": 1.0,
    "test_comm": 0.95,
    "test_request": 0.95,
    "test_op": 0.95,
    "test_status": 0.95,
    "test_group": 0.95,
}

# For information. Left out is what collx has nothing of: one-sided communication, files, processes that are started
# by others, and what looks into the build of mpi4py.
OTHERS = tuple(
    f"test_{name}"
    for names in (
        "p2p_buf_matched p2p_obj_matched p2p_buf_part cco_pr_buf cco_pr_vec cco_pr_ngh_buf",
        "comm_topo comm_inter cco_buf_inter cco_vec_inter cco_obj_inter",
        "datatype pack msgspec msgzero buffer address mpimem attributes info errhandler errorcode exceptions",
        "grequest handle objmodel subclass pickle environ toplevel package doc threads",
        "util_dtlib util_pkl5 util_pool util_sync",
    )
    for name in names.split()
)
EVERY = (*GOALS, *OTHERS)


def keep(versions: Mapping[str, str], module: str, size: int, found: Mapping[str, Outcome]) -> None:
    """Put what became of the tests of `module` on MPICH with so many ranks into the file that keeps it."""
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {"sizes": SIZES, "outcomes": {}}
    of_module: dict[str, dict[str, str]] = {}
    place = SIZES.index(size)
    before = _letters(kept["outcomes"].get(module, {}), module)
    for test in sorted({*before, *found}):
        letters = list(before.get(test, "-" * len(SIZES)))
        letters[place] = LETTERS[found[test].result if test in found else ""]
        group, _, name = test.removeprefix(f"{module}.").rpartition(".")
        names = of_module.setdefault(group, {})
        key = "".join(letters)
        names[key] = f"{names[key]} {name}" if key in names else name
    kept["versions"] = dict(versions)
    kept["outcomes"][module] = of_module
    KEPT.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n")


def on_mpich(module: str, size: int) -> dict[str, str]:
    """What became of each test of `module` on MPICH with so many ranks."""
    of_module = json.loads(KEPT.read_text())["outcomes"].get(module, {})
    place = SIZES.index(size)
    results = {letter: result for result, letter in LETTERS.items()}
    found = {test: results[letters[place]] for test, letters in _letters(of_module, module).items()}
    return {test: result for test, result in found.items() if result}


def _letters(of_module: Mapping[str, Mapping[str, str]], module: str) -> dict[str, str]:
    """By test, a letter for each size."""
    return {
        ".".join(filter(None, (module, group, name))): letters
        for group, by_letters in of_module.items()
        for letters, names in by_letters.items()
        for name in names.split(" ")
    }


def versions() -> dict[str, str]:
    """Of mpi4py and of the MPI, where the outcomes kept are from."""
    found: dict[str, str] = json.loads(KEPT.read_text())["versions"]
    return found
