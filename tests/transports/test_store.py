"""The store that ranks share: one process, a thread or a connection for each rank."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collx
from collx.transports.connections.secret import new_secret

SECRET = new_secret()
LONG = 60.0


@pytest.fixture
def stores() -> Iterator[list[collx.Store]]:
    """One for each of three ranks."""
    with collx.Store("127.0.0.1:0", 0, 3, LONG, secret=SECRET) as first:
        others = [collx.Store(first.address, rank, 3, LONG, secret=SECRET) for rank in (1, 2)]
        yield [first, *others]
        for store in others:
            store.close()


def test_what_one_sets_all_get(stores: list[collx.Store]) -> None:
    stores[1].set("key", b"\0value")
    stores[2].set("text", "täxt")
    assert [store.get("key") for store in stores] == [b"\0value"] * 3
    assert stores[0].get("text").decode() == "täxt"
    stores[0].set("key", b"")
    assert stores[2].get("key") == b""


def test_get_and_wait_return_when_the_last_key_is_set(stores: list[collx.Store]) -> None:
    with ThreadPoolExecutor(2) as pool:
        got = pool.submit(stores[1].get, "a")
        waited = pool.submit(stores[2].wait, ["a", "b"])
        stores[0].set("b", "1")
        stores[0].set("a", "2")
        assert got.result(LONG) == b"2"
        assert waited.result(LONG) is None


def test_a_key_that_nobody_sets_is_named(stores: list[collx.Store]) -> None:
    stores[0].set("here", "")
    with pytest.raises(collx.TimeoutError, match=r"rank 1: wait in the store: no rank has set 'a', 'b' within"):
        stores[1].wait(["a", "here", "b"], timeout=0.05)
    with pytest.raises(collx.TimeoutError, match=r"no rank has set 'k00', .*'k07' and 92 more"):
        stores[2].wait([f"k{number:02}" for number in range(100)], timeout=0.0)
    stores[0].set("a", "late")
    assert stores[1].get("a") == b"late"  # it is as good as before


def test_add_counts_every_ranks_share(stores: list[collx.Store]) -> None:
    def count(store: collx.Store) -> list[int]:
        return [store.add("sum", 2) for _ in range(50)]

    with ThreadPoolExecutor(3) as pool:
        sums = [number for numbers in pool.map(count, stores) for number in numbers]
    assert sorted(sums) == list(range(2, 302, 2))
    assert stores[0].get("sum") == b"300"
    assert stores[1].add("sum", -301) == -1


def test_add_refuses_what_is_no_number_or_too_large(stores: list[collx.Store]) -> None:
    stores[0].set("text", "text")
    with pytest.raises(ValueError, match="'text': what it has is no number"):
        stores[1].add("text", 1)
    stores[0].add("big", 2**63 - 1)
    with pytest.raises(ValueError, match="more than 64 bits"):
        stores[1].add("big", 1)
    assert stores[1].get("big") == b"%d" % (2**63 - 1)


def test_compare_set_as_torch_has_it(stores: list[collx.Store]) -> None:
    assert stores[0].compare_set("key", "unlike nothing", "new") == b"unlike nothing"
    assert stores[1].compare_set("key", "", "first") == b"first"
    assert stores[2].compare_set("key", "", "second") == b"first"
    assert stores[2].compare_set("key", b"first", b"third") == b"third"
    assert stores[0].get("key") == b"third"


def test_large_values_and_their_limit(stores: list[collx.Store]) -> None:
    value = os.urandom(8 << 20)
    stores[1].set("large", value)
    assert stores[2].get("large") == value
    with pytest.raises(ValueError, match="at most 8388608 can be kept"):
        stores[1].set("large", value + b"x")
    with pytest.raises(ValueError, match="a key of 1025 bytes"):
        stores[1].get("k" * 1025)
    stores[1].set("k" * 1024, "")
    assert stores[2].get("k" * 1024) == b""


def test_threads_take_turns(stores: list[collx.Store]) -> None:
    """Also where one waits in vain until the other's time is up."""
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        stores[1].get("never", timeout=0.5)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait()
        for number in range(100):
            stores[2].set("own", str(number))
        stores[1].set("other", "x", timeout=LONG)
        assert isinstance(waiting.exception(LONG), collx.TimeoutError)


def test_when_rank_0_is_gone_the_others_hear_of_it(stores: list[collx.Store]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stores[1].get, "never")
        stores[2].set("a", "b")
        stores[0].close()
        error = waiting.exception(LONG)
    assert isinstance(error, collx.RankFailedError)
    assert error.ranks == (0,)
    with pytest.raises(collx.RankFailedError, match="rank 0, which keeps it, has ended or closed it"):
        stores[2].get("a")
    with pytest.raises(collx.ClosedError, match="this store can no longer be used: rank 0"):
        stores[2].get("a")
    with pytest.raises(collx.ClosedError, match="it is closed"):
        stores[0].get("a")


def test_closing_ends_the_calls_of_other_threads(stores: list[collx.Store]) -> None:
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        stores[1].get("never")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait()
        stores[1].close()
        stores[1].close()
        assert isinstance(waiting.exception(LONG), collx.ClosedError)


