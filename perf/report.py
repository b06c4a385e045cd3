"""Results as markdown: `python -m collx.perf.report FILE.json ... [-o FILE.md]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def size_text(nbytes: int) -> str:
    """8, 64K, 1.5M: powers of 1024."""
    for unit, one in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if nbytes >= one:
            return f"{nbytes / one:g}{unit}"
    return str(nbytes)


def time_text(microseconds: float) -> str:
    """Three digits, in us or ms."""
    if microseconds >= 1000:
        return f"{microseconds / 1000:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"
    return f"{microseconds:.3g} us"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def lines(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A table, its first column of words."""
    return [_row(head), _row(["---"] + ["---:"] * (len(head) - 1)), *map(_row, rows)]


def machine_text(host: dict[str, Any]) -> str:
    """One line on the machine and the versions."""
    caches = ", ".join(f"{level.upper()} {host[level]}" for level in ("l2", "l3") if host.get(level))
    return (
        f"{host['cpu']}, {host['cores']} cores ({caches or 'caches unknown'}), {host['memory_gib']} GiB, "
        f"{host['system']}, Python {host['python']}, NumPy {host['numpy']}"
    )


# -- sweeps ------------------------------------------------------------------------------------------


def _cell(result: Document) -> Document:
    cell: Document = result["out_of_place"] or result["in_place"]
    return cell


def _by_algorithm(document: Document) -> list[str]:
    """A sweep of several algorithms: their times side by side, the fastest in bold."""
    names = list(dict.fromkeys(result["experiment_name"] for result in document["results"]))
    rows = []
    for nbytes, results in groupby(document["results"], key=lambda result: result["size"]):
        times = {result["experiment_name"]: _cell(result)["time"] for result in results}
        fastest = min(times.values())
        texts = [f"**{time_text(t)}**" if t == fastest else time_text(t) for t in (times[name] for name in names)]
        rows.append([size_text(nbytes), *texts])
    return lines(["size", *names], rows)


def _by_placement(document: Document) -> list[str]:
    """A sweep of one algorithm: time, p99 and bus bandwidth, out of place and in place; on a GPU that ranks share, the
    share of the copy roof too."""
    shared = any("roof_share" in _cell(result) for result in document["results"])
    names = ["time", "p99", "busbw GB/s", *["of the roof"] * shared]
    rows = []
    for result in document["results"]:
        row = [size_text(result["size"])]
        for place in ("out_of_place", "in_place"):
            cell = result[place]
            if cell is None:
                row += [""] * len(names)
                continue
            p99 = result.get(f"{place}_per_iter", {}).get("p99_us", 0.0)
            row += [time_text(cell["time"]), time_text(p99), f"{cell['bus_bw']:.2f}"]
            row += [f"{cell['roof_share']:.0%}"] if shared else []
        rows.append(row)
    return lines(["size", *(f"{name}{place}" for place in ("", ", in place") for name in names)], rows)


def sweep_markdown(document: Document) -> list[str]:
    """One sweep's heading, table and count of wrong elements."""
    config = document["config"]
    several = len({result["experiment_name"] for result in document["results"]}) > 1
    first = document["results"][0]
    wrong = document["out_of_bounds"]["count"]
    checked = f"#wrong: {wrong}" if config["validation"] else "not checked"
    return [
        f"## {document['collective']}, {len(config['devices'])} ranks, {first['type']} {first['redop']}",
        "",
        *(_by_algorithm(document) if several else _by_placement(document)),
        "",
        f"{checked}; transports {', '.join(document['transports'])}; `{' '.join(document['args'])}`",
        "",
    ]


def markdown(documents: list[Document], title: str) -> str:
    """Sweeps as one page, the machine described once per machine."""
    parts = [f"# {title}", ""]
    for host in dict.fromkeys(machine_text(document["host"]) for document in documents):
        parts += [f"{host}.", ""]
    if documents:
        versions = sorted({document["collx_version"] for document in documents})
        parts += [
            f"collx {', '.join(versions)}; {documents[0]['start_time']}. Times are the slowest rank's mean of up to "
            f"{documents[0]['config']['iterations']} calls, out of place where a collective is; bold is the fastest.",
            "",
        ]
    for document in documents:
        parts += sweep_markdown(document)
    return "\n".join(parts).rstrip() + "\n"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="collx.perf.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="JSON of collx perf --json")
    parser.add_argument("-o", "--output", type=Path, help="markdown file (stdout)")
    parser.add_argument("--title", default="collx sweep")
    given = parser.parse_args(argv)
    try:
        text = markdown([json.loads(path.read_text()) for path in given.files], given.title)
    except (OSError, ValueError, KeyError) as error:
        print(f"collx.perf.report: {error}", file=sys.stderr)
        return 2
    if given.output:
        given.output.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
