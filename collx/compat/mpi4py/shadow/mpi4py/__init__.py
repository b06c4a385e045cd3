"""mpi4py's API on collx: there is no MPI behind it (docs/mpi4py.md of collx)."""

from __future__ import annotations

import os
import sys
from typing import Any

__version__ = "4.1.2"  # whose API it follows
__all__ = ["MPI"]


_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")


def _read(text: str, default: Any) -> Any:
    """What an option's variable says. Raises ValueError."""
    if isinstance(default, str):
        return text
    if type(default) is int:
        return int(text)
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"neither of {', '.join(_TRUE)} nor of {', '.join(_FALSE)}")
    return text.lower() in _TRUE


class Rc:
    """Options, to be set before `mpi4py.MPI` is imported, in programs or, as MPI4PY_RC_INITIALIZE and so on, in the
    environment. `threads`, `thread_level`, `fast_reduce` and `recv_mprobe` mean nothing here."""

    initialize = True
    threads = True
    thread_level = "multiple"
    finalize: bool | None = None
    fast_reduce = True
    recv_mprobe = True
    irecv_bufsz = 32768
    errors = "exception"

    def __init__(self, **options: Any) -> None:
        for name in filter(str.islower, dir(type(self))):
            text = None if name.startswith("_") else os.environ.get(f"MPI4PY_RC_{name.upper()}")
            if text is not None:
                try:
                    setattr(self, name, _read(text, getattr(self, name)))
                except ValueError as error:
                    raise ValueError(f"MPI4PY_RC_{name.upper()}={text}: {error}") from None
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
