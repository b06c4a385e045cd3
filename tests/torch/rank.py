"""A rank of a job of torch.distributed on collx that no launcher started: `-m MODULE RANK SIZE STORE`."""

from __future__ import annotations

import datetime
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist

RANK, SIZE, STORE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
TIMEOUT = datetime.timedelta(seconds=60)


@contextmanager
def world(name: str) -> Iterator[Any]:  # with a file of its own, which the last to leave removes
    dist.init_process_group("collx", init_method=f"file://{STORE}.{name}", rank=RANK, world_size=SIZE, timeout=TIMEOUT)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def same(found: Any, expected: Any) -> None:
    assert torch.equal(found, torch.as_tensor(expected, dtype=found.dtype).expand(found.shape)), (found, expected)


def raises(kind: type[BaseException], *words: str) -> Any:
    return pytest.raises(kind, match="".join(f"(?=.*{re.escape(word)})" for word in words))


def run(names: Mapping[str, Any]) -> None:
    """Run every check of a module, each in a world of its own, and print its name when it has passed."""
    for name, check in list(names.items()):
        if inspect.isfunction(check) and "group" in inspect.signature(check).parameters:
            with world(name) as group:
                check(group)
            print(name, flush=True)
