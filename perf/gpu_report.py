"""Sweeps on a GPU as one page: latencies and shares of the copy roof first, then every table."""

from __future__ import annotations

from collx.perf import report
from collx.perf.report import Document, lines, size_text, time_text

LATENCY = 4096  # bytes
LARGE = (64 << 20, 256 << 20)
UNDER = {"mps": ", under MPS", "each": ", each rank doing its work"}


def page(state: Document) -> str:
    """Everything measured, as markdown; what was asked for first stands first."""
    sweeps = [entry for entry in state["sweeps"] if "failed" not in entry["document"]]
    parts = [f"# collx on {state['device']}", "", *_where(state, sweeps), ""]
    parts += ["## all_reduce: latency by sync mode", "", *_latencies(sweeps), ""]
    parts += ["## all_reduce: share of the copy roof", "", *_shares(sweeps), ""]
    for entry in sweeps:
        heading, *rest = report.sweep_markdown(entry["document"])
        parts += [heading + UNDER.get(entry["what"], ""), *rest]
    failed = [entry["document"] for entry in state["sweeps"] if "failed" in entry["document"]]
    if failed:
        parts += ["## Not measured", ""]
        parts += [f"- `collx perf {' '.join(document['args'])}`: {document['failed']}" for document in failed]
        parts += [""]
    if state["notes"]:
        parts += ["## The run", "", *(f"- {note}" for note in state["notes"]), ""]
    return "\n".join(parts).rstrip() + "\n"


def _where(state: Document, sweeps: list[Document]) -> list[str]:
    host = report.machine_text(sweeps[0]["document"]["host"]) if sweeps else "nothing was measured"
    roofs = sorted(gpus["roof"] / 1e9 for gpus in (entry["document"]["gpus"] for entry in sweeps) if gpus["roof"])
    between = f"{roofs[0]:.4g} to {roofs[-1]:.4g}" if roofs else "not measured"
    return [
        f"Commit {state['commit']}, {state['begun']}; {host}. By `make gpu`.",
        "",
        "All ranks share the one GPU, so busbw is no wire speed. The copy roof is what a copy by one process reads and"
        f" writes per second, measured at the begin of every sweep: {between} GB/s. A share is the least bytes that the"
        " collective must read and write, of all_reduce 2 · ranks · size, by what a copy moves in that time. Times are"
        " of device events, the slowest rank's mean.",
    ]


def _of_modes(sweeps: list[Document]) -> list[Document]:
    """The sweeps of all_reduce that compare sync modes."""
    documents = [(entry, entry["document"]) for entry in sweeps]
    return [entry for entry, it in documents if it["collective"] == "all_reduce" and len(it["gpus"]["sync"]) > 1]


def _by_mode(entry: Document, size: int) -> dict[str, Document]:
    return {
        result["experiment_name"]: result["out_of_place"]
        for result in entry["document"]["results"]
        if result["size"] == size
    }


def _ranks(entry: Document) -> str:
    return f"{len(entry['document']['config']['devices'])}{UNDER.get(entry['what'], '')}"


def _latencies(sweeps: list[Document]) -> list[str]:
    chosen = _of_modes(sweeps)
    modes = list(dict.fromkeys(mode for entry in chosen for mode in _by_mode(entry, LATENCY)))
    rows = []
    for entry in chosen:
        cells = _by_mode(entry, LATENCY)
        rows.append([_ranks(entry), *(time_text(cells[mode]["time"]) if mode in cells else "" for mode in modes)])
    return lines([f"ranks, {size_text(LATENCY)}iB", *modes], rows)


def _shares(sweeps: list[Document]) -> list[str]:
    rows = []
    for entry in _of_modes(sweeps):
        for size in LARGE:
            cells = {mode: cell for mode, cell in _by_mode(entry, size).items() if "roof_share" in cell}
            if cells:
                best = max(cells, key=lambda mode: cells[mode]["roof_share"])
                cell = cells[best]
                figures = [time_text(cell["time"]), f"{cell['bus_bw']:.1f}", f"{cell['roof_share']:.0%}"]
                rows.append([_ranks(entry), size_text(size), best, *figures])
    return lines(["ranks", "size", "best mode", "time", "busbw GB/s", "share"], rows)
