"""The kernels of GPUs, run on the host: every dtype and op, to the bit, wherever the memory lies; and what is asked of
the driver for them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.cuda.kernels import COPIED, LONG, SHORT, Kernels, Move
from collx.transports.cuda.driver import Device, Driver
from collx.types import Array
from tests.cuda import compiled, host_kernels
from tests.elements import (
    PAIR_IDS,
    PAIRS,
    Guarded,
    address,
    assert_same_bits,
    expected,
    operands,
    parts,
    random_bits,
)


class Here:
    """Does at once what it is asked for, and notes it."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, tuple[int, int], bytes]] = []
        self.copied: list[int] = []

    def device(self, ordinal: int) -> Device:
        return Device(ordinal, "GPU-0", "the host", (9, 0), 2, False)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(target, source, nbytes)
        self.copied.append(nbytes)

    def program(self, source: str, kernels: Sequence[str]) -> Program:
        return Program(self, source)


class Program:
    def __init__(self, here: Here, source: str) -> None:
        self.here, self.source = here, source

    def launch(self, kernel: str, grid: tuple[int, int], block: int, arguments: bytes, stream: int) -> None:
        host_kernels.run(self.source, kernel, grid, block, arguments)
        self.here.launched.append((kernel, grid, arguments))


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def kernels(here: Here) -> Kernels:
    return Kernels(cast(Driver, here), 0)


def move(sources: Sequence[Array], targets: Sequence[Array], scale: bool = False) -> Move:
    return Move(tuple(map(address, sources)), tuple(map(address, targets)), sources[0].nbytes, scale)


def folded(op: str, sources: Sequence[Array], scale: int = 1) -> Array:
    """By NumPy, from the left; sums and products of small floats in float32, rounded once."""
    dtype = sources[0].dtype
    widened = dtype.kind not in "biuc" and dtype.itemsize < 4 and op in ("sum", "avg", "prod")
    with np.errstate(all="ignore"):
        total = reduce(lambda a, b: expected(op, a, b), [a.astype(np.float32) if widened else a for a in sources])
        if scale > 1:
            total = (parts(total) / parts(total).dtype.type(scale)).view(total.dtype)
        return np.asarray(total.astype(dtype))


@pytest.mark.parametrize(("dtype", "op"), PAIRS, ids=PAIR_IDS)
def test_bits_are_those_of_numpy(kernels: Kernels, dtype: np.dtype[Any], op: str) -> None:
    a, b = operands(dtype)
    got = np.empty_like(a)
    kernels.fold([move([a, b], [got])], dtype, op, 2, 0)
    assert_same_bits(got, folded(op, [a, b]))


def test_any_byte_but_zero_is_true(kernels: Kernels) -> None:
    a = np.array([0, 2, 0x80, 1, 0], np.uint8).view(bool)
    b = np.array([0, 4, 0x01, 0, 7], np.uint8).view(bool)
    for op, want in {"sum": [0, 1, 1, 1, 1], "prod": [0, 1, 1, 0, 0], "bxor": [0, 0, 0, 1, 1]}.items():
        out = np.empty_like(a)
        kernels.fold([move([a, b], [out])], a.dtype, op, 2, 0)
        assert out.view(np.uint8).tolist() == want


OFFSETS = st.integers(0, 63)
LEVEL = OFFSETS.map(lambda offset: [offset % 16] * 17)
ANYWHERE = st.lists(OFFSETS, min_size=17, max_size=17)


