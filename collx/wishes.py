"""COLLX_ALGO: which algorithms may be chosen where a call names none, in the grammar of NCCL_ALGO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.errors import BootstrapError
from collx.schedule import REGISTER
from collx.types import nearest

# What is no algorithm of ours: MPI's own collectives, and NCCL's, which are for arrays on GPUs alone.
MPI, NCCL = FOREIGN = ("mpi", "nccl")


class Wish(NamedTuple):
    """Of one collective: only these algorithms, the first ones rather; or, `without`, all but these."""

    names: tuple[str, ...]
    without: bool = False

    def allows(self, name: str) -> bool:
        return (name in self.names) != self.without

    def __str__(self) -> str:
        return "^" * self.without + ",".join(self.names)


Wishes = Mapping[str, Wish]  # by collective


def parse(text: str) -> dict[str, Wish]:
    """What COLLX_ALGO says: lists of algorithms with ";" between, each behind its collective's name and ":", or behind
    none for every collective that has one of them. "^" before a list stands for all but these. Case does not matter,
    nor the "_" in a collective's name.

    Raises BootstrapError, in one line, for what it cannot say.
    """
    common: tuple[str, ...] | None = None
    without, own = False, dict[str, Wish]()
    for part in filter(None, map(str.strip, text.split(";"))):
        of, colon, listed = part.rpartition(":")
        names, but = _names(listed, part)
        if colon:
            collective = _collective(of)
            if collective in own:
                raise BootstrapError(f"COLLX_ALGO speaks of {collective} twice; name it once")
            own[collective] = _wish(collective, names, but)
        elif common is not None:
            raise BootstrapError(f"COLLX_ALGO has two lists for all collectives, {part!r} is the second; keep one")
        else:
            common, without = names, but
    return {**(_everywhere(common, without) if common else {}), **own}


def may_choose(collective: str) -> list[str]:
    """The algorithms that may be chosen unasked: not what one rank has registered or installed and another has not."""
    return [name for (of, name), entry in REGISTER.items() if of == collective and entry.shipped]


def _names(listed: str, part: str) -> tuple[tuple[str, ...], bool]:
    without = listed.strip().startswith("^")
    names = tuple(name.strip().lower() for name in listed.strip().removeprefix("^").split(","))
    if not all(names):
        raise BootstrapError(f"COLLX_ALGO: {part!r} lacks a name; write it as all_reduce:ring,pat;broadcast:^tree")
    return tuple(dict.fromkeys(names)), without


def _collective(text: str) -> str:
    known = {name.replace("_", ""): name for name in COLLECTIVES}
    found = known.get(text.strip().lower().replace("_", ""))
    if found is None:
        raise BootstrapError(f"COLLX_ALGO: unknown collective {text.strip()!r}: {nearest(text, COLLECTIVES)}")
    return found


def _wish(collective: str, names: tuple[str, ...], without: bool) -> Wish:
    known = [*may_choose(collective), *FOREIGN]
    for name in names:
        if name not in known:
            raise BootstrapError(f"COLLX_ALGO: {collective} has no algorithm {name!r}: {nearest(name, known)}")
    if without and set(names) >= set(known) - set(FOREIGN):
        raise BootstrapError(f"COLLX_ALGO: {collective}:^{','.join(names)} leaves it no algorithm")
    return Wish(names, without)


def _everywhere(names: tuple[str, ...], without: bool) -> dict[str, Wish]:
    wishes, met = dict[str, Wish](), set[str]()
    for collective in COLLECTIVES:
        fitting = tuple(name for name in names if name in (*may_choose(collective), *FOREIGN))
        met.update(fitting)
        shipped = any(name in may_choose(collective) for name in fitting)
        if shipped or fitting == names or (without and fitting):  # "mpi" beside others is none of what lacks these
            wishes[collective] = _wish(collective, fitting, without)
    for name in names:
        if name not in met:
            known = dict.fromkeys(name for collective in COLLECTIVES for name in may_choose(collective))
            raise BootstrapError(
                f"COLLX_ALGO: no collective has an algorithm {name!r}: {nearest(name, [*known, *FOREIGN])}"
            )
    return wishes
