"""What a rank's checks have found wrong, to be told all at once: ranks are started for many checks."""

from __future__ import annotations

import numpy as np

from collx.types import Array

MOST = 20  # of one rank


class Found(list[str]):
    def equal(self, what: str, found: Array, right: Array) -> None:
        """Element by element; NaN is NaN, whatever its bits."""
        if found.dtype != right.dtype or found.shape != right.shape:
            self.append(f"{what}: {found.dtype}{found.shape} where {right.dtype}{right.shape} was right")
            return
        with np.errstate(all="ignore"):
            differ = ~((found == right) | ((found != found) & (right != right)))
        if np.any(differ):
            at = int(np.flatnonzero(differ)[0])
            got, wanted = found.reshape(-1)[at], right.reshape(-1)[at]
            self.append(
                f"{what}: {np.count_nonzero(differ)} of {found.size} differ, the first at {at}: {got}, not {wanted}"
            )

    def true(self, what: str, holds: bool) -> None:
        if not holds:
            self.append(what)

    def text(self, where: str) -> list[str]:
        more = [f"{where}: and {len(self) - MOST} more"] if len(self) > MOST else []
        return [f"{where}: {line}" for line in self[:MOST]] + more
