"""The command line: every mistake is one line and exit status 2, before anything is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from collx.perf import campaign, options
from collx.perf.arguments import parse
from collx.perf.options import UsageError
from collx.perf.sweep import main

MISTAKES = {
    "a collective": (["all_redcue"], "all_reduce"),
    "nothing": ([], "collective"),
    "an unknown flag": (["all_reduce", "--algos", "ring"], "--algos"),
    "a size": (["all_reduce", "-b", "8Q"], "8Q"),
    "a range": (["all_reduce", "-b", "1M", "-e", "8"], "-b"),
    "a factor": (["all_reduce", "-f", "1"], "-f"),
    "no ranks": (["all_reduce", "-n", "0"], "-n"),
    "ranks": (["all_reduce", "-n", "two"], "two"),
    "a dtype": (["all_reduce", "--dtype", "flaot32"], "float32"),
    "an op": (["all_reduce", "--op", "summ"], "sum"),
    "an op the dtype has not": (["all_reduce", "--op", "band"], "float32"),
    "avg of integers": (["reduce", "--op", "avg", "--dtype", "int32"], "avg"),
    "max of complex": (["all_reduce", "--op", "max", "--dtype", "complex64"], "complex64"),
    "an op of what has none": (["broadcast", "--op", "summ"], "sum"),
    "an op unlike any": (["all_reduce", "--op", "custom"], "there are sum"),
    "a root": (["broadcast", "-n", "4", "--root", "4"], "--root 4"),
    "a negative root": (["broadcast", "--root", "-1"], "--root"),
    "an algorithm": (["all_reduce", "--algorithm", "rign"], "ring"),
    "an algorithm of another collective": (["broadcast", "--algorithm", "swing"], "swing"),
    "an algorithm not for that size": (["all_reduce", "-n", "3", "--algorithm", "swing"], "swing"),
    "a function": (["all_reduce", "--algorithm", "examples.own_schedule:all"], "no attribute 'all'"),
    "a module": (["all_reduce", "--algorithm", "examples.no:all_reduce"], "No module named 'examples.no'"),
    "an algorithm of barrier": (["barrier", "--algorithm", "tree"], "barrier"),
    "an empty algorithm": (["all_reduce", "--algorithm", "ring,"], "algorithm"),
    "iterations": (["all_reduce", "--iters", "0"], "--iters"),
    "time": (["all_reduce", "--seconds", "0"], "--seconds"),
    "a file": (["all_reduce", "--json", "/no/such/place/x.json"], "/no/such/place"),
    "stdout": (["all_reduce", "--json", "-"], "name a file"),
    "a folder": (["all_reduce", "--csv", "/tmp"], "directory"),
    "a kind of picture": (["all_reduce", "--plot", "/tmp/x.bogus"], ".png"),
    "more than there is": (["all_reduce", "-e", "1T"], "available"),
    "more than there can be": (["all_reduce", "-e", "99999999999999999999T"], "available"),
    "a device": (["all_reduce", "--device", "tpu"], "tpu"),
    "a sync mode on the host": (["all_reduce", "--sync", "host"], "--device cuda"),
    "an unknown sync mode": (["all_reduce", "--device", "cuda", "--sync", "evnt"], "event"),
    "modes and algorithms": (
        ["all_reduce", "--device", "cuda", "--sync", "host,event", "--algorithm", "all"],
        "several of one only",
    ),
    "a barrier on GPUs": (["barrier", "--device", "cuda"], "has no arrays"),
    "another library on GPUs": (["all_reduce", "--device", "cuda", "--vs", "gloo"], "--vs nccl"),
    "a comparison of algorithms": (["all_reduce", "--vs", "mpi", "--algorithm", "ring"], "--algorithm"),
    "a comparison of what others have not": (["barrier", "--vs", "mpi"], "all_reduce"),
    "a library": (["all_reduce", "--vs", "mpj"], "mpi"),
}


@pytest.mark.parametrize(("argv", "names"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(argv: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert names in streams.err


def test_a_plot_without_matplotlib_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"collx\[plot\]"):
        parse(["all_reduce", "--plot", str(tmp_path / "x.png")])


@pytest.mark.parametrize(
    ("text", "nbytes"), [("8", 8), ("64K", 65536), ("1.5M", 3 << 19), ("2GiB", 2 << 30), ("64m", 64 << 20)]
)
def test_sizes_are_powers_of_1024(text: str, nbytes: int) -> None:
    assert options.nbytes(text) == nbytes


def test_the_issue_s_sweep_has_every_size_from_8_bytes_to_64_mebibytes() -> None:
    counts = parse(["all_reduce", "-b", "8", "-e", "64M", "-f", "2"]).sizes(4)
    assert [4 * count for count in counts] == [1 << power for power in range(3, 27)]


@pytest.mark.parametrize("collective", ["all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"])
@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_sizes_cut_into_parts_are_multiples_of_the_ranks(collective: str, ranks: int) -> None:
    counts = parse([collective, "-b", "8", "-e", "4K", "-f", "1.5"]).sizes(ranks)
    assert counts == sorted(set(counts))
    assert all(count >= ranks and count % ranks == 0 for count in counts)


@pytest.mark.parametrize("factor", ["1.01", "1.0000000000000002"])
def test_small_factors_go_element_by_element(factor: str) -> None:
    assert parse(["all_reduce", "-b", "0", "-e", "64", "-f", factor]).sizes(2) == list(range(17))


def test_a_comparison_starts_its_own_jobs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": "0", "SIZE": "2", "RENDEZVOUS": "unix:/nowhere"}.items():
        monkeypatch.setenv(f"COLLX_{name}", value)
    assert main(["all_reduce", "--vs", "mpi"]) == 2
    assert "outside" in capsys.readouterr().err


def test_all_leaves_out_what_does_not_take_the_ranks() -> None:
    asked = parse(["all_reduce", "--algorithm", "all", "-n", "3"])
    assert "swing" in asked.algorithms
    assert "swing" not in options.fits(asked, 3).algorithms
    assert "ring" in options.fits(asked, 3).algorithms


def test_nccl_names_of_types_are_understood() -> None:
    assert parse(["all_reduce", "--dtype", "half"]).dtype == parse(["all_reduce", "--dtype", "float16"]).dtype


def test_a_campaign_sees_first_that_it_can_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["-o", "/no/such/place/x"]) == 2
    assert "/no/such/place" in capsys.readouterr().err
