"""What rank 0 leaves in a file for the others to find it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from collx.errors import BootstrapError

LONGEST = 1 << 10


class Posted(NamedTuple):
    """Where rank 0 is (HOST:PORT), which job that is, and its secret in hexadecimal; "" where the ranks know it."""

    address: str
    job: str
    secret: str


@contextlib.contextmanager
def posted(path: str, what: Posted) -> Iterator[None]:
    """In the block it is there, all at once, for this user alone. What was there before is replaced."""
    draft = f"{path}.{os.urandom(8).hex()}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(" ".join(what))
        os.replace(draft, path)
    except OSError as error:
        raise BootstrapError(f"rank 0 cannot leave its address at {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def find_posted(path: str) -> Posted | None:
    """What is there, which may be of a job before that was killed; None where nothing is. Raises BootstrapError for
    what another user may have left, who would be let into the job, and for what is something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # whatever it turns out to be
        try:
            state, text = os.fstat(fd), os.read(fd, LONGEST).decode("ascii", "replace")
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BootstrapError(f"rank 0's address at {path} cannot be read: {error.strerror}") from error
    if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
        raise BootstrapError(f"{path} must be a file of this user with mode 0600, as rank 0 of a job leaves it")
    found = re.fullmatch(r"(\S+) ([0-9a-f]{16}) ((?:[0-9a-f]{64})?)", text)
    if found is None:
        raise BootstrapError(f"{path} is not what rank 0 of a job leaves there; give a path where nothing is")
    return Posted(*found.groups())
