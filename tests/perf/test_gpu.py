"""Sweeps on GPUs, which are a stand-in here: arrays that are filled and read back, times of events, the copy roof."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import collx
from collx.perf import gpu, on_gpu, table
from collx.perf.arguments import parse
from collx.perf.device import Way, Ways
from collx.perf.gpu import Gpu
from collx.perf.gpu_report import page
from collx.perf.options import Options, UsageError
from collx.perf.points import Sweep
from collx.perf.sweep import run
from collx.types import Array
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.standin import StandIn

World = Callable[..., list[Any]]
FLOAT = np.dtype(np.float32)


class Arrays:
    """The stand-in's."""

    def __init__(self, driver: StandIn) -> None:
        self.driver, self.stream = driver, arrays.current(driver)

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any:
        return arrays.empty(self.driver, count, dtype, stream=self.stream)

    def address(self, array: Any) -> int:
        return int(array.address)

    def available(self) -> int:
        return 1 << 24


class Copied(Gpu):
    """Its calls are those of a communicator for host memory, on copies."""

    def ways(self, comm: Any, options: Options) -> Ways:
        return {name: Way(OnCopies(comm, self), "") for name in options.sync or ("",)}


class OnCopies:
    def __init__(self, comm: Any, device: Gpu) -> None:
        self._comm, self._device = comm, device
        self.rank, self.size, self.barrier = comm.rank, comm.size, comm.barrier

    def explain(self, collective: str, nbytes: int, device: str) -> Any:
        return SimpleNamespace(way="are made by copies")

    def all_reduce(self, x: Any, op: str = "sum", *, out: Any = None, algorithm: str | None = None) -> Any:
        if isinstance(x, np.ndarray):
            return self._comm.all_reduce(x, op)
        result = self._comm.all_reduce(self._device.read(x, x.dtype), op)
        self._device.write(out, result)
        return out


@pytest.fixture
def driver() -> Iterator[StandIn]:
    made = StandIn(["GPU-7"], jitter=0.0005)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def _nothing_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "missing", lambda dtype: "")


def swept(world: World, driver: StandIn, argv: list[str], size: int = 2, **traits: Any) -> Sweep:
    options = parse(["all_reduce", "--device", "cuda", "-w", "1", "--iters", "3", "-b", "64", "-e", "4K", *argv])
    sweeps = world(
        size, lambda comm: run(comm, options, Copied(driver, 0, Arrays(driver), roof_bytes=1 << 16)), **traits
    )
    found: Sweep = sweeps[0]
    return found


