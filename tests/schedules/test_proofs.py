"""Every registered algorithm is proved: sizes to 64, some above, closed forms and flags; `make prove` goes to 256."""

from __future__ import annotations

import random

import pytest

from collx.collectives import COLLECTIVES
from collx.schedule import REGISTER, Recv, Send, largest_message
from collx.verify import prove
from collx.verify.named import roots
from tests.schedules.cases import KEYS, NAMES, SEED

DENSE = 64
LARGEST = 256
ALGORITHMS = pytest.mark.parametrize("key", KEYS, ids=NAMES)


@ALGORITHMS
def test_every_size_and_root(key: tuple[str, str]) -> None:
    algorithm = REGISTER[key]
    for size in filter(algorithm.sizes, range(1, DENSE + 1)):
        for root in roots(algorithm.collective, size):
            prove(algorithm, size, root)


@ALGORITHMS
def test_a_changing_sample_of_larger_sizes(key: tuple[str, str]) -> None:
    algorithm = REGISTER[key]
    size = random.Random(f"{SEED} {key}").choice([s for s in range(DENSE + 1, LARGEST + 1) if algorithm.sizes(s)])
    print(f"size {size}, from COLLX_TEST_SEED={SEED}")
    prove(algorithm, size)


@pytest.mark.parametrize("key", [key for key in KEYS if COLLECTIVES[key[0]].reduces], ids=":".join)
def test_ordered_is_flagged_exactly_where_it_holds(key: tuple[str, str]) -> None:
    algorithm = REGISTER[key]
    sizes = filter(algorithm.sizes, range(1, 9))
    proofs = [prove(algorithm, size, root) for size in sizes for root in roots(algorithm.collective, size)]
    if algorithm.over:
        proofs.append(prove(algorithm.over(((0, 2), (1, 3))), 4))
    assert all(proof.ordered for proof in proofs) == algorithm.ordered


@pytest.mark.parametrize("key", [key for key in KEYS if key != ("exscan", "chain")], ids=":".join)
def test_rounds_are_aligned(key: tuple[str, str]) -> None:
    """What one rank sends in a round another receives in that round: easy to read, though nobody relies on it. The
    chain of exscan has rounds that only copy in between."""
    algorithm = REGISTER[key]
    for size in filter(algorithm.sizes, range(1, 20)):
        sends, recvs = set(), set()
        for rank in range(size):
            for number, ops in enumerate(algorithm.build(rank, size).rounds):
                sends |= {(number, rank, op.to) for op in ops if isinstance(op, Send)}
                recvs |= {(number, op.source, rank) for op in ops if isinstance(op, Recv)}
        assert sends == recvs


@ALGORITHMS
def test_largest_message(key: tuple[str, str]) -> None:
    algorithm = REGISTER[key]
    for size in filter(algorithm.sizes, (1, 2, 7, 8)):
        sends = [
            len(op.blocks)
            for rank in range(size)
            for ops in algorithm.build(rank, size).rounds
            for op in ops
            if isinstance(op, Send)
        ]
        assert largest_message(algorithm, size) == max(sends, default=0)


def test_every_named_algorithm_is_there() -> None:
    """The register holds what the documentation promises, collective by collective."""
    promised = {
        "all_reduce": "ring recursive_doubling halving_doubling tree double_tree pat circulant swing direct two_shot",
        "reduce_scatter": "ring halving pat circulant direct",
        "all_gather": "ring doubling pat circulant direct bruck",
        "all_to_all": "pairwise bruck direct",
        "broadcast": "tree chain scatter_gather double_tree circulant direct",
        "reduce": "tree chain double_tree direct",
        "gather": "tree direct",
        "scatter": "tree direct",
        "scan": "doubling chain",
        "exscan": "doubling chain",
        "barrier": "dissemination tree",
    }
    assert set(promised) == set(COLLECTIVES)
    missing = {(c, name) for c, names in promised.items() for name in names.split()} - set(KEYS)
    assert not missing


@pytest.mark.parametrize("collective", sorted(COLLECTIVES))
def test_every_size_has_an_algorithm_that_takes_uneven_blocks(collective: str) -> None:
    own = [algorithm for key, algorithm in REGISTER.items() if key[0] == collective]
    for size in range(1, LARGEST + 1):
        assert any(algorithm.sizes(size) and not algorithm.uniform for algorithm in own)
