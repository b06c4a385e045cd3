"""Objects as bytes. They are unpickled only from ranks of this job, which have proved to each other that they are."""

from __future__ import annotations

import pickle as serializer
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import buffer


class Pickle:
    """How objects become bytes and bytes objects: by `dumps` and `loads`, pickle's where they are not given.

    Buffers of more than THRESHOLD bytes go beside the rest where `dumps_oob` is asked.
    """

    THRESHOLD = 262144

    def __init__(
        self,
        dumps: Callable[..., bytes] | None = None,
        loads: Callable[..., Any] | None = None,
        protocol: int | None = None,
        threshold: int | None = None,
    ) -> None:
        self._dumps, self._loads = dumps or serializer.dumps, loads or serializer.loads
        if protocol is None and self._dumps is serializer.dumps:
            protocol = serializer.HIGHEST_PROTOCOL
        self.PROTOCOL = protocol
        if threshold is not None:
            self.THRESHOLD = threshold

    def dumps(self, obj: Any) -> bytes:
        return self._dumps(obj) if self.PROTOCOL is None else self._dumps(obj, self.PROTOCOL)

    def loads(self, data: Any) -> Any:
        return self._loads(data)

    def dumps_oob(self, obj: Any) -> tuple[bytes, list[buffer]]:
        apart: list[buffer] = []

        def keep(one: serializer.PickleBuffer) -> bool:
            raw = one.raw()
            if raw.nbytes < self.THRESHOLD:
                return True
            apart.append(buffer.frombuffer(raw))
            return False

        protocol = 5 if self.PROTOCOL is None else max(self.PROTOCOL, 5)
        return self._dumps(obj, protocol, buffer_callback=keep), apart

    def loads_oob(self, data: Any, buffers: Iterable[Any]) -> Any:
        return self._loads(data, buffers=buffers)


pickle = Pickle()  # what every communicator uses


def dumped(obj: Any) -> Bytes:
    return np.frombuffer(pickle.dumps(obj), np.uint8)


def loaded(data: Bytes) -> Any:
    return pickle.loads(data)
