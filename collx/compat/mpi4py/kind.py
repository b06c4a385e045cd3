"""What datatypes are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from collx.compat.mpi4py.handle import Kept
from collx.compat.mpi4py.layout import Layout

# The elements by the codes of struct and NumPy, as NumPy has them.
DTYPES: dict[str, np.dtype[Any]] = {code: np.dtype(code) for code in "?bhilqBHILQefdgFDG"}
DTYPES |= {"p": np.dtype("l"), "c": np.dtype("S1"), "U": np.dtype("U1")}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)

# The predefined datatypes, which predefined.py enters: by their names, and those that have one by such codes.
CONSTANTS: dict[str, Any] = {}
CODES: dict[str, Any] = {}


class Kind(Kept):
    """What a datatype is: how it was made, and where its bytes lie, which is found out when it is asked for."""

    def __init__(
        self,
        made: Callable[[], Layout],
        name: str = "",
        code: str | None = None,
        combiner: str = "NAMED",
        of: Kind | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._made, self.name, self.code = made, name, code
        self.combiner, self.of, self.arguments = combiner, of, arguments or {}
        self.attributes: dict[int, Any] = {}

    @cached_property
    def layout(self) -> Layout:
        return self._made()

    @cached_property
    def dtype(self) -> np.dtype[Any] | None:
        """The elements as NumPy has them; None for what is no number."""
        return DTYPES.get(self.code or "")

    @cached_property
    def size(self) -> int:
        return self.layout.size

    @cached_property
    def extent(self) -> int:
        return self.layout.extent

    @cached_property
    def dense(self) -> bool:
        return self.layout.dense

    @cached_property
    def pair(self) -> np.dtype[Any] | None:
        """A value and an index, as NumPy has them, for MINLOC and MAXLOC."""
        if self.combiner == "DUP" and self.of is not None:
            return self.of.pair
        return self.arguments.get("pair")