def test_a_sweep_is_timed_by_the_gpu_and_held_against_a_copy(
    world: World, driver: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = swept(world, driver, [])
    assert sweep.wrong == 0
    assert sweep.gpus is not None
    assert sweep.gpus.ranks == ((0, 1),)
    assert sweep.gpus.how == ("are made by copies",)
    roof = sweep.roof
    assert roof is not None
    for point in sweep.points:
        for cell in point.cells:
            assert cell.share == pytest.approx(4 * point.nbytes / cell.timing.mean / roof)
    shown = capsys.readouterr().out
    assert "busbw is no wire speed here" in shown
    assert "# Ranks by GPU: 0-1." in shown
    assert "# Calls are made by copies" in shown
    assert "%roof" in shown
    assert {device["device_hex"] for device in sweep.devices} == {"GPU-7"}


def test_sync_modes_stand_side_by_side(world: World, driver: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = swept(world, driver, ["--sync", "host,memop"])
    assert [point.algorithm for point in sweep.points[:2]] == ["host", "memop"]
    assert sweep.gpus is not None
    assert sweep.gpus.sync == ("host", "memop")
    assert "time by sync mode (us)" in capsys.readouterr().out


def test_what_is_wrong_on_the_gpu_is_counted(world: World, driver: StandIn) -> None:
    def corrupt(collective: str, rank: int, result: Array) -> None:
        if collective == "all_reduce" and result.dtype == FLOAT and rank == 1:
            result[-1] += 1

    sweep = swept(world, driver, ["-f", "64"], corrupt=corrupt)
    assert [cell.wrong for point in sweep.points for cell in point.cells] == [1, 1, 1, 1]


def test_arrays_are_filled_and_read_behind_what_was_queued(driver: StandIn) -> None:
    device = Gpu(driver, 0, Arrays(driver))
    array = device.empty(1000, FLOAT)
    device.write(array, np.ones(1, np.float32))
    assert device.read(array, FLOAT).tolist() == [1] * 1000
    values = np.arange(500, dtype=np.float32)
    device.write(array[500:], values)
    np.testing.assert_array_equal(device.read(array, FLOAT)[500:], values)
    nothing = device.empty(0, FLOAT)
    device.write(nothing, values[:0])
    assert device.read(nothing, FLOAT).size == 0


def test_times_are_of_what_is_queued_and_not_of_queueing(driver: StandIn) -> None:
    device = Gpu(driver, 0, Arrays(driver))
    calls: list[int] = []
    times = device.each_time(lambda: calls.append(1), 5)
    assert len(times) == len(calls) == 5
    assert all(time >= 0 for time in times)
    assert device.mean_time(lambda: calls.append(1), 4) >= 0
    assert len(calls) == 9


def test_on_gpus_of_their_own_no_roof_is_shared(world: World, driver: StandIn) -> None:
    two = StandIn(["GPU-0", "GPU-1"])
    options = parse(["all_reduce", "--device", "cuda", "-w", "0", "--iters", "2", "-b", "64", "-e", "64"])

    def rank(comm: Any) -> Sweep:
        return run(comm, options, Copied(two, comm.rank, Arrays(two)))

    sweep = world(2, rank)[0]
    assert sweep.gpus.ranks == ((0,), (1,))
    assert sweep.roof is None
    assert "%roof" not in "\n".join([*table.header(sweep), table.row(sweep, sweep.points)])
    two.end()


def test_nccl_needs_a_gpu_for_every_rank(world: World, driver: StandIn) -> None:
    options = parse(["all_reduce", "--device", "cuda", "--vs", "nccl"])
    device = Gpu(driver, 0, Arrays(driver))
    alone = SimpleNamespace(size=2, all_reduce=lambda x: x)
    ways = device.ways(alone, options)
    assert {name: way.algorithm for name, way in ways.items()} == {"collx": "", "nccl": "nccl"}
    cards = [{"hostname": "here", "device_hex": "GPU-7", "rank": rank} for rank in range(2)]
    with pytest.raises(UsageError, match="a GPU for every rank"):
        device.gpus(alone, ways, cards)


def test_a_sweep_by_processes_leaves_out_what_this_machine_has_not(capfd: pytest.CaptureFixture[str]) -> None:
    """All of it but the GPU."""
    options = parse(
        ["all_to_all", "--device", "cuda", "--sync", "event,spin", "-w", "1", "--iters", "2", "-b", "1K", "-e", "1K"]
    )

    def rank(comm: Any) -> tuple[Any, ...]:
        made = StandIn().install()
        sweep = run(comm, options, Gpu(made, 0, Arrays(made), roof_bytes=1 << 16))
        return sweep.wrong, sweep.names, sweep.gpus

    for wrong, names, gpus in collx.spawn(rank, 2):
        assert (wrong, names, gpus.sync) == (0, ("event",), ("event",))
        (how,) = gpus.how
        assert "rank 0 works for all; ranks wait for each other by event" in how
    shown = capfd.readouterr().out
    assert "# Left out: spin: " in shown
    assert "without MPS" in shown


def test_the_page_has_latencies_and_shares_first(world: World, driver: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    swept(world, driver, ["--sync", "host,memop", "-b", "4K", "-e", "4K", "--json", str(path)])
    document = json.loads(path.read_text())
    large = copy.deepcopy(document["results"])
    for result in large:
        result["size"] = 64 << 20
        result["out_of_place"] |= {"roof_share": 0.75 if result["experiment_name"] == "memop" else 0.5, "time": 333.0}
    document["results"] += large
    failed = {"args": ["all_reduce", "-n", "8"], "failed": "no room"}
    swept(world, driver, ["-b", "64", "-e", "64", "--json", str(path)])
    entries = [("modes", document), ("mps", document), ("mps", failed), ("dtypes", json.loads(path.read_text()))]
    sweeps = [{"what": what, "document": each} for what, each in entries]
    text = page({"device": "NVIDIA H200", "commit": "abc", "begun": "now", "sweeps": sweeps, "notes": ["tests: well"]})
    lines = text.splitlines()
    assert lines[0] == "# collx on NVIDIA H200"
    latencies = lines[lines.index("## all_reduce: latency by sync mode") :]
    assert latencies[2] == "| ranks, 4KiB | host | memop |"
    assert latencies[4].startswith("| 2 | ")
    assert latencies[5].startswith("| 2, under MPS | ")
    assert "| 2 | 64M | memop | 333 us | " in text
    assert " | 75% |" in text
    assert "- `collx perf all_reduce -n 8`: no room" in lines
    assert "| size | time | p99 | busbw GB/s | of the roof | time, in place |" in text
    assert lines[-1] == "- tests: well"


def test_results_are_named_by_the_device() -> None:
    assert on_gpu.short("NVIDIA H200") == "h200"
    assert on_gpu.short("NVIDIA H100 80GB HBM3") == "h100"
    assert on_gpu.short("Tesla V") == "gpu"


def test_make_gpu_says_why_it_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", nothing)
    path = Path(__file__).parents[2] / ".ci/gpu.py"
    found: dict[str, Any] = runpy.run_path(str(path))
    assert found["main"](Path()) == 0
    assert capsys.readouterr().out == "make gpu: skipped: no NVIDIA driver: libcuda.so.1 cannot be loaded\n"
