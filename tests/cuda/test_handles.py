"""Memory of other processes, which here are stand-ins of one process unless one has to die."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import pytest

from collx.errors import TransportError
from collx.transports.cuda.driver import CudaError
from collx.transports.cuda.handles import SHARED_BYTES, Exports, Held, Mappings, Shared
from tests.cuda.arrays import empty
from tests.cuda.standin import StandIn

OWNER = 7  # the process that `theirs` is, as its peers call it


@pytest.fixture
def theirs() -> Iterator[StandIn]:
    driver = StandIn()
    yield driver
    driver.end()


@pytest.fixture
def ours() -> Iterator[StandIn]:
    driver = StandIn()
    yield driver
    driver.end()


def sent(shared: Shared) -> Shared:
    record = shared.pack()
    assert len(record) == SHARED_BYTES
    return Shared.unpack(record)


def byte(address: int) -> int:
    return ctypes.c_uint8.from_address(address).value


def described(driver: StandIn, nbytes: int, fill: int) -> tuple[int, Shared]:
    address = driver.allocate(nbytes)
    ctypes.memset(address, fill, nbytes)
    return address, sent(Exports(driver).describe(address, nbytes))


def test_offsets_into_pools_share_one_mapping(theirs: StandIn, ours: StandIn) -> None:
    first, second = empty(theirs, 100, "u1"), empty(theirs, 100, "u1", offset=3)
    first.host[:], second.host[:] = 1, 2
    exports, mappings = Exports(theirs), Mappings(ours)
    held = Held(mappings)
    found = [held.address(OWNER, sent(exports.describe(a.address, a.nbytes)), 0) for a in (first, second)]
    assert [byte(address) for address in found] == [1, 2]
    assert (len(mappings), ours.mapped) == (1, 1)


def test_a_handle_is_opened_once_for_all(theirs: StandIn, ours: StandIn) -> None:
    _, shared = described(theirs, 64, 5)
    mappings = Mappings(ours)
    users = [Held(mappings) for _ in range(3)]
    assert len({held.address(OWNER, shared, 0) for held in users for _ in range(2)}) == 1
    for held in users:
        held.release()
        held.release()
    assert ours.calls == ["open"]  # and is there for the next call
    assert byte(Held(mappings).address(OWNER, shared, 0)) == 5


def test_another_generation_replaces_the_mapping_before_it(theirs: StandIn, ours: StandIn) -> None:
    """Their handles are the same bytes: opened beside the old one, the new one would lead to the old memory."""
    base, old = described(theirs, 64, 1)
    mappings = Mappings(ours)
    held = Held(mappings)
    assert byte(held.address(OWNER, old, 0)) == 1
    theirs.free(base)
    again, new = described(theirs, 64, 2)
    assert (again, new.handle) == (base, old.handle)
    assert byte(held.address(OWNER, new, 0)) == 2
    assert ours.calls == ["open", "close", "open"]
    held.release()
    assert byte(Held(mappings).address(OWNER, new, 0)) == 2


def test_what_overlaps_a_new_allocation_was_freed(theirs: StandIn, ours: StandIn) -> None:
    small, old = described(theirs, 4096, 1)
    beside, kept = described(theirs, 4096, 2)
    mappings = Mappings(ours)
    for shared in (old, kept):
        Held(mappings).address(OWNER, shared, 0)
    theirs.free(small)
    theirs.free(beside)
    large, new = described(theirs, 8192, 3)
    assert large == small
    Held(mappings).address(OWNER, new, 0)
    assert ours.mapped == 1


def test_a_freed_block_that_is_still_mapped_makes_room(
    theirs: StandIn, ours: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drivers cut small allocations from blocks, and map these."""
    freed, used, new = (described(theirs, 64, fill)[1] for fill in (1, 2, 3))
    mappings = Mappings(ours)
    Held(mappings).address(OWNER, freed, 0)
    kept = Held(mappings)
    kept.address(OWNER, used, 0)
    opened, in_the_way = ours.open, 1

    def refused(handle: bytes) -> int:
        if handle == new.handle and ours.mapped > in_the_way:
            raise CudaError("cuIpcOpenMemHandle", "CUDA_ERROR_ALREADY_MAPPED")
        return opened(handle)

    monkeypatch.setattr(ours, "open", refused)
    held = Held(mappings)
    assert byte(held.address(OWNER, new, 0)) == 3
    assert ours.mapped == 2
    held.release()
    mappings.taken(OWNER, freed, 0)
    in_the_way = 0  # now it is one that is used
    with pytest.raises(TransportError, match="CUDA_ERROR_ALREADY_MAPPED"):
        mappings.taken(OWNER, new._replace(generation=99), 0)


