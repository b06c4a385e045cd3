"""What is printed and written: nccl-tests' columns, its JSON layout, CSV, the picture, the reports."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collx.perf import record, report, table
from collx.perf.arguments import parse
from collx.perf.sweep import run

World = Callable[..., list[Any]]

# The keys that nccl-tests' src/util.cu writes with -J and -I 1, JSON_FILE_VERSION 3.
TOP = {
    "version", "start_time", "args", "env", "nccl_version", "config", "results", "out_of_bounds",
    "average_bus_bandwidth", "errors", "end_time",
}  # fmt: skip
CONFIG = {
    "nthreads", "ngpus", "minimum_bytes", "maximum_bytes", "step_factor", "warmup_iters", "iterations",
    "aggregated_iterations", "validation", "graph", "blocking_collectives", "per_iter_timing", "per_iter_skip",
    "parallel_init", "devices",
}  # fmt: skip
DEVICE = {"rank", "group", "pid", "hostname", "device", "device_hex", "device_info"}
RESULT = {"size", "count", "type", "redop", "root", "out_of_place", "in_place", "actual_iterations", "experiment_name"}
SUMMARY = {"time", "alg_bw", "bus_bw", "nwrong"}
PER_ITERATION = {
    "skipped_iterations", "min_us", "max_us", "avg_us", "p50_us", "p95_us", "p99_us", "stdev_us", "cv_pct", "times_us",
}  # fmt: skip


def written(world: World, argv: list[str], size: int = 2) -> None:
    options = parse([*argv, "-w", "0", "--iters", "2"])
    world(size, lambda comm: run(comm, options))


def test_json_is_nccl_tests_version_3(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    written(world, ["reduce", "-b", "8", "-e", "32", "--root", "1", "--json", str(path)])
    document = json.loads(path.read_text())
    assert document["version"] == 3
    assert document.keys() >= TOP
    assert document["config"].keys() == CONFIG
    assert [device["rank"] for device in document["config"]["devices"]] == [0, 1]
    assert all(device.keys() == DEVICE for device in document["config"]["devices"])
    assert [result["size"] for result in document["results"]] == [8, 16, 32]
    for result in document["results"]:
        assert result.keys() == RESULT | {"out_of_place_per_iter", "in_place_per_iter"}
        assert (result["type"], result["redop"], result["root"].strip()) == ("float", "sum", "1")
        for place in ("out_of_place", "in_place"):
            assert result[place].keys() == SUMMARY
            assert result[f"{place}_per_iter"].keys() == PER_ITERATION
            assert len(result[f"{place}_per_iter"]["times_us"]) == result["actual_iterations"] == 2
    assert document["out_of_bounds"] == {"count": 0, "okay": "true"}


def test_a_placement_that_does_not_exist_is_null(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    written(world, ["broadcast", "-b", "8", "-e", "8", "--json", str(path)])
    (result,) = json.loads(path.read_text())["results"]
    assert result["out_of_place"] is None
    assert result["in_place"]["nwrong"] == 0


def test_unchecked_is_null(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    written(world, ["all_reduce", "-b", "8", "-e", "8", "--check", "0", "--json", str(path)])
    (result,) = json.loads(path.read_text())["results"]
    assert result["in_place"]["nwrong"] is None


def test_the_environment_is_not_published(monkeypatch: pytest.MonkeyPatch, world: World, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    path = tmp_path / "x.json"
    written(world, ["barrier", "--json", str(path)])
    assert "hunter2" not in path.read_text()


def test_csv_has_a_line_per_size_algorithm_and_placement(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    written(world, ["all_gather", "-b", "8", "-e", "64", "--algorithm", "ring,pat", "--csv", str(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == record.CSV_COLUMNS
    assert len(rows) == 4 * 2 * 2
    assert {row["algorithm"] for row in rows} == {"ring", "pat"}
    assert all(float(row["p50_us"]) <= float(row["p99_us"]) for row in rows)
    assert all(row["wrong"] == "0" for row in rows)


def test_the_picture_is_a_png(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    written(world, ["all_reduce", "-b", "8", "-e", "64", "--algorithm", "ring,tree", "--plot", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_table_has_nccl_tests_columns(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    written(world, ["all_reduce", "-b", "8", "-e", "1K"])
    lines = capsys.readouterr().out.splitlines()
    (head,) = (line for line in lines if line.split()[1:2] == ["size"])
    figures = ["time", "algbw", "busbw", "#wrong"]
    assert head.split() == ["#", "size", "count", "type", "redop", "root", *figures, *figures]
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [row[:5] for row in rows] == [[str(8 << k), str(2 << k), "float", "sum", "-1"] for k in range(8)]
    assert all(len(row) == 13 for row in rows)
    assert {len(line) for line in lines if not line.startswith("#")} == {len(head)}


def test_algorithms_stand_side_by_side(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    written(world, ["all_reduce", "-b", "8", "-e", "64", "--algorithm", "ring,tree,pat"])
    lines = capsys.readouterr().out.splitlines()
    (head,) = (line for line in lines if line.split()[1:2] == ["size"])
    assert head.split()[6:] == ["ring", "tree", "pat", "#wrong"]
    rows = [line for line in lines if not line.startswith("#")]
    assert len(rows) == 4
    assert all(row.count("*") == 1 and row.split()[-1] == "0" and len(row.split()) == 9 for row in rows)


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [(1.234, 7, "   1.23"), (12345.678, 7, "12345.7"), (1234567.8, 7, "1234568"), (123456789.0, 7, "1.2e+08")],
)
def test_numbers_are_fitted_as_nccl_tests_fits_them(value: float, width: int, text: str) -> None:
    assert table.fitted(value, width) == text


def test_reports_take_sweeps(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, several, page = tmp_path / "one.json", tmp_path / "several.json", tmp_path / "page.md"
    written(world, ["all_reduce", "-b", "8", "-e", "2K", "--json", str(one)])
    written(world, ["broadcast", "-b", "8", "-e", "2K", "--algorithm", "tree,chain", "--json", str(several)])
    capsys.readouterr()
    assert report.main([str(one), str(several), "-o", str(page)]) == 0
    text = page.read_text()
    assert "## all_reduce, 2 ranks, float sum" in text
    assert "| size | tree | chain |" in text
    assert "| 2K |" in text
    assert text.count("#wrong: 0") == 2


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
