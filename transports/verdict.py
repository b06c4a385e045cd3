"""What ended a communicator, as all of its ranks see it: one rank's proposal, which won."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from collx.errors import AbortedError, CollxError, MismatchError, RankFailedError, RevokedError

NONE, FAILED, MISMATCH, GAVE_UP, REVOKED = range(5)  # `Why` of csrc/region.hpp, in its order


class Verdict(NamedTuple):
    """`rank` proposed it and says `text`; `ranks` have failed."""

    why: int
    rank: int
    text: str = ""
    ranks: tuple[int, ...] = ()

    def error(self, here: str, left: Collection[int]) -> CollxError:
        """What a rank that is `here` raises: the same type, and the same ranks, on every rank. `left`: the ranks
        that closed the communicator."""
        if self.why == FAILED:
            return RankFailedError(f"{here}: {_fates(self.ranks, left, self.text)}", self.ranks)
        if self.why == MISMATCH:
            return MismatchError(self.text)  # which names the ranks concerned
        if self.why == REVOKED:
            return RevokedError(f"{here}: rank {self.rank} revoked this communicator; the survivors can shrink it")
        return AbortedError(f"{here}: rank {self.rank} gave up: {self.text}")


def _fates(ranks: tuple[int, ...], left: Collection[int], known: str) -> str:
    died, closed = ([rank for rank in ranks if (rank in left) is gone] for gone in (False, True))
    texts = []
    if died:
        cut_off = f"or {'were' if died[1:] else 'was'} cut off ({known})"
        texts.append(f"{named(died)} died {cut_off if known else '(killed, or exited without closing)'}")
    if closed:
        texts.append(f"{named(closed)} {'have' if closed[1:] else 'has'} closed this communicator; skipped a call?")
    return "; ".join(texts)


def named(ranks: Collection[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
