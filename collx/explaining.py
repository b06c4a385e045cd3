"""`collx explain`: which algorithm is chosen for a collective on this machine, or on another that is only described."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from collx import decisions
from collx.errors import BootstrapError
from collx.explain import Explanation, explain
from collx.planner import room_of
from collx.topology import Topology, load, place, read

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PAPER = 256  # ranks above which nothing is built for all of them


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str]) -> int:
    """Run `collx explain` with these arguments. 0, or 2 for a mistake, told in one line."""
    parser = _Parser(
        prog="collx explain",
        description="Which algorithm is chosen, why, and what is known of the others: predicted on the topology, and"
        " measured where `collx tune` has made a table.",
        allow_abbrev=False,
    )
    parser.add_argument("collective")
    parser.add_argument("size", help="bytes of the whole buffer: 8, 64K, 1M, 2G")
    parser.add_argument("-n", "--ranks", type=int, help="ranks (the usable cores)")
    parser.add_argument(
        "--topology", metavar="F", help="hwloc's or NCCL's XML, or a text: \"4 hosts x 2 packages x 8 ranks\""
    )
    options = parser.parse_args(argv)
    if options.ranks is not None and options.ranks < 1:
        parser.error(f"-n {options.ranks}: there is at least one rank")
    try:
        told = options.topology
        where = load(told, options.ranks) if told is not None else place(read(), options.ranks).topology
        print(contest(options.collective, _bytes(options.size), where, described=told is not None))
    except OSError as error:
        if error.filename is None:  # of what is printed, which is told as for every other command
            raise
        parser.error(f"{error.filename}: {error.strerror}")
    except (ValueError, BootstrapError) as error:
        parser.error(str(error))
    return 0


def contest(collective: str, nbytes: int, where: Topology, described: bool) -> Explanation:
    """The contest on a topology: as a job on this machine would decide it, or, on one that is `described`, as the cost
    model does, for nobody has measured there."""
    size = where.size
    far = any(level.name == "hosts" for level in where.levels)
    # A job here whose ranks nobody has bound keeps to no part of its host.
    hosts = where.parts if described else (tuple(range(size)),)
    guide = decisions.read(os.environ, ("shm",)).guide(["here"] * size, (), apart=False)
    if described:
        guide = replace(guide, table=None)  # it is of this machine
    return explain(collective, nbytes, size, _room(size), far, False, guide, hosts, topology=where, predicts=described)


def _room(size: int) -> float:
    """Bytes of the slots of a job of so many ranks; without a bound where to see what fits would take long."""
    from collx import _core

    return room_of(_core.geometry(size)[1]) if size <= _PAPER else float("inf")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 8, 64K, 64M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])
