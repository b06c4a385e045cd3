"""The reduction and copy kernels against NumPy: every dtype, op and instruction set, at any address."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.types import DTYPES, OPS, Array, ReduceOp, supports
from tests.elements import (
    FLOATS,
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

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "collx" / "csrc"
SOURCES = [CSRC / "folds.cpp", CSRC / "fold.cpp", CSRC / "copy.cpp", HERE / "kernels_shim.cpp"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
FLAGS = ["-std=c++20", "-fPIC", "-shared", "-ffp-contract=off", *WARNINGS]
BUILDS = {"optimised": ["-O3"], "ubsan": ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]}


class Kernels:
    """The shim's functions on arrays."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("shim_fold2", "shim_scale"):
            getattr(library, name).restype = ctypes.c_bool

    def simds(self) -> range:
        return range(self.library.shim_widest() + 1)

    def fold2(self, op: str, out: Array, a: Array, b: Array, simd: int | None = None) -> bool:
        simd = self.library.shim_widest() if simd is None else simd
        code, count = DTYPES.index(a.dtype), ctypes.c_size_t(a.size)
        return bool(self.library.shim_fold2(code, OPS.index(op), simd, at(out), at(a), at(b), count))

    def scale(self, out: Array, x: Array, size: int, simd: int | None = None) -> bool:
        simd = self.library.shim_widest() if simd is None else simd
        code, count = DTYPES.index(x.dtype), ctypes.c_size_t(x.size)
        return bool(self.library.shim_scale(code, simd, at(out), at(x), count, ctypes.c_int64(size)))

    def fold(self, op: str, targets: Sequence[Array], sources: Sequence[Array], streamed: int = 0) -> None:
        dtype, nbytes = DTYPES.index(targets[0].dtype), ctypes.c_size_t(targets[0].nbytes)
        to = (ctypes.c_void_p * len(targets))(*map(address, targets))
        of = (ctypes.c_void_p * len(sources))(*map(address, sources))
        self.library.shim_fold(dtype, OPS.index(op), to, len(targets), of, len(sources), nbytes, streamed)


def at(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(array))


@pytest.fixture(scope="module", params=BUILDS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    library = tmp_path_factory.mktemp("kernels") / f"{request.param}.so"
    command = [compiler, *FLAGS, *BUILDS[request.param], f"-I{CSRC}", *map(str, SOURCES), "-o", str(library)]
    subprocess.run(command, check=True)
    return Kernels(ctypes.CDLL(str(library)))


@pytest.mark.parametrize(("dtype", "op"), PAIRS, ids=PAIR_IDS)
def test_every_instruction_set_has_the_bits_of_numpy(kernels: Kernels, dtype: np.dtype[Any], op: str) -> None:
    a, b = operands(dtype)
    want = expected(op, a, b)
    for simd in kernels.simds():
        got, swapped = np.empty_like(a), np.empty_like(a)
        assert kernels.fold2(op, got, a, b, simd)
        assert_same_bits(got, want)
        assert kernels.fold2(op, swapped, b, a, simd)
        assert_same_bits(swapped, got)


def test_a_dtype_has_the_ops_that_types_gives_it(kernels: Kernels) -> None:
    for code, dtype in enumerate(DTYPES):
        assert kernels.library.shim_item_size(code) == dtype.itemsize
        x = np.zeros(1, dtype)
        for op in OPS:
            has = op != "custom" and supports(dtype, ReduceOp(op))
            assert kernels.fold2(op, x, x, x) == has, (dtype, op)
        assert kernels.scale(x, x, 2) == supports(dtype, ReduceOp("avg"))


def test_any_byte_but_zero_is_true(kernels: Kernels) -> None:
    a = np.array([0, 2, 0x80, 1, 0], np.uint8).view(bool)
    b = np.array([0, 4, 0x01, 0, 7], np.uint8).view(bool)
    for op, want in {"sum": [0, 1, 1, 1, 1], "prod": [0, 1, 1, 0, 0], "bxor": [0, 0, 0, 1, 1]}.items():
        out = np.empty_like(a)
        kernels.fold2(op, out, a, b)
        assert out.view(np.uint8).tolist() == want


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 300, 100_003])
def test_scale_divides_and_rounds_once(kernels: Kernels, dtype: np.dtype[Any], size: int) -> None:
    x, _ = operands(dtype)
    with np.errstate(all="ignore"):
        real = parts(x)
        wide = real.astype(np.float32) if dtype.itemsize < 4 else real
        want = (wide / wide.dtype.type(size)).astype(real.dtype).view(dtype)
    for simd in kernels.simds():
        got = x.copy()
        assert kernels.scale(got, got, size, simd)
        assert_same_bits(got, want)


