"""A comparison as a picture: each library's time over collx's, a panel per collective. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from collx.perf import standing
from collx.perf.report import size_text
from collx.perf.standing import Point

_COLOURS = {
    "collx": "black",
    "collx.empty": "0.55",
    "openmpi": "tab:blue",
    "mpich": "tab:orange",
    "intelmpi": "tab:red",
    "gloo": "tab:green",
}


def speeds(points: list[Point], name: str) -> tuple[list[int], list[float]]:
    """Sizes, and how many times as long as collx this library took: above 1, collx is faster."""
    sizes, times = [], []
    for point in points:
        figure = point["figures"].get(standing.tag_of(point), {"seconds": {}})
        if name in figure["seconds"]:
            sizes.append(point["size"])
            inverse = None if name in standing.OURS else standing.ratio(figure, "collx", name)
            seconds = figure["seconds"]
            times.append(seconds[name] / seconds["collx"] if inverse is None else 1 / inverse)
    return sizes, times


def draw(document: dict[str, Any], ranks: int, path: Path) -> None:
    """Write the picture for this number of ranks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [point for point in document["points"] if point["ranks"] == ranks]
    collectives = list(dict.fromkeys(point["collective"] for point in points))
    figure, row = pyplot.subplots(
        1,
        len(collectives),
        figsize=(1 + 3 * max(len(collectives), 2), 4.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, collective in zip(row[0], collectives, strict=True):
        of = [point for point in points if point["collective"] == collective]
        for name, version in document["versions"].items():
            sizes, times = speeds(of, name)
            if times:
                style = "-" if name in standing.OURS else ".-"
                axes.plot(sizes, times, style, color=_COLOURS[name], label=version.partition(", mpi4py")[0])
        axes.set(title=collective, xlabel="size (bytes)")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda nbytes, _: size_text(int(nbytes)))
        axes.yaxis.set_major_formatter(lambda times, _: f"{times:g}")
        axes.grid(alpha=0.3)
    row[0][0].set_ylabel("time, in times of collx's")
    handles, labels = row[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"{ranks} ranks, {document['dtype']}, {document['host']['cpu']}: above 1, collx is faster")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