@given(
    st.sampled_from(PAIRS),
    st.one_of(st.integers(0, 40), st.integers(500, 20_000)),
    st.one_of(st.just([0] * 17), LEVEL, ANYWHERE),
    st.integers(1, 8),
    st.lists(st.integers(-1, 7), min_size=1, max_size=8, unique_by=lambda i: i if i >= 0 else object()),
    st.sampled_from([1, 1, 3, 8]),
)
@settings(max_examples=300, deadline=None)
def test_any_memory_any_count_and_in_place(
    pair: tuple[np.dtype[Any], str], nbytes: int, offsets: list[int], nsources: int, targets: list[int], scale: int
) -> None:
    """A target is named by the source that it is, or -1; `offsets` are those of all from alignment."""
    dtype, op = pair
    scale = scale if op == "avg" else 1
    values = [random_bits(dtype, nbytes // dtype.itemsize, seed) for seed in range(nsources)]
    inputs = [Guarded(value, offset) for value, offset in zip(values, offsets, strict=False)]
    fresh = [Guarded(np.zeros_like(values[0]), offset) for offset in offsets[8 : 8 + len(targets)]]
    outputs = [inputs[i] if 0 <= i < nsources else room for i, room in zip(targets, fresh, strict=True)]
    kernels = Kernels(cast(Driver, Here()), 0)
    task = move([x.array for x in inputs], [out.array for out in outputs], scale > 1)
    kernels.fold([task], dtype, op, scale, 0)
    want = folded(op, values, scale)
    for out in outputs:
        assert_same_bits(out.array.copy(), want)
        if nsources == scale == 1:
            assert out.array.tobytes() == values[0].tobytes()
    for value, x in zip(values, inputs, strict=True):
        assert any(x is out for out in outputs) or x.array.tobytes() == value.tobytes()
    assert all(room.intact() for room in (*inputs, *outputs))


def test_a_step_is_one_launch_for_folds_and_one_for_copies(here: Here, kernels: Kernels) -> None:
    given = [random_bits(np.dtype(np.int32), 100, seed) for seed in range(4)]
    sums, copies = np.zeros((3, 50), np.int32), np.zeros((2, 100), np.int32)
    moves = [move([a[:50], b[50:]], [out]) for a, b, out in zip(given, given[1:], sums, strict=False)]
    moves += [move([given[0]], list(copies)), move([given[1][:0]], [copies[0][:0]])]
    kernels.fold(moves, np.dtype(np.int32), "sum", 4, 0)
    assert [(name, height) for name, (_, height), _ in here.launched] == [
        (f"fold_int32_sum_{SHORT}", 3),
        (f"copy_8_{SHORT}", 1),
    ]
    assert (sums == [a[:50] + b[50:] for a, b in pairwise(given)]).all()
    assert (copies == given[0]).all()


def test_what_is_prepared_is_loaded_and_queued_again_and_again(here: Here, kernels: Kernels) -> None:
    given, got = np.ones(10, np.float32), np.zeros(10, np.float32)
    queues = kernels.prepared([move([given, got], [got])], given.dtype, "sum", 1)
    assert not here.launched
    here.program = None  # type: ignore[assignment, method-assign]
    for times in (1, 2, 3):
        for queue in queues:
            queue(0)
        assert (got == times).all()


def test_a_full_table_goes_on_in_another_launch(here: Here, kernels: Kernels) -> None:
    given, got = random_bits(np.dtype(np.uint16), 900).reshape(300, 3), np.zeros((300, 3), np.uint16)
    kernels.fold([move([a, a], [out]) for a, out in zip(given, got, strict=True)], given.dtype, "sum", 1, 0)
    assert (got == given + given).all()
    heights = [height for _, (_, height), _ in here.launched]
    assert sum(heights) == 300
    assert len(heights) == 4
    assert all(len(arguments) == 8 * LONG <= 4096 for _, _, arguments in here.launched)


def test_as_many_ranks_as_a_launch_takes(kernels: Kernels) -> None:
    most = (LONG - 5) // 2
    given, got = np.arange(most * 2, dtype=np.int64).reshape(most, 2), np.zeros((most, 2), np.int64)
    kernels.fold([move(list(given), list(got))], given.dtype, "sum", most, 0)
    assert (got == given.sum(0)).all()
    with pytest.raises(ValueError, match="use fewer ranks on this host"):
        kernels.fold([move([*given, given[0]], [*got, given[1]])], given.dtype, "sum", most, 0)


def test_a_long_copy_is_the_copy_engine_s(here: Here, kernels: Kernels) -> None:
    given, got = random_bits(np.dtype(np.uint8), COPIED + 1), np.zeros((2, COPIED + 1), np.uint8)
    kernels.fold([move([given], [got[0]])], np.dtype(np.float32), "sum", 2, 0)
    assert (here.copied, here.launched) == ([COPIED + 1], [])
    assert (got[0] == given).all()


def test_the_guard_keeps_memory_from_being_written(here: Here, kernels: Kernels) -> None:
    given, got, guard = np.ones(COPIED, np.uint8), np.zeros((2, COPIED), np.uint8), np.ones(1, np.uint64)
    moves = [move([given], [got[0]]), move([given[:9], given[:9]], [got[1][:9]])]
    kernels.fold(moves, given.dtype, "sum", 2, 0, guard=address(guard))
    assert not got.any()
    guard[0] = 0
    kernels.fold(moves, given.dtype, "sum", 2, 0, guard=address(guard))
    assert got[0].all()
    assert (got[1][:9] == 2).all()
    assert not here.copied


def words(values: Array) -> list[int]:
    return [address(values[i : i + 1]) for i in range(values.size)]


@pytest.mark.parametrize("count", [0, 1, 33, 300, LONG, 2 * LONG])
def test_signals_reach_every_word(kernels: Kernels, count: int) -> None:
    told = np.zeros(count + 1, np.uint64)
    kernels.signal(words(told)[:count], 7, 0)
    assert (told == [7] * count + [0]).all()
    kernels.wait(words(told)[:count], 7, 0)
    kernels.wait(words(told)[:count], 3, 0)


def test_a_wait_ends_with_the_last_word(kernels: Kernels) -> None:
    told, over = np.zeros(3, np.uint64), threading.Event()

    def wait() -> None:
        kernels.wait(words(told), 1 << 40, 0)
        over.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    for word in words(told):
        assert not over.is_set()
        kernels.signal([word], (1 << 40) + 1, 0)
    thread.join(60)
    assert over.is_set()


@pytest.mark.parametrize("how", [{"limit": 0.01}, {"abort": 1}])
def test_a_wait_can_be_given_up(kernels: Kernels, how: dict[str, Any]) -> None:
    told, abort = np.zeros(40, np.uint64), np.ones(1, np.uint64)
    if "abort" in how:
        how = {"abort": address(abort)}
    kernels.wait(words(told), 1, 0, **how)
    assert not told.any()


@pytest.mark.parametrize("target", compiled.TARGETS)
def test_nvrtc_compiles_for(target: str) -> None:
    """A few that show each kind of code there is; `make kernels` compiles all."""
    few = ["fold_float16_sum", "fold_bfloat16_prod", "fold_float8_e4m3fn_sum", "fold_complex64_prod", "copy_1", "wait"]
    (built,) = compiled.built([target], [f"{name}_{SHORT}" for name in few])
    assert built.kernels == len(few)
    assert not built.spilled
    assert not built.complaints
