"""The printed table: nccl-tests' columns for one algorithm, times side by side for several."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from collx.perf.points import Cell, Point, Sweep


def fitted(value: float, width: int) -> str:
    """`value` with as many of two decimals as fit into `width`, as nccl-tests prints."""
    for decimals in (2, 1, 0):
        text = f"{value:{width}.{decimals}f}"
        if len(text) <= width:
            return text
    return f"{value:{width}.1e}" if width >= 7 else f"{value:{width}.0e}"


def header(sweep: Sweep) -> list[str]:
    """The lines above the table: versions, what is measured and how, and where each rank runs."""
    options, host = sweep.options, sweep.host
    check = "on all elements, for equality with NumPy on exact random data" if options.check else "off"
    lines = [
        f"# collx version {sweep.version} python {host['python']} numpy {host['numpy']}",
        f"# Collective test starting: {options.case.name}",
        f"# nRanks {sweep.ranks} minBytes {options.begin} maxBytes {options.end} step: {options.factor:g}(factor) "
        f"warmup iters: {options.warmup} iters: {options.iterations} validation: {options.check}",
        f"# Time: the slowest rank's mean; measurements above {options.seconds:g} s make fewer iterations, at least 2",
        f"# Check: {check}",
        f"# Machine: {host['cpu']}, {host['cores']} cores, {host['system']}",
        *transports(sweep.transports, sweep.links),
        "#",
        "# Using devices",
    ]
    lines += [
        f"#  Rank {d['rank']:2d} Group {d['group']:2d} Pid {d['pid']:6d} on {d['hostname']:>10} "
        f"device {d['device']:2d} [{d['device_hex']}] {d['device_info']}"
        for d in sweep.devices
    ]
    return [*lines, "#", *_on_gpus(sweep), *columns(sweep)]


def _on_gpus(sweep: Sweep) -> list[str]:
    """What figures on GPUs depend on, and how to read them where ranks share one."""
    if (gpus := sweep.gpus) is None:
        return []
    lines = [f"# Ranks by GPU: {'; '.join(ranges(list(ranks)) for ranks in gpus.ranks)}. Times are of device events"]
    lines += [f"# Calls {how}" for how in gpus.how]
    lines += [f"# Left out: {why}" for why in gpus.left_out]
    if gpus.roof is not None:
        lines += [
            "# busbw is no wire speed here, as the ranks share a GPU. %roof: the least that the collective must read",
            f"# and write, by what one process's copy does in that time, at {gpus.roof / 1e9:.4g} GB/s",
        ]
    return [*lines, "#"]


def transports(names: list[str], links: list[list[str]]) -> list[str]:
    """The lines that say which transport each pair of ranks uses."""
    lines = [f"# Transports: {', '.join(names)}"]
    if len(names) == 1:
        return lines
    for rank, row in enumerate(links):
        peers = {name: [peer for peer, link in enumerate(row) if peer != rank and link == name] for name in names}
        ways = (f"{name} to {ranges(of)}" for name, of in peers.items() if of)
        lines.append(f"#  Rank {rank:2d} by {', by '.join(ways)}")
    return lines


def ranges(numbers: list[int]) -> str:
    """`0-2 5`, of ascending numbers."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _left(size: str, count: str, kind: str, redop: str, root: str) -> str:
    return f"{size:>12}  {count:>12}  {kind:>8}  {redop:>6}  {root:>6}"


def columns(sweep: Sweep) -> list[str]:
    """The head of the table."""
    heads = (("size", "count", "type", "redop", "root"), ("(B)", "(elements)", "", "", ""))
    left = ["# " + _left(*names)[2:] for names in heads]
    blank = "#" + " " * (len(left[0]) - 1)
    share = f"  {'%roof':>6}" if sweep.roof else ""
    if len(sweep.names) > 1:
        place = "out-of-place" if sweep.options.case.out_of_place else "in-place"
        what = "sync mode" if len(sweep.options.sync) > 1 else "algorithm"
        names = "".join(f"  {name:>{_width(name)}} " for name in sweep.names)
        return [
            f"{blank}  {place} time by {what} (us), * the fastest",
            f"{left[0]}{names}{share}  #wrong",
            left[1].rstrip(),
        ]
    names = f"  {'time':>7}  {'algbw':>6}  {'busbw':>6}{share}  {'#wrong':>6}"
    units = f"  {'(us)':>7}  {'(GB/s)':>6}  {'(GB/s)':>6}{' ' * len(share)}  {'':>6}"
    places = f"{'out-of-place':>20}{' ' * (len(names) - 20)}{'in-place':>17}"
    return [blank + places, left[0] + names * 2, (left[1] + units * 2).rstrip()]


def _width(algorithm: str) -> int:
    return max(len(algorithm), 8)


def _cell(cell: Cell | None, roof: bool) -> str:
    if cell is None:
        time = algbw = busbw = share = wrong = "N/A"
    else:
        time, algbw, busbw = fitted(cell.microseconds, 7), fitted(cell.algbw, 6), fitted(cell.busbw, 6)
        share = _percent(cell)
        wrong = "N/A" if cell.wrong is None else f"{cell.wrong:g}"
    return f"  {time:>7}  {algbw:>6}  {busbw:>6}{f'  {share:>6}' if roof else ''}  {wrong:>6}"


def _percent(cell: Cell) -> str:
    return "N/A" if cell.share is None else f"{cell.share * 100:.1f}"


def row(sweep: Sweep, points: list[Point]) -> str:
    """One size's line, of one point or of one per column."""
    first, roof = points[0], sweep.roof is not None
    line = _left(str(first.nbytes), str(first.count), sweep.type, sweep.redop, str(sweep.root))
    if len(sweep.names) <= 1:
        return line + _cell(first.out_of_place, roof) + _cell(first.in_place, roof)
    fastest = min(points, key=lambda point: point.best)
    for point in points:
        mark = "*" if point.best == fastest.best else " "
        line += f"  {fitted(point.best, _width(point.algorithm)):>{_width(point.algorithm)}}{mark}"
    if roof:
        line += f"  {_percent(fastest.cells[0]):>6}"
    wrong = sum(cell.wrong or 0 for point in points for cell in point.cells)
    return f"{line}  {wrong if sweep.options.check else 'N/A':>6}"


def footer(sweep: Sweep) -> list[str]:
    """The summary below the table."""
    lines = [f"# {'Out of bounds values':<20} : {sweep.wrong} {'FAILED' if sweep.wrong else 'OK'}"]
    if len(sweep.names) > 1:
        sizes = [list(points) for _, points in groupby(sweep.points, key=lambda point: point.nbytes)]
        wins = Counter(min(points, key=lambda point: point.best).algorithm for points in sizes)
        text = ", ".join(f"{name} {count}" for name, count in wins.most_common())
        lines.append(f"# {'Sizes won':<20} : {text}")
    else:
        lines.append(f"# {'Avg bus bandwidth':<20} : {sweep.average_busbw:g}")
    return [*lines, "#", f"# Collective test concluded: {sweep.options.case.name}", "#"]
