"""The page of `collx.perf.torch_versus`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from collx.perf.report import lines, machine_text, size_text, time_text
from collx.perf.standing import mean, tag_of

CALLS = ("all_reduce", "all_gather_single", "all_gather", "reduce_scatter_single", "all_to_all_single", "broadcast")
DTYPES = ("float32", "bfloat16")
MODELS = ("transformer", "many layers")
MEAN, STEP = 0.35, 0.8  # what is to be reached
Document = dict[str, Any]


def _figure(figures: dict[str, Any]) -> dict[str, Any]:
    """That of the tag which most rounds had."""
    found: dict[str, Any] = figures[tag_of({"figures": figures})]
    return found


def _ratio(point: Document, form: str) -> float:
    value: float = _figure(point[form])["ratio"]["collx"]["gloo"]
    return value


def _mean(points: Iterable[Document], form: str) -> str:
    values = [_ratio(point, form) for point in points]
    return f"{mean(values):.3f}" if values else "-"


def summary(document: Document) -> list[str]:
    """What was to be reached, and what was."""
    points, models = document["points"], document["models"]
    rows = []
    for form in ("sync", "async") if points else ():
        worst = max(points, key=lambda point: _ratio(point, form))
        where = f"{worst['call']}, {worst['dtype']}, {size_text(worst['size'])}"
        rows += [
            [f"geometric mean, {form}", f"{MEAN}", _mean(points, form)],
            [f"highest ratio, {form}", "below 1", f"{_ratio(worst, form):.2f} ({where})"],
        ]
    for model in models:
        rows.append([f"DDP step, {model['model']}", f"{STEP}", f"{_step(model):.2f}"])
    return lines(["collx / Gloo", "goal", "figure"], rows)


def _step(model: Document) -> float:
    value: float = _figure(model["figures"])["ratio"]["collx"]["gloo"]
    return value


def page(document: Document) -> str:
    """Everything as markdown."""
    points, models = document["points"], document["models"]
    parts = [
        "# collx beside Gloo, through torch's API",
        "",
        f"{machine_text(document['host'])}, torch {document['torch']}; collx at {document['revision']},"
        f" {document['ended']}; by `make torchperf`; load average before: {document['load']} at most. Two ranks with a"
        " thread each; both backends in the same processes, in turns of 10 ms on the same tensors, allocated before. A"
        " ratio is collx's time by Gloo's, the median over rounds of the ratio of the slowest rank's times within a"
        " round; times are medians; *tag* says how far apart the cores were. *sync* is the call as it is, *async* with"
        " `async_op=True` and `wait()`.",
        "",
        *summary(document),
        "",
    ]
    if points:
        wrong = sum(point["wrong"] for point in points)
        parts += [f"Elements of results that were wrong: {wrong}.", "", *_means(points), ""]
    if models:
        parts += [
            "## Steps under DistributedDataParallel",
            "",
            "*meeting* is a step in which ranks send no gradients and wait for each other once, in a barrier;"
            " *least* is that by Gloo's step: what no backend gets below.",
            "",
            *_steps(models),
            "",
        ]
    for call in CALLS:
        if some := [point for point in points if point["call"] == call]:
            parts += [f"## {call}", "", *_table(some), ""]
    return "\n".join(parts)


def _means(points: list[Document]) -> list[str]:
    rows = [
        [call, *(_mean(_some(points, call, dtype), form) for dtype in DTYPES for form in ("sync", "async"))]
        for call in CALLS
    ]
    return lines(["geometric mean", *(f"{dtype}, {form}" for dtype in DTYPES for form in ("sync", "async"))], rows)


def _some(points: list[Document], call: str, dtype: str) -> list[Document]:
    return [point for point in points if (point["call"], point["dtype"]) == (call, dtype)]


def _steps(models: list[Document]) -> list[str]:
    rows = []
    for model in models:
        figure = _figure(model["figures"])
        times = [time_text(figure["seconds"][name] * 1e6) for name in ("collx", "gloo", "meeting", "alone")]
        ratio, least = figure["ratio"]["collx"]["gloo"], figure["seconds"]["meeting"] / figure["seconds"]["gloo"]
        differing = f"{model['differing']:g}"
        rows.append([model["model"], model["about"], *times, f"{ratio:.2f}", f"{least:.2f}", differing, tag_of(model)])
    return lines(["model", "", "collx", "gloo", "meeting", "alone", "ratio", "least", "losses differ by", "tag"], rows)


def _table(points: list[Document]) -> list[str]:
    rows = []
    for point in points:
        figure = _figure(point["sync"])
        times = [time_text(figure["seconds"][name] * 1e6) for name in ("collx", "gloo")]
        ratios = [f"{_ratio(point, form):.3f}" for form in ("sync", "async")]
        rows.append([point["dtype"], size_text(point["size"]), *times, *ratios, tag_of({"figures": point["sync"]})])
    return lines(["dtype", "size", "collx", "gloo", "sync", "async", "tag"], rows)
