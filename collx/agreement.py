"""What the ranks of one call must agree on, and how a difference between them is told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from collx.collectives import COLLECTIVES
from collx.plan import Lane, Plan
from collx.types import DTYPES, OPS

WORDS = 24
OWN_COUNTS = "by send_counts"  # the count of a call in which each rank knows its own messages only
_ORDER = "all ranks must make the same calls in the same order"
_TEXTS = (("collective", 16), ("dtype", 16), ("op", 24), ("algorithm", 40), ("count", 80))  # bytes in csrc/record.hpp


@dataclass(frozen=True, slots=True)
class Traits:
    """A call as the other ranks see it. `fingerprint` is a hash of all that must agree; the rest is for people."""

    fingerprint: int
    root: int  # -1 where there is none
    collective: str
    dtype: str = ""
    op: str = ""
    algorithm: str = ""
    count: str = ""

    def words(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """As csrc/record.hpp has it."""
        texts = b"".join(getattr(self, name).encode()[: room - 1].ljust(room, b"\0") for name, room in _TEXTS)
        head = np.array([self.fingerprint], np.uint64).view(np.int64)
        return np.concatenate([head, np.array([self.root], np.int64), np.frombuffer(texts, np.int64)])

    @staticmethod
    def of(words: np.ndarray[Any, np.dtype[np.int64]]) -> Traits:
        """What `words` was made of, with texts cut to their room."""
        texts, found, at = words[2:].tobytes(), [], 0
        for _, room in _TEXTS:
            found.append(texts[at : at + room].rstrip(b"\0").decode(errors="replace"))
            at += room
        return Traits(int(words[:1].view(np.uint64)[0]), int(words[1]), *found)

    def difference(self, there: Traits, peer: int) -> str:
        """What differs between this call and rank `peer`'s, in the words of csrc/record.cpp."""
        found = [
            (name, f"{name} differs: {_shown(mine)} here, {_shown(theirs)} on rank {peer}")
            for name in ("collective", "dtype", "op", "root", "count", "algorithm")
            if (mine := getattr(self, name)) != (theirs := getattr(there, name))
        ]
        if found and found[0][0] == "collective":
            return f"{found[0][1]}; {_ORDER}"
        told = "; ".join(text for _, text in found)
        told = told or f"plan differs from that of rank {peer} in what its texts ({self.count}) do not show"
        remedy = found[0][0] if len(found) == 1 else "arguments" if found else "counts"
        return f"{told}; all ranks must pass the same {remedy}"


def traits_of(plan: Plan) -> Traits:
    """The traits of the call that `plan` is for."""
    count = plan.count or _bytes_agreed(plan)
    op, called = OPS[plan.op], plan.called or plan.collective
    how = (plan.algorithm, plan.segments, plan.window)
    return agreed(plan.collective, called, plan.size, plan.root, plan.dtype, op, plan.ordered, count, how)


def agreed(
    collective: str,
    called: str,
    size: int,
    root: int,
    dtype: int,
    op: str,
    ordered: bool,
    count: str,
    how: tuple[str, *tuple[object, ...]],
) -> Traits:
    """The traits of a call of what is `called` so, by an algorithm and all else that belongs to `how` it is made."""
    spec = COLLECTIVES[collective]
    op = op if spec.reduces else ""
    if op == "custom" and ordered:
        op = "custom (ordered)"
    where = root if spec.rooted else -1
    element = "" if spec.result == "heard" else str(DTYPES[dtype])
    algorithm, *rest = how
    told = (called, algorithm, size, where, element, op, count, *rest)
    digest = hashlib.blake2b(repr(told).encode(), digest_size=8).digest()
    return Traits(int.from_bytes(digest, "little"), where, called, element, op, algorithm, count)


def unheard(plan: Plan) -> list[int]:
    """The ranks of which nothing comes to this one in a call: none of its result is theirs, and no message.

    What is empty can be passed on before it has come, and tells nothing.
    """
    spec, rank, ranks = COLLECTIVES[plan.collective], plan.rank, range(plan.size)
    heard = {rank}
    heard.update(source.peer for move in plan.moves for source in move.sources if isinstance(source, Lane))
    lengths = [length for move in plan.moves for length in move.lengths]
    if spec.result == "heard":
        heard.update(ranks)
    elif plan.output_bytes and (spec.reduces or all(lengths)):
        given = (r for r in ranks if spec.before(r, plan.size, plan.root, plan.size))
        heard.update(r for r in given if spec.result != "prefix" or r <= rank)
    return [r for r in ranks if r not in heard]


def unhearing(plan: Plan) -> list[int]:
    """The ranks to which nothing may come of this one in a call, as far as it knows: all whose `unheard` names it.

    It knows its own messages and blocks, and of the others only what follows from those.
    """
    spec, rank, where = COLLECTIVES[plan.collective], plan.rank, (plan.size, plan.root, plan.size)
    if spec.result == "heard":
        return []
    told = {rank}
    told.update(target.peer for move in plan.moves for target in move.targets if isinstance(target, Lane))
    # Who has to do with every block knows from its own that none is empty, on any rank.
    full = plan.input_bytes > 0 and all(length for move in plan.moves for length in move.lengths)
    if full and spec.before(rank, *where) and plan.collective not in ("gather", "scatter"):
        first = rank if spec.result == "prefix" else 0
        told.update(peer for peer in range(first, plan.size) if spec.after(peer, *where))
    return [peer for peer in range(plan.size) if peer not in told]


def counts_text(elements: tuple[int, ...]) -> str:
    """Elements per block: "4", "2x4" for two blocks of 4, or "3+4+5"."""
    if len(elements) > 1 and len(set(elements)) == 1:
        return f"{len(elements)}x{elements[0]}"
    return "+".join(map(str, elements))


def _bytes_agreed(plan: Plan) -> str:
    """The size that is the same on every rank, where there is one; elsewhere each message's length is checked."""
    if COLLECTIVES[plan.collective].reduces:
        return f"{plan.input_bytes} bytes"
    return f"{plan.output_bytes} bytes" if plan.collective in ("broadcast", "all_gather") else ""


def _shown(value: str | int) -> str:
    return str(value) if value != "" else "none"
