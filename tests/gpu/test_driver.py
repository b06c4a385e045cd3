"""The driver of this machine does what collx relies on, and so what was seen on the stand-in holds."""

from __future__ import annotations

from typing import Any

import collx
from collx.transports.cuda.driver import driver
from tests.cuda import conformance, on_libcuda


def _alone(_: Any) -> None:
    found = driver()
    for check in conformance.ALONE:
        with found.on(0):
            check(found)


def _between(comm: Any) -> None:
    conformance.between(comm, driver())


def test_the_driver_conforms() -> None:
    collx.spawn(_alone, 1)


def test_it_conforms_between_processes() -> None:
    collx.spawn(_between, 2)


def test_calls_on_memory_that_no_library_made() -> None:
    collx.spawn(on_libcuda.everything, 2)
