"""What a call asks for, in numbers only: the key of the plan cache, and all that choosing and lowering look at."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from collx.schedule import Builder
from collx.types import ReduceOp

Chosen = str | Builder  # an algorithm by its name, or a user's own function (rank, size[, root]) -> Schedule


class Request(NamedTuple):
    """One rank's call. `elements` holds each rank's block where the collective gives every rank one, and otherwise
    the whole buffer as one number; `given` holds all_to_all's input blocks. `shape` is what a user's op sees (empty
    for other ops): the buffer's, or for reduce_scatter a row's. `agreed`: all ranks know all of `elements`."""

    collective: str
    elements: tuple[int, ...]
    dtype: np.dtype[Any]
    algorithm: Chosen | None = None
    op: ReduceOp | None = None
    root: int = 0
    inplace: bool = False
    given: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    agreed: bool = True
    called: str = ""  # the method, where it is another than the collective's
    together: str = ""  # where it is several calls of a group packed into one: which

    @property
    def nbytes(self) -> int:
        """Bytes of the collective's buffer."""
        return sum(self.elements) * self.dtype.itemsize

    def largest_block(self, blocks: int) -> int:
        """Bytes of the largest block where an algorithm cuts the buffer into `blocks`."""
        largest = max(self.elements) if len(self.elements) == blocks else -(-self.elements[0] // blocks)
        return largest * self.dtype.itemsize

    @property
    def custom(self) -> bool:
        return self.op is not None and self.op.function is not None

    @property
    def ordered(self) -> bool:
        """Whether reductions must keep rank order."""
        return self.op is not None and not self.op.commutative

    @property
    def uniform(self) -> bool:
        """Whether all blocks are known to be of one size."""
        return self.agreed and len(set(self.elements)) <= 1
