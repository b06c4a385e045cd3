"""What is said of calls on GPUs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from collx import Communicator
from collx.cuda.choosing import Ranks
from collx.cuda.explain import UNKNOWN, explain
from collx.guide import Guide
from collx.wishes import parse
from tests.ranks import on_threads

ONE_GPU = Ranks((0, 0, 0, 0), 1 << 20)


def test_the_contest_on_one_gpu() -> None:
    found = explain("all_reduce", 1 << 20, 4, "by CUDA IPC (a GPU)", ONE_GPU)
    chosen, *others = found.candidates
    assert chosen.name == found.chosen
    assert chosen.moved == 2 * 4 << 20  # every byte of the ranks is read once and written once
    assert all(entry.moved is None or entry.moved >= chosen.moved for entry in others)
    first, way, head, line, *_, last = str(found).splitlines()
    assert first == f"all_reduce of 1 MiB on 4 ranks' GPUs: {found.chosen}, by the rules that collx comes with"
    assert way.strip() == "by CUDA IPC (a GPU)"
    assert head.split() == ["algorithm", "steps", "moved"]
    assert line.split() == ["*", found.chosen, str(chosen.steps), "8", "MiB"]
    assert last == "  not nccl: ranks share a GPU, and NCCL wants one for each"


def test_nccl_tells_no_steps() -> None:
    found = explain("all_gather", 1 << 20, 2, "by CUDA IPC", Ranks((0, 1), 1 << 20, no_nccl=None))
    (nccl,) = (entry for entry in found.candidates if entry.name == "nccl")
    assert (nccl.steps, nccl.moved, nccl.objection) == (None, None, None)


def test_a_wish_holds_on_gpus_too() -> None:
    found = explain("all_reduce", 1024, 4, "by CUDA IPC", ONE_GPU, Guide(parse("all_reduce:ring")))
    assert (found.chosen, found.why) == ("ring", "as COLLX_ALGO says, ring")


def test_before_the_first_call_nothing_is_known() -> None:
    def body(comm: Communicator) -> None:
        found = comm.explain("all_reduce", 1 << 20, device="cuda")
        assert (found.chosen, found.candidates, found.host) == (None, (), None)
        assert str(found) == f"all_reduce of 1 MiB on 2 ranks' GPUs: {UNKNOWN}"

    on_threads(body, 2)


def test_what_the_first_call_found_out() -> None:
    def body(comm: Any) -> None:
        comm._gpus = SimpleNamespace(story=lambda: "by CUDA IPC", ranks=Ranks((0, 0)), close=lambda: None)
        assert comm.explain("all_reduce", 64, device="cuda").chosen
        comm._gpus.story, comm._gpus.ranks = lambda: "through pinned memory of the host, because ...", None
        by_host, host = comm.explain("all_reduce", 64, device="cuda"), comm.explain("all_reduce", 64)
        assert str(by_host).splitlines()[0].endswith("GPUs: through pinned memory of the host, because ...")
        assert by_host.host == host
        assert str(host) in str(by_host)

    on_threads(body, 2)


def test_wrong_arguments() -> None:
    def body(comm: Any) -> None:
        with pytest.raises(ValueError, match="unknown device 'gpu': there are cpu, cuda"):
            comm.explain("all_reduce", 64, device="gpu")
        with pytest.raises(ValueError, match="unknown collective"):
            comm.explain("all_redcue", 64, device="cuda")

    on_threads(body, 1)
