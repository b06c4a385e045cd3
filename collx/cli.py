"""The `collx` command. A mistake in its use is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from collx.errors import BootstrapError, TransportError

if TYPE_CHECKING:
    from collx.launcher import Share

USAGE = """\
usage: collx COMMAND [OPTIONS]

  run      start a program on several ranks, of this host or of several
  perf     measure collectives, in nccl-tests' columns
  tune     measure which algorithm is the fastest at which size, for later jobs to choose by
  explain  say which algorithm is chosen, why, and what is known of the others
  verify   prove the algorithms' schedules
  topo     draw this machine, or another, and who sits where on it

`collx COMMAND --help` tells a command's options, `collx --version` the version."""


TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # processes, pipes or memory


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake takes one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv`, by default the process's arguments, names; the exit code."""
    _open_standard_streams()
    try:
        try:
            return _command_of(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
            return 128 + signal.SIGPIPE
        print(f"collx: {error.strerror}", file=sys.stderr)
        return 1


def _open_standard_streams() -> None:
    """Where a parent closed some: what is opened next must not be taken for one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        name = ("stdin", "stdout", "stderr")[fd]
        setattr(sys, name, open(fd, "w" if fd else "r"))  # noqa: SIM115
    os.close(fd)


def _command_of(arguments: list[str]) -> int:
    if not arguments:
        print(f"collx: which command? there are {', '.join(COMMANDS)} (see collx --help)", file=sys.stderr)
        return 2
    name, *rest = arguments
    if name == "help" and rest and rest[0] in COMMANDS:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if name == "--version":
        print(f"collx {_version()}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(COMMANDS)} (see collx --help)"
        print(f"collx: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return COMMANDS[name](rest)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("collx")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def _run(argv: list[str]) -> int:
    from collx import bootstrap, launcher

    parser = _run_parser()
    options = parser.parse_args(argv)
    n, share = _ranks(parser, options)
    command = _command(parser, options.program, options.module)
    if options.secret_file is not None:
        os.environ["COLLX_SECRET_FILE"] = os.path.abspath(options.secret_file)
    if options.tls:
        os.environ["COLLX_TLS"] = "1"
    if options.mpi4py:
        shadow = os.path.join(os.path.dirname(__file__), "compat", "mpi4py", "shadow")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [shadow, os.environ.get("PYTHONPATH")]))
    try:
        place = bootstrap.Place(0, n, 0, "", n) if share is None else share.place(0, n)
        bootstrap.find_transport(place, os.environ)  # no need for every rank to say it
        return launcher.launch(command, n, tag=options.tag == "on", keep_going=options.keep_going, share=share)
    except (TransportError, BootstrapError) as error:
        parser.error(str(error))
    except OSError as error:
        if error.filename is not None:
            parser.error(f"cannot start {command[0]}: {error.strerror}")
        if error.errno in TOO_MANY:
            parser.error(f"cannot start {n} ranks here: {error.strerror}")
        raise


def _ranks(parser: Parser, options: argparse.Namespace) -> tuple[int, Share | None]:
    """How many ranks to start here, and which they are where they are not the whole job."""
    from collx import jobs
    from collx.launcher import Share

    n, nodes = options.n, options.nnodes
    if n is not None and n < 1:
        parser.error(f"-n {n}: a job has at least one rank")
    if nodes < 1:
        parser.error(f"--nnodes {nodes}: a job is on at least one host")
    if nodes == 1:
        return n or len(os.sched_getaffinity(0)), None
    for name in ("n", "node_rank", "rendezvous"):  # nothing that could differ between hosts is guessed
        if getattr(options, name) is None:
            flag = f"-{'-' * (len(name) > 1)}{name}".replace("_", "-")
            parser.error(f"--nnodes {nodes} wants {flag} too; the same on every host, but for --node-rank")
    if not 0 <= options.node_rank < nodes:
        parser.error(f"--node-rank {options.node_rank}: with --nnodes {nodes} it goes from 0 to {nodes - 1}")
    meeting = jobs.full_name(options.rendezvous)
    if not meeting.startswith(("tcp:", "file:")):
        parser.error(f"--rendezvous {options.rendezvous!r} is no HOST:PORT, an address of the host with --node-rank 0")
    return n, Share(options.node_rank * n, nodes * n, meeting)


def _run_parser() -> Parser:
    parser = Parser(
        prog="collx run",
        usage="collx run [-n N] [--nnodes M --node-rank R --rendezvous HOST:PORT] [--secret-file FILE] [--tls]"
        " [--mpi4py] [--tag on|off] [--keep-going] (PROGRAM | -m MODULE) [ARGUMENTS]",
        description="Start a program as N ranks on this host, or on each of M hosts by a command on each. A .py file,"
        " and a directory or archive with a __main__.py, is run by this Python.",
        epilog="The exit code is that of the rank that failed first, 128 + the signal's number if one killed it.",
        allow_abbrev=False,
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("-n", type=int, help=f"number of ranks on this host (default: usable cores, {cores} here)")
    parser.add_argument("--nnodes", type=int, default=1, metavar="M", help="number of hosts, each with N ranks")
    parser.add_argument("--node-rank", type=int, metavar="R", help="which of them this is, from 0; it has ranks R*N on")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="where the first host's rank 0 is to listen")
    parser.add_argument("--secret-file", metavar="FILE", help="32 random bytes, mode 0600, the same on every host")
    parser.add_argument("--tls", action="store_true", help="encrypt what ranks of different hosts say to each other")
    parser.add_argument("--mpi4py", action="store_true", help="`from mpi4py import MPI` is then collx, with no MPI")
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
    if _is_for_python(name):
        return [sys.executable, name, *arguments]
    found = shutil.which(name)
    if found is None:
        lacks = "; it is a directory without a __main__.py" if os.path.isdir(name) else ""
        parser.error(f"there is no program {name!r}{lacks}")
    return [found, *arguments]


def _is_for_python(name: str) -> bool:
    """Whether it is a script, or a directory or an archive that Python runs by its __main__.py."""
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, "__main__.py"))
    return os.path.isfile(name) and (name.endswith((".py", ".pyz", ".zip")) or not os.access(name, os.X_OK))


def _perf(argv: list[str]) -> int:
    from collx.perf.sweep import main as sweep

    return sweep(argv)


def _tune(argv: list[str]) -> int:
    from collx.perf.tune import main as tune

    return tune(argv)


def _explain(argv: list[str]) -> int:
    from collx.explaining import main as explain

    return explain(argv)


def _verify(argv: list[str]) -> int:
    from collx.verify import main as prove

    return prove(argv)


def _topo(argv: list[str]) -> int:
    from collx.topology.command import main as draw

    return draw(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "perf": _perf,
    "tune": _tune,
    "explain": _explain,
    "verify": _verify,
    "topo": _topo,
}