def test_a_rank_comes_once_and_may_come_again(stores: list[collx.Store]) -> None:
    with pytest.raises(collx.BootstrapError, match="refused: rank 1 is here already; have two processes"):
        collx.Store(stores[0].address, 1, 3, LONG, secret=SECRET)
    stores[1].close()
    with collx.Store(stores[0].address, 1, 3, LONG, secret=SECRET) as again:
        again.set("key", "value")
    assert stores[0].get("key") == b"value"


def test_who_is_not_of_this_store_is_told_why(stores: list[collx.Store]) -> None:
    address = stores[0].address
    with pytest.raises(collx.BootstrapError, match="refused: rank 1 says that the job has 4 ranks, rank 0 says 3"):
        collx.Store(address, 1, 4, LONG, secret=SECRET)
    with pytest.raises(collx.BootstrapError, match="has another secret, or is of another job"):
        collx.Store(address, 1, 3, LONG, secret=new_secret())
    with pytest.raises(collx.BootstrapError, match=r"another program or job listens there"):
        collx.Store(address, 0, 3, LONG, secret=SECRET)
    with pytest.raises(ValueError, match="rank is 3"):
        collx.Store(address, 3, 3, LONG, secret=SECRET)
    with pytest.raises(collx.BootstrapError, match="names no host and port"):
        collx.Store("nowhere", 0, 3, LONG, secret=SECRET)


def test_a_rank_0_that_does_not_come_is_named() -> None:
    with collx.Store("127.0.0.1:0", 0, 2, LONG, secret=SECRET) as store:
        address = store.address
    with pytest.raises(collx.BootstrapError, match=f"rank 1 of 2 did not reach rank 0 at {address} within the timeout"):
        collx.Store(address, 1, 2, 0.1, secret=SECRET)


def test_without_a_secret_there_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLLX_SECRET_FILE", "COLLX_SECRET_FD", "COLLX_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(collx.BootstrapError, match=r"collx run.*COLLX_SECRET_FILE.*COLLX_INSECURE=1"):
        collx.Store("127.0.0.1:0", 0, 2)
    monkeypatch.setenv("COLLX_INSECURE", "1")
    with collx.Store("127.0.0.1:0", 0, 2) as store, collx.Store(store.address, 1, 2) as other:
        other.set("key", "value")
        assert store.get("key") == b"value"


def test_ipv6() -> None:
    with collx.Store("tcp://[::1]:0", 0, 2, LONG, secret=SECRET) as store:
        assert store.address.startswith("[::1]:")
        with collx.Store(store.address, 1, 2, LONG, secret=SECRET) as other:
            other.set("key", "value")
        assert store.get("key") == b"value"


STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from("ab"), st.sampled_from(["", "1", "x"])),
    st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(-2, 2)),
    st.tuples(st.just("compare_set"), st.sampled_from("ab"), st.sampled_from(["", "1", "y"]), st.sampled_from("1z")),
    st.tuples(st.just("get"), st.sampled_from("ab")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=20))
def test_as_a_dictionary_would(steps: list[tuple[int, tuple[object, ...]]]) -> None:
    """Whatever the ranks do in turn, each sees what a dictionary of their own would have."""
    model = dict[str, bytes]()
    with (
        collx.Store("127.0.0.1:0", 0, 2, LONG, secret=SECRET) as first,
        collx.Store(first.address, 1, 2, LONG, secret=SECRET) as second,
    ):
        for rank, (name, *arguments) in steps:
            expected = modelled(model, name, [str(argument) for argument in arguments])
            asked = {"timeout": 0.0} if name == "get" and isinstance(expected, type) else {}
            call = getattr((first, second)[rank], str(name))
            if isinstance(expected, type):
                with pytest.raises(expected):
                    call(*arguments, **asked)
            else:
                assert call(*arguments) == expected


def modelled(model: dict[str, bytes], name: object, arguments: list[str]) -> object:
    key, *values = arguments
    if name == "get":
        return model.get(key, collx.TimeoutError)
    if name == "set":
        model[key] = values[0].encode()
        return None
    if name == "add":
        try:
            model[key] = b"%d" % (int(model.get(key, b"0")) + int(values[0]))
        except ValueError:
            return ValueError
        return int(model[key])
    expected, desired = (value.encode() for value in values)
    if key not in model and expected:
        return expected
    if model.get(key, b"") == expected or key not in model:
        model[key] = desired
    return model[key]


def test_a_fork_keeps_neither_port_nor_ranks(stores: list[collx.Store]) -> None:
    """What is forked from rank 0 holds nothing of the store: the others hear of its end, and the port is free."""
    hold, held = os.pipe()
    if (child := os.fork()) == 0:
        os.read(hold, 1)
        os._exit(0)
    try:
        stores[0].close()
        with pytest.raises(collx.RankFailedError):
            stores[1].get("key")
        collx.Store(stores[0].address, 0, 3, LONG, secret=SECRET).close()
    finally:
        os.write(held, b"x")
        os.waitpid(child, 0)
