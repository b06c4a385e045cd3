"""Which algorithm a call on GPUs takes: the same on every rank, for reasons that can be said in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collx.collectives import COLLECTIVES
from collx.cuda.choosing import RULES, Chosen, NoRoom, Ranks, candidates, choose
from collx.cuda.nccl import objection
from collx.guide import Guide
from collx.plan import balanced
from collx.request import Request
from collx.schedule import REGISTER, Recv, Schedule, Send
from collx.selector import choose as choose_on_hosts
from collx.types import ReduceOp
from collx.wishes import parse

KIB, MIB = 1 << 10, 1 << 20
OWN, ONE = (0, 1, 2, 3), (0, 0, 0, 0)


def request(collective: str, nbytes: int, size: int = 4, **traits: Any) -> Request:
    spec, count = COLLECTIVES[collective], nbytes // 4
    elements = tuple(balanced(count, size)) if spec.per_rank else (count,)
    given = elements if spec.result == "exchange" else ()
    op = ReduceOp("sum") if spec.reduces else None
    return Request(collective, elements, np.dtype(np.float32), given=given, **{"op": op, **traits})


def wishing(text: str) -> Guide:
    return Guide(parse(text))


@pytest.mark.parametrize(
    ("workers", "nbytes", "inplace", "name"),
    [
        (ONE, 4 * KIB, False, "direct"),
        (ONE, 256 * MIB, True, "two_shot"),
        (OWN, 512 * KIB, False, "direct"),
        (OWN, 512 * KIB, True, "two_shot"),  # direct would set everything aside first
        (OWN, MIB, False, "two_shot"),
        (tuple(range(8)), 512 * KIB, False, "two_shot"),
        ((0, 1), 256 * MIB, False, "two_shot"),
        (tuple(range(16)), 4 * KIB, False, "two_shot"),
    ],
)
def test_all_reduces(workers: tuple[int, ...], nbytes: int, inplace: bool, name: str) -> None:
    chosen = choose(request("all_reduce", nbytes, len(workers), inplace=inplace), Ranks(workers, 32 * MIB))
    assert (chosen.name, chosen.by) == (name, "rule")
    assert chosen.plan is not None
    assert len(chosen.plan.steps) == 1


@pytest.mark.parametrize("collective", sorted(COLLECTIVES))
@pytest.mark.parametrize("workers", [OWN, ONE, (0,)])
def test_every_collective_finds_something(collective: str, workers: tuple[int, ...]) -> None:
    for nbytes in (0, 4 * KIB, 4 * MIB):
        chosen = choose(request(collective, nbytes, len(workers)), Ranks(workers, 0))
        assert chosen.plan is not None
        assert len(chosen.plan.steps) <= 2


def test_prefixes_go_along_a_chain_where_that_needs_no_barrier() -> None:
    names = {workers: choose(request("scan", 64 * MIB), Ranks(workers)).name for workers in (ONE, OWN)}
    assert names == {ONE: "chain", OWN: "doubling"}


def test_rules_name_what_there_is() -> None:
    assert {(rule.collective, name) for rule in RULES for name in rule.algorithms} <= set(REGISTER)


def test_the_call_and_then_the_wish_decide() -> None:
    by_call = request("all_reduce", 4 * KIB, algorithm="ring")
    guide = wishing("all_reduce:pat,tree;scan:^direct,chain")
    assert _told(choose(by_call, Ranks(OWN), guide)) == ("ring", "explicit")
    assert _told(choose(request("all_reduce", 4 * KIB), Ranks(OWN), guide)) == ("pat", "COLLX_ALGO")
    assert _told(choose(request("scan", 4 * KIB), Ranks(OWN), guide)) == ("doubling", "rule")
    assert _told(choose(request("all_reduce", 4 * KIB, called="split"), Ranks(OWN), guide)) == ("direct", "rule")


def _told(chosen: Chosen) -> tuple[str, str]:
    return chosen.name, chosen.by


def test_a_users_own_schedule_is_planned_under_its_hash() -> None:
    def mine(rank: int, size: int) -> Schedule:
        others = [peer for peer in range(size) if peer != rank]
        sends = [Send(0, to=peer) for peer in others]
        return Schedule(1).round(*sends, *(Recv(0, peer, "left" if peer < rank else "right") for peer in others))

    chosen = choose(request("all_reduce", 4 * KIB, algorithm=mine), Ranks(ONE))
    assert _told(chosen) == ("mine", "explicit")
    assert chosen.plan is not None
    assert chosen.plan.algorithm.startswith("mine@")


def test_nccl_is_taken_where_it_is_asked_for_and_ranks_have_gpus_of_their_own() -> None:
    asked, alone = request("all_reduce", MIB, algorithm="nccl"), Ranks(OWN, no_nccl=None)
    assert choose(asked, alone) == Chosen("nccl", None, "explicit")
    assert choose(request("all_reduce", MIB), alone, wishing("nccl")) == Chosen("nccl", None, "COLLX_ALGO")
    assert choose(request("all_reduce", MIB), alone).name == "two_shot"
    with pytest.raises(ValueError, match=r"cannot use 'nccl' on GPUs here: ranks share a GPU"):
        choose(asked, Ranks(ONE))
    lost = request("scan", MIB, algorithm="nccl")
    with pytest.raises(ValueError, match=str(objection(lost))):
        choose(lost, alone)


def test_a_wish_for_what_serves_elsewhere_is_none() -> None:
    on_gpus = choose(request("all_reduce", MIB), Ranks(OWN), wishing("all_reduce:mpi"))
    assert _told(on_gpus) == ("two_shot", "rule")
    on_host = choose_on_hosts(request("all_reduce", MIB), 4, MIB, guide=wishing("all_reduce:nccl"))
    assert (on_host.name, on_host.by) == ("two_shot", "rule")
    with pytest.raises(
        ValueError, match="COLLX_ALGO leaves all_reduce nothing that serves this call on GPUs, mpi,nccl"
    ):
        choose(request("all_reduce", MIB), Ranks(ONE), wishing("all_reduce:mpi,nccl"))


def test_what_serves_elsewhere_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="cannot use 'mpi' on GPUs here: MPI is given no memory of GPUs"):
        choose(request("all_reduce", MIB, algorithm="mpi"), Ranks(OWN))
    with pytest.raises(ValueError, match="cannot use 'nccl' here: NCCL is for arrays on GPUs"):
        choose_on_hosts(request("all_reduce", MIB, algorithm="nccl"), 4, MIB)


def test_what_needs_more_workspace_than_there_is_gives_way() -> None:
    in_place = request("all_reduce", MIB, inplace=True, algorithm="direct")
    with pytest.raises(NoRoom, match=rf"it needs {MIB} bytes of workspace, and ranks have {MIB - 1}"):
        choose(in_place, Ranks(OWN, MIB - 1))
    plan = choose(in_place, Ranks(OWN, MIB)).plan
    assert plan is not None
    assert plan.workspace == MIB
    scan = choose(request("scan", 64 * KIB, inplace=True), Ranks(OWN, 0)).plan
    assert scan is not None
    assert scan.workspace == 0
    with pytest.raises(NoRoom, match="no algorithm of exscan serves this call on GPUs"):
        choose(request("exscan", MIB, inplace=True), Ranks(OWN, 0))


def test_ranks_that_call_differently_are_planned_as_they_call() -> None:
    """In place on some; with counts that only sender and receiver know."""
    some = choose(request("all_reduce", MIB), Ranks(OWN), inplace=(True, False, True, False)).plan
    assert some is not None
    rows = ((1, 0), (2, 3))
    call = request("all_to_all", 12, 2)._replace(elements=(1, 2), given=(1, 0), agreed=False)
    plan = choose(call, Ranks((0, 1)), given=rows).plan
    assert plan is not None
    moved = {(fold.sources[0].rank, fold.targets[0].rank): fold.nbytes for wave in plan.steps[0] for fold in wave}
    assert moved == {(0, 0): 4, (1, 0): 8, (1, 1): 12}


def test_candidates_have_a_plan_or_a_reason() -> None:
    found = {candidate.name: candidate for candidate in candidates(request("all_reduce", MIB, 6), Ranks((0,) * 6))}
    assert found["two_shot"].plan is not None
    assert found["halving_doubling"].objection or found["halving_doubling"].plan
    assert found["nccl"].objection == "ranks share a GPU, and NCCL wants one for each"
    assert all((candidate.plan is None) == (candidate.objection is not None) for candidate in found.values())
