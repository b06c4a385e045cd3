"""torch.distributed on collx: `torch.distributed.init_process_group("collx")`, once collx is installed beside torch.

torch itself calls `register`, by collx's entry point, whenever it is imported; or import this module. What the backend
needs is imported when a group is made, so that importing torch costs no more than before, and goes well whatever is
wrong with collx.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

NAME = "collx"
DEVICES = ["cpu", "cuda"]


def register() -> None:
    """Make the backend known to torch.distributed, and have its env:// find the ranks that collx finds. Idempotent."""
    import torch.distributed as dist

    if not dist.is_available() or NAME in dist.Backend.backend_list:
        return
    dist.Backend.register_backend(NAME, _create, extended_api=True, devices=DEVICES)
    try:  # torch has no public way
        from torch.distributed.rendezvous import _rendezvous_handlers as handlers
    except ImportError:
        return
    if "env" in handlers:
        handlers["env"] = partial(_meet, handlers["env"])


def _create(place: Any, options: Any) -> Any:
    from collx.compat.torch.group import CollxGroup

    return CollxGroup.join(place, options)


def _meet(usual: Any, url: str, **options: Any) -> Any:
    """torch's env://, for every backend: where torch's own variables are set collx is not even imported."""
    told = not {"MASTER_ADDR", "MASTER_PORT"}.isdisjoint(os.environ)
    if told and f"{__name__}.launch" not in sys.modules:
        return usual(url, **options)
    from collx.compat.torch.launch import meet

    return meet(usual, url, **options)


register()
