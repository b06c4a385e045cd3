"""A sweep as files: JSON in nccl-tests' layout (version 3), CSV, and a picture."""

from __future__ import annotations

import csv
import json
import os
import statistics
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from collx.perf.points import Cell, Point, Sweep
from collx.perf.report import size_text

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
# The environment goes into files that people publish, so only what can explain a figure does.
_TELLING = ("COLLX_", "OMPI_", "OMP_", "PMI_")
_STYLES = ("-", "--", ":")  # of lines in a plot


def _flag(value: bool) -> str:
    return "true" if value else "false"  # nccl-tests writes booleans as strings


def _summary(cell: Cell) -> dict[str, Any]:
    summary = {"time": cell.microseconds, "alg_bw": cell.algbw, "bus_bw": cell.busbw, "nwrong": cell.wrong}
    return summary if cell.share is None else summary | {"roof_share": cell.share}


def _per_iteration(cell: Cell) -> dict[str, Any]:
    times = [seconds * 1e6 for seconds in cell.timing.each]
    average, spread = statistics.fmean(times), statistics.pstdev(times)
    return {
        "skipped_iterations": 0,
        "min_us": min(times),
        "max_us": max(times),
        "avg_us": average,
        "p50_us": cell.timing.percentile(50) * 1e6,
        "p95_us": cell.timing.percentile(95) * 1e6,
        "p99_us": cell.timing.percentile(99) * 1e6,
        "stdev_us": spread,
        "cv_pct": 100 * spread / average if average else 0.0,
        "times_us": [round(time, 3) for time in times],
    }


def _result(sweep: Sweep, point: Point) -> dict[str, Any]:
    result: dict[str, Any] = {
        "size": point.nbytes,
        "count": point.count,
        "type": sweep.type,
        "redop": sweep.redop,
        "root": f"{sweep.root:6d}",
    }
    for place, cell in (("out_of_place", point.out_of_place), ("in_place", point.in_place)):
        result[place] = None if cell is None else _summary(cell)
        if cell is not None:
            result[f"{place}_per_iter"] = _per_iteration(cell)
    result["actual_iterations"] = min(len(cell.timing.each) for cell in point.cells)
    result["experiment_name"] = point.algorithm
    return result


def as_json(sweep: Sweep, ended: str) -> dict[str, Any]:
    """The document that nccl-tests' `-J` would write, `experiment_name` being the algorithm, or the sync mode where
    several were compared; `collx_version`, `collective`, `host`, `gpus`, `transports` and `links`, which has the
    transport by rank and peer, are ours. Times are in microseconds, bandwidths in 1e9 bytes per second."""
    options = sweep.options
    return {
        "version": 3,
        "start_time": sweep.started,
        "args": ["collx", "perf", *options.arguments],
        "env": sorted(f"{key}={value}" for key, value in os.environ.items() if key.startswith(_TELLING)),
        "nccl_version": 0,
        "collx_version": sweep.version,
        "collective": options.case.name,
        "host": sweep.host,
        "gpus": None if sweep.gpus is None else asdict(sweep.gpus),
        "transports": sweep.transports,
        "links": sweep.links,
        "config": {
            "nthreads": 1,
            "ngpus": 1,
            "minimum_bytes": options.begin,
            "maximum_bytes": options.end,
            "step_factor": options.factor,
            "warmup_iters": options.warmup,
            "iterations": options.iterations,
            "aggregated_iterations": 1,
            "validation": options.check,
            "graph": 0,
            "blocking_collectives": _flag(False),
            "per_iter_timing": _flag(True),
            "per_iter_skip": 0,
            "parallel_init": _flag(False),
            "devices": sweep.devices,
        },
        "results": [_result(sweep, point) for point in sweep.points],
        "out_of_bounds": {"count": sweep.wrong, "okay": _flag(sweep.wrong == 0)},
        "average_bus_bandwidth": {"bandwidth": sweep.average_busbw, "okay": "unchecked"},
        "errors": [],
        "end_time": ended,
    }


def write_json(sweep: Sweep, path: Path, ended: str) -> None:
    path.write_text(json.dumps(as_json(sweep, ended)) + "\n")


CSV_COLUMNS = (
    "size", "count", "type", "redop", "root", "algorithm", "placement",
    "time_us", "algbw", "busbw", "wrong", "p50_us", "p99_us", "iterations", "device", "roof_share",
)  # fmt: skip


def write_csv(sweep: Sweep, path: Path) -> None:
    """One line per size, algorithm and placement."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for point in sweep.points:
            for place, cell in (("out-of-place", point.out_of_place), ("in-place", point.in_place)):
                if cell is not None:
                    p50, p99 = (f"{cell.timing.percentile(p) * 1e6:.3f}" for p in (50, 99))
                    left = (point.nbytes, point.count, sweep.type, sweep.redop, sweep.root, point.algorithm, place)
                    figures = (f"{cell.microseconds:.3f}", f"{cell.algbw:.4f}", f"{cell.busbw:.4f}", cell.wrong)
                    share = "" if cell.share is None else f"{cell.share:.4f}"
                    device = sweep.devices[0]["device_info"]
                    writer.writerow((*left, *figures, p50, p99, len(cell.timing.each), device, share))


def write_plot(sweep: Sweep, path: Path) -> None:
    """Time and bus bandwidth over size, a line per algorithm; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, bandwidths) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    by_algorithm = sorted(sweep.points, key=lambda point: point.algorithm)
    for index, (name, points) in enumerate(groupby(by_algorithm, key=lambda point: point.algorithm)):
        shown = [point for point in points if point.nbytes]
        sizes = [point.nbytes for point in shown]
        style = _STYLES[index // 10 % len(_STYLES)]  # matplotlib has ten colours
        times.plot(sizes, [point.best for point in shown], style, marker=".", label=name or "collx")
        bandwidths.plot(sizes, [point.cells[0].busbw for point in shown], style, marker=".", label=name or "collx")
    taken = [point for point in sweep.points if point.nbytes and sweep.chosen.get(point.nbytes) == point.algorithm]
    if taken:
        ring = {"facecolors": "none", "edgecolors": "black", "s": 90, "zorder": 3}
        sizes = [point.nbytes for point in taken]
        times.scatter(sizes, [point.best for point in taken], label="chosen by collx", **ring)
        bandwidths.scatter(sizes, [point.cells[0].busbw for point in taken], **ring)
    for axes, label in ((times, "time (µs)"), (bandwidths, "bus bandwidth (GB/s)")):
        axes.set(xlabel="size (bytes)", ylabel=label)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda nbytes, _: size_text(int(nbytes)))
        axes.grid(alpha=0.3)
    times.set_yscale("log")
    times.legend(fontsize="small")
    figure.suptitle(f"{sweep.options.case.name}, {sweep.ranks} ranks, {sweep.type}, {sweep.devices[0]['device_info']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
