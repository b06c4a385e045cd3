"""torch.distributed on collx: `torch.distributed.init_process_group("collx")`, once collx is installed beside torch.

torch itself calls `register`, by collx's entry point, whenever it is imported; or import this module.
"""

from __future__ import annotations

from typing import Any

NAME = "collx"
DEVICES = ["cpu", "cuda"]


def register() -> None:
    """Make the backend known to torch.distributed. Idempotent; what it needs is imported when a group is made."""
    import torch.distributed as dist

    if dist.is_available() and NAME not in dist.Backend.backend_list:
        from collx.compat.torch import launch

        dist.Backend.register_backend(NAME, _create, extended_api=True, devices=DEVICES)
        launch.extend()


def _create(place: Any, options: Any) -> Any:
    from collx.compat.torch.group import CollxGroup

    return CollxGroup.join(place, options)


register()
