"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests import hosts, jobs

# Shells start background jobs with Ctrl-C ignored, which every process under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_tuning_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """By the user's own, jobs would choose otherwise."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        patch.setitem(jobs.CLEAN, "XDG_CACHE_HOME", folder)
        yield


def joined(count: int, factory: pytest.TempPathFactory) -> Iterator[hosts.Hosts]:
    if reason := hosts.missing():
        pytest.skip(f"no other hosts: {reason}")
    with hosts.joined(count, factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Hosts]:
    yield from joined(2, tmp_path_factory)


@pytest.fixture(scope="module")
def four_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Hosts]:
    yield from joined(4, tmp_path_factory)


@pytest.fixture
def faulty_hosts(two_hosts: hosts.Hosts) -> hosts.Hosts:
    """Two hosts, for tests that use `fault` or `cut_off`."""
    if hosts.packet_filter() is None:
        pytest.skip("no faults: nft is missing; `make test` brings it, or on Debian: apt install nftables")
    return two_hosts
