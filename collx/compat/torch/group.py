"""The ProcessGroup: collx's communicator as torch.distributed knows it."""

from __future__ import annotations

import contextlib
import datetime
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

import collx
from collx.compat.torch.collectives import Collectives
from collx.compat.torch.errors import as_torch
from collx.compat.torch.messages import Messages

CPU = torch.device("cpu")


class CollxGroup(Collectives, Messages, dist.ProcessGroup):  # type: ignore[misc]
    """The ranks of one torch.distributed group, with a communicator of their own."""

    # What torch asks of a backend, which a group in Python is as well.
    supports_splitting = supports_shrinking = supports_coalescing = supports_time_estimate = False

    def __init__(self, comm: collx.Communicator, name: str, timeout: datetime.timedelta, store: Any) -> None:
        dist.ProcessGroup.__init__(self, comm.rank, comm.size)
        super().__init__(comm, name)
        self._name, self._description, self._store = name, "undefined", store
        self._splits = 0
        self.options = Options(timeout)

    @classmethod
    def join(cls, place: Any, options: Any) -> CollxGroup:
        """What torch calls for each group, on its members alone, with what it knows of the group."""
        if options is not None:
            warnings.warn(f"collx's groups have no options: {options!r} is not made use of", UserWarning, stacklevel=2)
        unsaid = sys._getframe(2).f_locals  # of torch's helper: what it does not pass on
        _refuse_others(unsaid.get("backend_config"))
        size, seconds, label = place.group_size, place.timeout.total_seconds(), f"group {place.group_id}"
        # Of the world torch gives no ranks, nor of groups that programs make as they please, beside torch's world.
        ranks = place.global_ranks_in_group or (range(size) if unsaid.get("group_desc") == "default_pg" else None)
        try:
            comm = collx.from_store(place.store, place.group_rank, size, seconds, label=label, job_ranks=ranks)
        except collx.CollxError as error:
            as_torch(error)
            raise
        return cls(comm, place.group_id, place.timeout, place.store)

    def split_group(
        self,
        ranks: Sequence[int],
        timeout: datetime.timedelta | None = None,
        opts: object = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: object = None,
    ) -> CollxGroup | None:
        """A group of these ranks of this one, in this one's order; None on the others. Collective among all."""
        self._splits += 1
        label = f"split {self._splits}"
        if self.comm.rank not in ranks:
            return None
        name, timeout = group_name or f"{self._name}, {label}", timeout or self.options._timeout
        with self.alone():
            comm = self.comm.subgroup(sorted(ranks), label)
        comm.timeout = timeout.total_seconds()
        made = type(self)(comm, name, timeout, dist.PrefixStore(name, self._store))
        made.setGroupDesc(group_desc or self._description)
        return made

    def merge_remote_group(self, store: object, size: int, *_: object, **__: object) -> None:
        raise NotImplementedError(
            "collx has no ProcessGroup.merge_remote_group: make a group of all ranks, and new_group"
        )

    # -- its names, by all the ways in which torch asks for them --------------------------------------

    def name(self) -> str:
        return "collx"

    getBackendName = _get_backend_name = name

    def getGroupName(self) -> str:
        return self._name

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupDesc(self) -> str:
        return self._description

    def setGroupDesc(self, description: str) -> None:
        self._description = description

    group_name, _set_group_name = property(getGroupName), setGroupName
    group_desc, _set_group_desc = property(getGroupDesc), setGroupDesc

    def get_group_store(self) -> Any:
        return self._store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} on {self.comm!r}>"

    # -- what it is, as a backend ---------------------------------------------------------------------

    @property
    def _device_types(self) -> list[torch.device]:
        return [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]

    def _get_backend(self, device: torch.device) -> CollxGroup:
        if device.type not in [kind.type for kind in self._device_types]:
            raise RuntimeError(f"{self!r} has no backend for device {device}")
        return self

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        return False

    def _set_default_timeout(self, timeout: datetime.timedelta) -> None:
        self.comm.timeout = timeout.total_seconds()
        self.options._timeout = timeout

    set_timeout = _set_default_timeout

    def _set_sequence_number_for_group(self) -> None: ...

    # -- its end --------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Leave the group, when what is under way has ended."""
        self._waiter.close()
        self._glancing.close()
        self.comm.close()

    def abort(self) -> None:
        """Leave the group at once: what is under way fails, on the other ranks too."""
        with contextlib.suppress(collx.ClosedError):
            self.comm.revoke()
        self.shutdown()


class Options:
    """What torch reads of a backend's options."""

    def __init__(self, timeout: datetime.timedelta) -> None:
        self._timeout = timeout


def _refuse_others(config: Any) -> None:
    """Raise ValueError where another backend was asked for as well, as in "cpu:collx,cuda:nccl"."""
    devices = config.get_device_backend_map() if config is not None else {}
    others = sorted({backend for backend in devices.values() if backend != "collx"})
    if others:
        raise ValueError(
            f"backend is {config!r}, but a backend in Python gets all devices of its group, so that {', '.join(others)}"
            f' would never be asked; make a group for each, as by new_group(backend="{others[0]}")'
        )
