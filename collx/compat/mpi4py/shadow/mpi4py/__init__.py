"""mpi4py's API on collx: there is no MPI behind it (docs/mpi4py.md of collx)."""

from __future__ import annotations

import sys
from typing import Any

__version__ = "4.1.2"  # whose API it follows
__all__ = ["MPI"]


class Rc:
    """Options, to be set before `mpi4py.MPI` is imported. Only `initialize` and `finalize` mean anything here."""

    initialize = True
    threads = True
    thread_level = "multiple"
    finalize: bool | None = None
    fast_reduce = True
    recv_mprobe = True
    irecv_bufsz = 32768
    errors = "exception"

    def __init__(self, **options: Any) -> None:
        self(**options)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(self, name):
            raise TypeError(f"object has no attribute {name!r}")
        super().__setattr__(name, value)

    def __call__(self, **options: Any) -> None:
        for name in options:
            if not hasattr(self, name):
                raise TypeError(f"unexpected argument {name!r}")
        for name, value in options.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"<{__name__}.rc>"


rc = Rc()
sys.modules[f"{__name__}.rc"] = rc  # type: ignore[assignment]  # so that `import mpi4py.rc` finds it


def get_config() -> dict[str, str]:
    """There is no MPI to tell of."""
    return {}


def get_include() -> str:
    raise NotImplementedError("mpi4py.get_include: collx's shim has no C API")


def profile(name: str, *, path: object = None) -> None:
    raise NotImplementedError("mpi4py.profile: collx's shim has no MPI profiling interface")
