"""What rank 0 leaves in a file for the others to find it."""

from __future__ import annotations

import contextlib
import os
import re
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
    """What is there, which may be of a job before that was killed; None where nothing is."""
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BootstrapError(f"rank 0's address at {path} cannot be read: {error.strerror}") from error
    found = re.fullmatch(r"(\S+) ([0-9a-f]{16}) ((?:[0-9a-f]{64})?)", text)
    if found is None:
        raise BootstrapError(f"{path} is not what rank 0 of a job leaves there; give a path where nothing is")
    return Posted(*found.groups())
