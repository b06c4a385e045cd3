"""COLLX_ALGO: its grammar, and that what it says is done or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.collectives import COLLECTIVES
from collx.errors import BootstrapError
from collx.guide import Guide
from collx.request import Request
from collx.selector import choose
from collx.types import reduce_op
from collx.wishes import FOREIGN, MPI, Wish, may_choose, parse

ROOM = 1 << 16


def chosen(algo: str, collective: str, size: int = 4, nbytes: int = 1024, called: str = "", op: str = "sum") -> str:
    spec = COLLECTIVES[collective]
    elements = (nbytes // 4 // size,) * size if spec.per_rank else (nbytes // 4,)
    request = Request(
        collective, elements, np.dtype(np.float32), op=reduce_op(op) if spec.reduces else None, called=called
    )
    return choose(request, size, ROOM, guide=Guide(parse(algo))).name


def test_a_list_is_for_its_collective_or_for_all_that_have_one_of_it() -> None:
    wishes = parse("ring ; AllReduce:Swing,pat; broadcast:^tree")
    assert wishes["all_reduce"] == Wish(("swing", "pat"))
    assert wishes["broadcast"] == Wish(("tree",), without=True)
    assert wishes["all_gather"] == Wish(("ring",))
    assert "gather" not in wishes  # has no ring


def test_mpis_own_may_be_forbidden_everywhere() -> None:
    assert {collective for collective, wish in parse("^ring,mpi").items() if not wish.allows(MPI)} == set(COLLECTIVES)
    assert "barrier" not in parse("ring,mpi")  # it has no ring, and MPI need not join the ranks


def test_nothing_said_is_nothing_wished() -> None:
    assert parse("") == {} == parse(" ; ")


@given(st.data())
def test_what_is_wished_is_chosen(data: st.DataObject) -> None:
    collective = data.draw(st.sampled_from(sorted(COLLECTIVES)))
    known = may_choose(collective)
    names = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    size, nbytes = data.draw(st.sampled_from([2, 4, 8])), data.draw(st.integers(0, 1 << 24))
    wish = f"{collective}:{','.join(names)}"
    assert chosen(wish, collective, size, nbytes) in names
    if set(names) != set(known):
        assert chosen(wish.replace(":", ":^"), collective, size, nbytes) not in names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all_reduce:rng", "COLLX_ALGO: all_reduce has no algorithm 'rng': did you mean ring"),
        ("all_redcue:ring", "COLLX_ALGO: unknown collective 'all_redcue': did you mean all_reduce"),
        ("rng", "COLLX_ALGO: no collective has an algorithm 'rng': did you mean ring"),
        ("all_reduce:ring,,pat", "'all_reduce:ring,,pat' lacks a name"),
        ("all_reduce:", "'all_reduce:' lacks a name"),
        ("all_reduce:ring;allreduce:pat", "COLLX_ALGO speaks of all_reduce twice"),
        ("ring;pat", "COLLX_ALGO has two lists for all collectives, 'pat' is the second"),
        ("scan:^chain,direct,doubling,hierarchical", "leaves it no algorithm"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str) -> None:
    with pytest.raises(BootstrapError) as raised:
        parse(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text(st.sampled_from("all_reduce:;,^ringpatmx \n"), max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        wishes = parse(text)
    except BootstrapError:
        return
    assert all(set(wish.names) <= {*may_choose(collective), *FOREIGN} for collective, wish in wishes.items())


def test_what_cannot_serve_is_an_error_that_says_why() -> None:
    with pytest.raises(
        ValueError, match=r"COLLX_ALGO leaves all_reduce nothing .*: it does not take 3 ranks\); change it"
    ):
        chosen("all_reduce:swing", "all_reduce", size=3)
    with pytest.raises(ValueError, match="mpi: no MPI joins the ranks"):
        chosen("all_reduce:mpi", "all_reduce")


def test_of_several_the_rules_take_theirs_and_else_the_first_that_serves() -> None:
    assert chosen("all_reduce:ring,direct", "all_reduce", nbytes=64) == "direct"
    assert chosen("all_reduce:swing,ring", "all_reduce", size=3, nbytes=64) == "ring"
    assert chosen("all_reduce:pat,ring", "all_reduce", size=4, nbytes=64) == "pat"


def test_a_split_is_no_all_gather_of_the_users() -> None:
    assert chosen("all_gather:doubling", "all_gather", size=4) == "doubling"
    assert chosen("all_gather:doubling", "all_gather", size=3, called="split") == "direct"