def test_mappings_nobody_uses_are_bounded(theirs: StandIn, ours: StandIn) -> None:
    mappings = Mappings(ours, most=3)
    used = Held(mappings)
    addresses = [used.address(OWNER, described(theirs, 64, fill)[1], 0) for fill in range(6)]
    assert [byte(address) for address in addresses] == list(range(6))
    used.release()
    last = described(theirs, 64, 9)[1]
    Held(mappings).address(OWNER, last, 0)
    assert len(mappings) == ours.mapped == 3


def test_the_last_communicator_unmaps_all(theirs: StandIn, ours: StandIn) -> None:
    mappings = Mappings(ours)
    for _ in range(2):
        mappings.join(OWNER)
    Held(mappings).address(OWNER, described(theirs, 64, 1)[1], 0)
    mappings.leave(OWNER)
    assert ours.mapped == 1
    mappings.leave(OWNER)
    assert ours.mapped == len(mappings) == 0


def test_mappings_are_closed_on_the_device_that_they_were_opened_on(theirs: StandIn) -> None:
    ours = StandIn(("GPU-0", "GPU-1"))
    mappings = Mappings(ours)
    mappings.join(OWNER)
    for ordinal in (0, 1):
        with ours.on(ordinal):
            Held(mappings).address(OWNER, described(theirs, 64, 1)[1], ordinal)
    mappings.leave(OWNER)
    assert ours.mapped == 0
    ours.end()


def test_what_cannot_be_shared_has_a_reason(theirs: StandIn, ours: StandIn) -> None:
    exports = Exports(theirs)
    unshared = sent(exports.describe(theirs.unshareable(64) + 8, 8))
    assert "async pool, managed or virtual" in unshared.why
    with pytest.raises(TransportError, match="async pool"):
        Held(Mappings(ours)).address(OWNER, unshared, 0)
    with theirs.on(0):
        host = sent(exports.describe(theirs.allocate_host(64), 64))
    assert "no allocation" in host.why
    end = theirs.allocate(64)
    assert "several allocations" in sent(exports.describe(end + 60, 8)).why
    assert sent(exports.describe(0, 0)) == Shared()


def test_peers_are_not_believed(theirs: StandIn, ours: StandIn) -> None:
    _, shared = described(theirs, 64, 1)
    mappings = Mappings(ours)
    for wrong in (shared._replace(offset=1), shared._replace(nbytes=65), shared._replace(offset=2**63)):
        with pytest.raises(TransportError, match="described"):
            Held(mappings).address(OWNER, wrong, 0)
    with pytest.raises(TransportError, match="that has 64"):
        Held(mappings).address(OWNER, shared._replace(room=4096, nbytes=4096), 0)
    assert ours.mapped == 0
    with pytest.raises(TransportError, match=r"cannot be mapped: cuIpcOpenMemHandle .*; has it been freed"):
        Held(mappings).address(OWNER, shared._replace(handle=bytes(64)), 0)
    Held(mappings).address(OWNER, shared, 0)
    with pytest.raises(TransportError, match="two sizes"):
        Held(mappings).address(OWNER, shared._replace(room=65), 0)


def test_memory_freed_early_is_not_mapped_as_if_it_were_there(theirs: StandIn, ours: StandIn) -> None:
    base, shared = described(theirs, 64, 1)
    theirs.free(base)
    with pytest.raises(TransportError, match="has it been freed"):
        Held(Mappings(ours)).address(OWNER, shared, 0)


OWNERS_PROGRAM = """
import sys
from collx.transports.cuda.driver import CudaError
from collx.transports.cuda.handles import Exports
from tests.cuda.standin import StandIn
driver = StandIn()
exports = Exports(driver)
for _ in range(2):
    print(exports.describe(driver.allocate(64), 64).pack().hex(), flush=True)
sys.stdin.read()
"""


def test_a_killed_owner(ours: StandIn) -> None:
    """What is mapped stays, so that nothing here reads what is not there; what is not cannot be mapped any more."""
    program = [sys.executable, "-c", OWNERS_PROGRAM]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        first, second = (Shared.unpack(bytes.fromhex(owner.stdout.readline().decode())) for _ in range(2))
        mappings = Mappings(ours)
        mappings.join(OWNER)
        held = Held(mappings)
        address = held.address(OWNER, first, 0)
        owner.kill()
    assert byte(address) == 0
    with pytest.raises(TransportError, match="cannot be mapped"):
        held.address(OWNER, second, 0)
    held.release()
    mappings.leave(OWNER)
    assert ours.mapped == 0
