"""The `collx` command. A mistake in its use is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

USAGE = """\
usage: collx COMMAND [OPTIONS]

  run      start a program on several ranks of this host
  perf     measure collectives, in nccl-tests' columns
  verify   prove the algorithms' schedules

`collx COMMAND --help` tells a command's options, `collx --version` the version."""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake takes one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv`, by default the process's arguments, names; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"collx {_version()}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"collx: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](rest)
    except KeyboardInterrupt:
        return 130


def _version() -> str:
    try:
        return version("collx")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def _run(argv: list[str]) -> int:
    from collx import launcher

    parser = _run_parser()
    options = parser.parse_args(argv)
    if options.n < 1:
        parser.error(f"-n {options.n}: a job has at least one rank")
    command = _command(parser, options.program, options.module)
    try:
        return launcher.launch(command, options.n, tag=options.tag == "on", keep_going=options.keep_going)
    except OSError as error:
        parser.error(f"cannot start {command[0]}: {error.strerror}")


def _run_parser() -> Parser:
    parser = Parser(
        prog="collx run",
        usage="collx run [-n N] [--tag on|off] [--keep-going] (PROGRAM | -m MODULE) [ARGUMENTS]",
        description="Start a program as N ranks on this host. A .py file is run by this Python.",
        epilog="The exit code is that of the rank that failed first, 128 + the signal's number if one killed it.",
        allow_abbrev=False,
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("-n", type=int, default=cores, help=f"number of ranks (default: usable cores, {cores} here)")
    parser.add_argument("--tag", choices=("on", "off"), default="on", help="start each line of output with [rank]")
    parser.add_argument("--keep-going", action="store_true", help="let the other ranks run on when one fails")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module, as python -m does")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="program and its arguments")
    return parser


def _command(parser: Parser, program: list[str], module: list[str] | None) -> list[str]:
    if module is not None:
        if not module:
            parser.error("-m needs the name of a module")
        return [sys.executable, "-m", *module]
    if program and program[0] == "--":
        program = program[1:]
    if not program:
        parser.error("there is no program to run")
    name, *arguments = program
    if name in ("python", "python3"):  # the one that has collx, whatever the PATH says
        return [sys.executable, *arguments]
    if os.path.isfile(name) and (name.endswith(".py") or not os.access(name, os.X_OK)):
        return [sys.executable, name, *arguments]
    found = shutil.which(name)
    if found is None:
        parser.error(f"there is no program {name!r}")
    return [found, *arguments]


def _perf(argv: list[str]) -> int:
    from collx.perf.sweep import main as sweep

    return sweep(argv)


def _verify(argv: list[str]) -> int:
    from collx.verify import main as prove

    return prove(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {"run": _run, "perf": _perf, "verify": _verify}
