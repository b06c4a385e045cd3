"""mpi4py's own tests on collx, as far as there is time in CI; `make mpi4pytests` runs all of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import collx
from collx import world
from tests.mpi4py import modules, outcomes
from tests.mpi4py.compare import FOLDER
from tests.mpi4py.page import Result

JOBS = {
    1: ["test_cco_vec", "test_op", "test_status"],
    2: ["test_cco_buf", "test_p2p_obj", "test_group"],
}


def test_the_shim_is_not_taken_for_an_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which ranks on several hosts would tell each other where they are."""
    monkeypatch.delitem(sys.modules, "mpi4py", raising=False)
    monkeypatch.syspath_prepend(str(Path(collx.__file__).parent / "compat" / "mpi4py" / "shadow"))
    assert importlib.util.find_spec("mpi4py") is not None
    assert not world._has_mpi()


@pytest.mark.parametrize("size", JOBS)
def test_what_passes_on_mpich_passes_on_collx(size: int) -> None:
    assert FOLDER.is_dir(), f"{FOLDER} is missing; `make test` brings it, or `make build/mpi4py-4.1.2/test`"
    found = outcomes.outcomes_of(JOBS[size], FOLDER, outcomes.shim, size, limit=60)
    results = [Result(module, size, modules.on_mpich(module, size), found) for module in JOBS[size]]
    assert all(result.wanted for result in results)
    assert {each.module: each.lost for each in results if not each.meets} == {}
