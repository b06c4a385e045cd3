"""collx's errors as torch's."""

from __future__ import annotations

import torch.distributed as dist

import collx


def as_torch(error: Exception) -> Exception:
    """The same error; if it is one of collx's between ranks, of a class that derives from torch's as well:
    programs catch either."""
    if isinstance(error, collx.CollxError) and not isinstance(error, dist.DistBackendError):
        error.__class__ = _both(type(error))
        if isinstance(error, collx.TimeoutError):  # torch's calls take none
            error.args = (str(error).replace("is timeout= too short?", "is the group's timeout too short?"),)
    return error


_classes: dict[type[collx.CollxError], type[collx.CollxError]] = {}


def _both(kind: type[collx.CollxError]) -> type[collx.CollxError]:
    if kind not in _classes:
        inside = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _classes[kind] = type(kind.__name__, (kind, dist.DistBackendError), inside)
    return _classes[kind]