OFFSETS = st.integers(0, 63)


@given(
    st.sampled_from(PAIRS),
    st.integers(0, 200),
    st.tuples(OFFSETS, OFFSETS, OFFSETS),
    st.sampled_from(["apart", "out is a", "out is b", "all one"]),
    st.integers(0, 2),
)
@settings(max_examples=300, deadline=None)
def test_any_address_any_count_and_in_place(
    kernels: Kernels, pair: tuple[np.dtype[Any], str], count: int, offsets: tuple[int, int, int], alias: str, simd: int
) -> None:
    dtype, op = pair
    a = Guarded(random_bits(dtype, count, seed=1), offsets[0])
    b = a if alias == "all one" else Guarded(random_bits(dtype, count, seed=2), offsets[1])
    fresh = Guarded(random_bits(dtype, count), offsets[2])
    out = {"apart": fresh, "out is b": b}.get(alias, a)
    want = expected(op, a.array.copy(), b.array.copy())
    kernels.fold2(op, out.array, a.array, b.array, min(simd, kernels.simds()[-1]))
    assert_same_bits(out.array.copy(), want)
    assert a.intact()
    assert b.intact()
    assert out.intact()


@given(
    st.sampled_from(PAIRS),
    st.one_of(st.integers(0, 70), st.integers(8100, 8300), st.integers(16_000, 20_000)),
    st.lists(OFFSETS, min_size=1, max_size=6),
    st.lists(st.tuples(OFFSETS, st.integers(-1, 5)), min_size=1, max_size=4, unique_by=lambda target: target[1]),
    st.integers(0, 15),
)
@settings(max_examples=200, deadline=None)
def test_fold_goes_from_the_left_into_every_target(
    kernels: Kernels,
    pair: tuple[np.dtype[Any], str],
    nbytes: int,
    sources: list[int],
    targets: list[tuple[int, int]],
    streamed: int,
) -> None:
    """A target is named by the source that it is, or by none; `streamed` has a bit for each that passes the caches."""
    dtype, op = pair
    count = nbytes // dtype.itemsize
    values = [random_bits(dtype, count, seed) for seed in range(len(sources))]
    inputs = [Guarded(value, offset) for value, offset in zip(values, sources, strict=True)]
    fresh = np.zeros(count, dtype)
    outputs = [inputs[i] if 0 <= i < len(inputs) else Guarded(fresh, offset) for offset, i in targets]
    kernels.fold(op, [out.array for out in outputs], [x.array for x in inputs], streamed)
    want = reduce(lambda a, b: expected(op, a, b), values)
    for out in outputs:
        assert_same_bits(out.array.copy(), want)
    for value, x in zip(values, inputs, strict=True):
        assert x.intact()
        assert any(x is out for out in outputs) or x.array.tobytes() == value.tobytes()
    assert all(out.intact() for out in outputs)


@pytest.mark.parametrize("function", ["shim_copy", "shim_copy_nt"])
def test_copy_moves_all_bytes_and_no_others(kernels: Kernels, function: str) -> None:
    @given(st.one_of(st.integers(0, 700), st.integers(4000, 70_000)), OFFSETS, OFFSETS)
    @settings(max_examples=200, deadline=None)
    def holds(nbytes: int, to: int, of: int) -> None:
        source = Guarded(random_bits(np.dtype(np.uint8), nbytes, nbytes), of)
        target = Guarded(np.zeros(nbytes, np.uint8), to)
        getattr(kernels.library, function)(at(target.array), at(source.array), ctypes.c_size_t(nbytes))
        assert (target.array == source.array).all()
        assert target.intact()

    holds()
