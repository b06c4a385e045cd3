"""What the programs of this package have in common: how they take their arguments, and how they end."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import collx
from collx.errors import BootstrapError, CollxError, TransportError
from collx.perf.options import UsageError

Main = Callable[[list[str]], int]


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is a UsageError, and no option can be shortened."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def program(name: str) -> Callable[[Main], Main]:
    """Makes exit codes of what a `main` raises, after one line on stderr that begins with `name`: 2 for a mistake on
    the command line or in COLLX_*, 1 for all else that may fail. What is a bug stays an exception."""

    def ending(main: Main) -> Main:
        @functools.wraps(main)
        def ended(argv: list[str]) -> int:
            try:
                return main(argv)
            except BrokenPipeError:  # whoever read the output has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
                return 128 + signal.SIGPIPE
            except KeyboardInterrupt:
                return 128 + signal.SIGINT
            except (UsageError, CollxError, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2 if isinstance(error, UsageError | BootstrapError | TransportError) else 1

        return ended

    return ending


def in_job(ranks: int | None, check: Callable[[collx.Communicator], object], run: Callable[..., int]) -> int:
    """`run(comm)` in the job that this process belongs to. It must have so many `ranks`, if they are given. That, and
    what `check` raises, is a UsageError on all ranks, told when they have left: raised before, one that still joins
    would be told instead that another gave up."""
    with collx.init() as comm:
        comm.barrier()
        try:
            if ranks not in (None, comm.size):
                raise UsageError(f"-n {ranks} inside a job of {comm.size} ranks; leave -n out")
            check(comm)
        except UsageError as error:
            mistake = error
        else:
            return run(comm)
    raise mistake
