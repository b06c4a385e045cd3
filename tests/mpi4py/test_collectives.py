"""The shim's collectives and datatypes where mpi4py's own tests do not reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.compat.mpi4py import layout
from collx.compat.mpi4py.predefined import CONSTANTS
from tests import jobs

INT, CHAR = CONSTANTS["INT"], CONSTANTS["CHAR"]
Bytes = list[int]  # offsets, in the order in which they travel


def test_collectives() -> None:
    program = Path(__file__).with_name("programs") / "collectives.py"
    done = jobs.collx_run("--mpi4py", "-n", 3, "--tag", "off", program)
    assert (done.returncode, done.stdout) == (0, "all is well\n" * 3), done.stderr


def placed(one: Bytes, extent: int, blocks: list[tuple[int, int]]) -> Bytes:
    return [at + n * extent + byte for length, at in blocks for n in range(length) for byte in one]


@st.composite
def datatypes(draw: st.DrawFn, depth: int = 2) -> tuple[object, Bytes]:
    """A datatype, and where its bytes lie by MPI's definition."""
    if depth == 0 or draw(st.booleans()):
        basic = draw(st.sampled_from([INT, CHAR]))
        return basic, list(range(basic.size))
    of, bytes_of = draw(datatypes(depth - 1))
    extent = of.extent  # type: ignore[attr-defined]
    few = st.integers(0, 3)
    match draw(st.sampled_from(["vector", "hindexed", "resized", "struct", "contiguous"])):
        case "vector":
            count, each, stride = draw(few), draw(few), draw(st.integers(3, 5))
            blocks = [(each, n * stride * extent) for n in range(count)]
            return of.Create_vector(count, each, stride), placed(bytes_of, extent, blocks)  # type: ignore[attr-defined]
        case "hindexed":
            lengths: list[int] = draw(st.lists(few, max_size=3))
            at = [n * 200 + draw(st.integers(0, 9)) for n in range(len(lengths))]
            made = of.Create_hindexed(lengths, at)  # type: ignore[attr-defined]
            return made, placed(bytes_of, extent, list(zip(lengths, at, strict=True)))
        case "resized":
            return of.Create_resized(0, extent + draw(few)), bytes_of  # type: ignore[attr-defined]
        case "struct":
            count, begin = draw(few), draw(st.integers(0, 9))
            made = INT.Create_struct([count, 1], [begin, 600], [of, INT])
            return made, placed(bytes_of, extent, [(count, begin)]) + list(range(600, 604))
        case _:
            count = draw(few)
            return of.Create_contiguous(count), placed(bytes_of, extent, [(count, 0)])  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(datatypes(), st.integers(0, 3))
def test_bytes_are_gathered_and_scattered_as_the_datatype_says(made: tuple[object, Bytes], count: int) -> None:
    datatype, one = made
    layout = datatype._kind().layout  # type: ignore[attr-defined]
    offsets = [n * layout.extent + byte for n in range(count) for byte in one]
    assert (layout.size, layout.size * count) == (len(one), len(offsets))
    memory = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8)
    first, last = layout.span(count)
    got = layout.gather(memory[first:last], count)
    assert got.tolist() == memory[offsets].tolist()
    other = np.zeros_like(memory)
    layout.scatter(got, other[first:last], count)
    assert got.tolist() == other[offsets].tolist()
    assert set(np.flatnonzero(other).tolist()) <= set(offsets)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=3))
def test_a_grid_has_the_elements_at_its_indices(chosen: list[list[bool]]) -> None:
    sizes, indices = [len(each) for each in chosen], [np.flatnonzero(each) for each in chosen]
    made = layout.grid(layout.basic(4), sizes, indices)
    whole = np.arange(np.prod(sizes), dtype=np.int32)
    wanted = whole.reshape(sizes)[np.ix_(*indices)].ravel()
    first, last = made.span(1)
    assert (made.extent, made.size) == (whole.nbytes, wanted.nbytes)
    assert made.gather(whole.view(np.uint8)[first:last], 1).tobytes() == wanted.tobytes()
