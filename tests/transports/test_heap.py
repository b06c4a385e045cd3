"""The heap of a rank's memory file: ranges that are taken, given back, and merged."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from collx.transports.lanes import Region, region_bytes
from collx.transports.shm import heap_bytes, memory_file

Bytes = npt.NDArray[np.uint8]
HEAP = 64 << 20
GRAIN = 64 << 10
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Heap:
    region: Region
    fd: int

    def take(self, nbytes: int) -> Bytes:
        return Region.allocate(self.region, nbytes)

    def held(self) -> int:
        """Bytes of memory that the file has, beside the region."""
        return os.fstat(self.fd).st_blocks * 512 - region_bytes(1)


@pytest.fixture
def heap() -> Iterator[Heap]:
    fd = memory_file(region_bytes(1), HEAP)
    yield Heap(Region(0, 1, fd), fd)
    os.close(fd)


def pages(nbytes: int) -> int:
    return max(-(-nbytes // PAGE), 1) * PAGE


def test_memory_comes_with_an_array_and_goes_with_its_last_view(heap: Heap) -> None:
    assert heap.held() == 0
    x = heap.take(1_000_000)
    assert x.nbytes == 1_000_000
    assert x.flags.writeable
    assert x.ctypes.data % PAGE == 0
    assert heap.held() == pages(1_000_000)
    view, tail = x[10:20].view(np.uint16), x[-1:]
    del x
    view[...] = 7
    tail[...] = 9
    del view
    assert heap.held() == pages(1_000_000)
    assert tail[0] == 9
    del tail
    assert heap.held() == 0


def test_arrays_come_and_go_in_any_order_and_keep_apart(heap: Heap) -> None:
    rng = random.Random(1)
    kept: list[tuple[int, Bytes]] = []
    for turn in range(400):
        if kept and (rng.random() < 0.45 or len(kept) > 40):
            number, array = kept.pop(rng.randrange(len(kept)))
            assert (array == number).all()
            del array
        else:
            array = heap.take(rng.choice([0, 1, 63, PAGE, GRAIN, GRAIN + 1, rng.randrange(1 << 20)]))
            array[...] = turn % 251
            kept.append((turn % 251, array))
            del array
        assert heap.held() == sum(pages(array.nbytes) for _, array in kept)
    for number, array in kept:
        assert (array == number).all()
    kept.clear()
    del array
    assert heap.held() == 0
    assert heap.take(HEAP).nbytes == HEAP  # all of it is one range again


def test_what_was_used_is_zero_when_it_comes_back(heap: Heap) -> None:
    heap.take(GRAIN)[...] = 1
    assert not heap.take(GRAIN).any()


def test_a_heap_in_pieces_says_how_large_they_are(heap: Heap) -> None:
    kept = [heap.take(GRAIN) for _ in range(HEAP // GRAIN)]
    with pytest.raises(MemoryError, match=r"no 1 bytes in one piece in this rank's heap, 0 at most: drop arrays"):
        heap.take(1)
    del kept[::2]
    with pytest.raises(MemoryError, match=f"no {GRAIN + 1} bytes in one piece in this rank's heap, {GRAIN} at most"):
        heap.take(GRAIN + 1)
    del kept[10:12]
    assert heap.take(3 * GRAIN).nbytes == 3 * GRAIN


def test_threads_may_take_and_drop_at_once(heap: Heap) -> None:
    wrong = []

    def work(number: int) -> None:
        rng = random.Random(number)
        kept = []
        for _ in range(100):
            array = heap.take(rng.randrange(1, 300_000))
            array[...] = number
            kept.append(array)
            if len(kept) > 4:
                gone = kept.pop(rng.randrange(4))
                if not (gone == number).all():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not wrong
    assert heap.held() == 0


def test_signals_do_not_keep_an_array_from_coming(heap: Heap) -> None:
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while not seen:
            assert heap.take(HEAP).nbytes == HEAP
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Rang(Exception):
    pass


def test_a_handler_that_raises_leaves_nothing_taken(heap: Heap) -> None:
    def ring(*_: object) -> None:
        raise Rang

    def take_until_it_rings() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while True:
            heap.take(HEAP)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Rang):
            take_until_it_rings()
    finally:
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    assert heap.held() == 0


def test_arrays_outlive_their_region(heap: Heap) -> None:
    x = heap.take(GRAIN)
    del heap.region
    gc.collect()
    x[...] = 3
    assert heap.held() == GRAIN
    del x
    assert heap.held() == 0


def test_a_heap_is_as_large_as_memory_and_takes_none() -> None:
    assert heap_bytes(1) >= os.sysconf("SC_PHYS_PAGES") * PAGE
    assert 0 < heap_bytes(1000) * 1000 < 1 << 44
    assert 0 < heap_bytes(1 << 16) * (1 << 16) < 1 << 44
    fd = memory_file(4096, 1 << 40)
    status = os.fstat(fd)
    assert status.st_size == 4096 + (1 << 40)
    assert status.st_blocks * 512 == 4096
    os.close(fd)
