"""`collx topo`: draws a machine, and who sits where on it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from collx.topology.machine import Machine, Node
from collx.topology.model import Topology
from collx.topology.picture import svg
from collx.topology.placing import place
from collx.topology.sources import places_of, read
from collx.topology.text import describe
from collx.topology.tree import Seated, lines, of_topology


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str]) -> int:
    """Returns 0, or 2 for a mistake in the arguments or in a file, told in one line."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        topology, tree, seated = _described(options)
        told = [*lines(tree, seated), "", *summary(topology)]
        if options.svg is not None:
            Path(options.svg).write_text(svg(tree, seated), encoding="utf-8")
    except OSError as error:
        if error.filename is None:
            raise
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(told))
    return 0


def summary(topology: Topology) -> Iterator[str]:
    """What decides choices: the levels that part ranks, and the links that join what they part."""
    ranks = f"{topology.size} rank{'s' if topology.size > 1 else ''}"
    yield f"{ranks}, topology {topology.fingerprint()}"
    if topology.levels:
        yield f"  {'level':10} {'groups':>6} {'ranks in each':>13}   {'link':10} {'latency us':>10} {'GB/s':>7}  for"
    for level in topology.levels:
        sizes = sorted({len(group) for group in topology.groups(level.name)})
        each = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        link, groups = level.link, len(topology.groups(level.name))
        whose = "all in a group" if link.shared else "each pair"
        figures = f"{link.alpha * 1e6:10.3g} {1e-9 / link.beta:7.3g}"
        yield f"  {level.name:10} {groups:6} {each:>13}   {link.name:10} {figures}  {whose}"


def _described(options: argparse.Namespace) -> tuple[Topology, Node, Seated]:
    if options.topology is not None:
        if (options.ranks, options.hosts, options.on) != (None, 1, None):
            raise ValueError(
                "--topology says itself how many ranks, hosts and GPUs there are; leave the other options out"
            )
        topology = describe(options.topology)
        return topology, of_topology(topology), {}
    machine = read(options.xml)
    return _placed(machine, options)


def _placed(machine: Machine, options: argparse.Namespace) -> tuple[Topology, Node, Seated]:
    on = options.on.removesuffix("s") if options.on else places_of(machine)
    placed = place(machine, options.ranks, hosts=options.hosts, on=on)
    seated: dict[str, list[int]] = {}
    for rank, (host, part) in enumerate(zip(placed.hosts, placed.parts, strict=True)):
        if host == 0:  # the others are like it
            seated.setdefault(part.name, []).append(rank)
    if options.hosts == 1:
        return placed.topology, machine.root, seated
    more = Node("more", f"… {options.hosts - 1} more like it")
    return placed.topology, Node("job", f"{placed.topology.size} ranks", (machine.root, more)), seated


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="collx topo",
        usage="collx topo [--xml FILE] [--ranks N] [--hosts M] [--on cores|gpus] [--svg FILE]\n"
        "       collx topo --topology TEXT [--svg FILE]",
        description="Draw this machine, or one that a file or a text describes, with the ranks that would sit on it,"
        " and what joins them.",
        epilog="Each rank in turn takes the core with the fewest ranks, the first such in the machine's order. Figures"
        " of links are what is assumed before anybody has measured.",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--xml", metavar="FILE", help="hwloc's XML (lstopo --of xml) or NCCL's; - is standard input")
    source.add_argument("--topology", metavar="TEXT", help="such as '4 hosts x 2 packages x 8 ranks'")
    parser.add_argument("--ranks", type=int, metavar="N", help="on all hosts (default: one on each core, or GPU)")
    parser.add_argument("--hosts", type=int, default=1, metavar="M", help="so many machines like it")
    parser.add_argument("--on", choices=("cores", "gpus"), help="what ranks sit on (default: GPUs for NCCL's XML)")
    parser.add_argument("--svg", metavar="FILE", help="write a picture too")
    return parser
