"""Where the job's secret is found, and what is refused as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import collx
from collx.transports.connections import secret
from collx.transports.connections.secret import find_secret, lend_secret, need_secret, new_secret

RAW = bytes(range(200, 232))


def written(path: Path, content: bytes, mode: int = 0o600) -> dict[str, str]:
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(content)
    return {"COLLX_SECRET_FILE": str(path)}


@pytest.mark.parametrize("content", [RAW, RAW.hex().encode(), RAW.hex().upper().encode() + b"\n"])
def test_a_file_holds_it_raw_or_in_hexadecimal(tmp_path: Path, content: bytes) -> None:
    assert find_secret(written(tmp_path / "secret", content)) == RAW


@pytest.mark.parametrize("content", [b"", RAW[:31], RAW + b"\n", b"x" * 64, RAW.hex().encode()[:62], RAW * 4])
def test_what_is_no_secret_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(collx.BootstrapError, match="must hold 32 random bytes, or 64 hexadecimal digits") as caught:
        find_secret(written(tmp_path / "secret", content))
    assert RAW.hex()[:8] not in str(caught.value).lower()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(collx.BootstrapError, match="chmod 600"):
        find_secret(written(tmp_path / "secret", RAW, mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    environ = written(tmp_path / "secret", RAW)
    os.chown(tmp_path / "secret", 12345, 12345)
    with pytest.raises(collx.BootstrapError, match="others than this user can read"):
        find_secret(environ)


def test_what_is_no_file_is_one_error_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(collx.BootstrapError, match="is not a file"):
        find_secret({"COLLX_SECRET_FILE": str(tmp_path / "pipe")})
    with pytest.raises(collx.BootstrapError, match="cannot be read: No such file"):
        find_secret({"COLLX_SECRET_FILE": str(tmp_path / "none")})
    read, write = os.pipe()
    with pytest.raises(collx.BootstrapError, match="is not a file's"):
        find_secret({"COLLX_SECRET_FD": str(read)})
    os.close(read)
    os.close(write)
    with pytest.raises(collx.BootstrapError, match="cannot be read: Bad file descriptor"):
        find_secret({"COLLX_SECRET_FD": str(read)})
    with pytest.raises(collx.BootstrapError, match="not the number of a descriptor"):
        find_secret({"COLLX_SECRET_FD": "three"})


def test_a_descriptor_is_inherited_by_every_rank_and_no_further() -> None:
    """As `collx run` passes it: to processes that then start others."""
    own = new_secret()
    fd = lend_secret(own)
    program = (
        "import os, subprocess, sys\n"
        "from collx.transports.connections.secret import find_secret\n"
        "found = find_secret(os.environ)\n"
        "inner = subprocess.run(['test', '-e', f'/proc/self/fd/{os.environ[\"COLLX_SECRET_FD\"]}'], close_fds=False)\n"
        "sys.stdout.buffer.write(found + bytes([inner.returncode]))\n"
    )
    environ = {**os.environ, "COLLX_SECRET_FD": str(fd)}
    for _ in range(2):
        rank = subprocess.run([sys.executable, "-c", program], env=environ, pass_fds=[fd], capture_output=True)
        assert rank.stdout == own + b"\1", rank.stderr.decode()
    with pytest.raises(PermissionError):
        os.pwrite(fd, bytes(32), 0)
    os.close(fd)
    assert own.hex() not in str(environ)


def test_no_more_than_one_may_be_given(tmp_path: Path) -> None:
    environ = {**written(tmp_path / "secret", RAW), "COLLX_INSECURE": "1"}
    with pytest.raises(collx.BootstrapError, match="COLLX_SECRET_FILE and COLLX_INSECURE are set"):
        find_secret(environ)
    assert find_secret({**environ, "COLLX_INSECURE": "0"}) == RAW


def test_none_is_refused_with_the_ways_to_give_one() -> None:
    assert find_secret({}) is None
    with pytest.raises(
        collx.BootstrapError, match=r"rank 3.*`collx run --secret-file.*COLLX_SECRET_FILE.*COLLX_INSECURE=1"
    ):
        need_secret({}, 3)
    assert need_secret({"COLLX_INSECURE": "1"}, 3) == secret.KNOWN_TO_ALL
    with pytest.raises(collx.BootstrapError, match="COLLX_INSECURE is 'yes', but must be 1"):
        need_secret({"COLLX_INSECURE": "yes"}, 3)


def test_secrets_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(new_secret()) == 32
