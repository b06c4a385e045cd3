"""Mutual TLS 1.3 beneath the connections of a job, where COLLX_TLS=1 asks for it: who shows which certificate, and whom
it trusts. What is said inside, the proof that both know the job's secret above all, is the same as without."""

from __future__ import annotations

import datetime
import functools
import hmac
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collx.errors import BootstrapError
from collx.transports.connections.secret import INSECURE

if TYPE_CHECKING:  # ssl takes long to import, and most jobs do without
    import ssl

TLS, CERT, KEY, CA = "COLLX_TLS", "COLLX_TLS_CERT", "COLLX_TLS_KEY", "COLLX_TLS_CA"
_BEGINNING, _END = datetime.datetime(2000, 1, 1), datetime.datetime(9999, 12, 31)  # a secret has no date


@dataclass(frozen=True, slots=True)
class Tls:
    """How this process meets others, as the one who connects and as the one who answers."""

    connects: ssl.SSLContext
    answers: ssl.SSLContext

    def connected(self, connection: socket.socket) -> socket.socket:
        """What to use in place of a nonblocking TCP socket, which is the callee's from then on, of one that has
        connected. It may be written to at once, and ends where the other side is not to be trusted."""
        from collx.transports.connections.relay import relayed

        return relayed(connection, self.connects, answers=False)

    def accepted(self, connection: socket.socket) -> socket.socket:
        """The same of one that was connected to."""
        from collx.transports.connections.relay import relayed

        return relayed(connection, self.answers, answers=True)


def find_tls(environ: Mapping[str, str], secret: bytes) -> Tls | None:
    """TLS as the environment asks for it; None where it does not.

    COLLX_TLS=1 asks. COLLX_TLS_CERT, COLLX_TLS_KEY and COLLX_TLS_CA are PEM files: this host's certificate with its
    chain, its key (mode 0600), and whose certificates are trusted. Without them key and certificate are made from the
    secret, the same on every rank, which takes the package cryptography. Raises BootstrapError for what is half-set or
    cannot be used.
    """
    given = [name for name in (CERT, KEY, CA) if environ.get(name)]
    asked = environ.get(TLS, "0") or "0"
    if asked not in ("0", "1"):
        raise BootstrapError(f"{TLS} is {asked!r}, but must be 1, for TLS between hosts, or unset")
    if asked == "0":
        if given:
            raise BootstrapError(f"{given[0]} is set, but {TLS} is not 1; set it on all ranks, or unset the first")
        return None
    if not given:
        if environ.get(INSECURE, "0") not in ("", "0"):
            raise BootstrapError(
                f"{TLS}=1 and {INSECURE}=1 are set: keys made of no secret protect nothing; give files"
            )
        return _of_secret(secret)
    missing = [name for name in (CERT, KEY, CA) if name not in given]
    if missing:
        raise BootstrapError(
            f"{given[0]} is set, but {missing[0]} is not; give {CERT}, {KEY} and {CA}, or none of them"
        )
    return _of_files(*(environ[name] for name in (CERT, KEY, CA)))


def why(connection: socket.socket) -> str:
    """Why TLS has ended a connection; "" where it has not, or there is none."""
    found: str = getattr(getattr(connection, "fate", None), "why", "")
    return found


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel give up a connection soon whose peer's host cannot be reached, as the native engine does where
    there is no TLS. Only for what is always read."""
    if (fate := getattr(connection, "fate", None)) is not None:
        fate.keep_alive()


def finish() -> None:
    """Return when what was written to connections that are closed by now has gone out, or cannot, within seconds."""
    import sys

    if (relay := sys.modules.get("collx.transports.connections.relay")) is not None:
        relay.finish()


@functools.lru_cache(maxsize=4)
def _of_files(cert: str, key: str, ca: str) -> Tls:
    import ssl

    for name, path in ((CERT, cert), (KEY, key), (CA, ca)):
        try:
            state = os.stat(path)
            with open(path, "rb"):
                pass
        except OSError as error:
            raise BootstrapError(f"{name} is {path!r}, which cannot be read: {error.strerror}") from None
        if name == KEY and (state.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(state.st_mode) & 0o077):
            raise BootstrapError(f"{KEY}: others than this user can read {path}; make it yours, with `chmod 600`")
    try:
        return _contexts(cert, key, cafile=ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise BootstrapError(f"{CERT}, {KEY} and {CA} are no certificate, its key and an authority: {reason}") from None


@functools.lru_cache(maxsize=4)
def _of_secret(secret: bytes) -> Tls:
    cert, key = _made(hmac.digest(secret, b"collx/1 TLS key", "sha256"))
    fd = os.memfd_create("collx-tls")  # ssl reads keys from files only
    try:
        os.write(fd, key + cert)
        return _contexts(f"/proc/self/fd/{fd}", None, cadata=cert.decode())
    finally:
        os.close(fd)


def _made(seed: bytes) -> tuple[bytes, bytes]:
    """A certificate that trusts itself, and its key, as PEM: always the same for the same seed."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise BootstrapError(
            f"{TLS}=1 without {CERT}, {KEY} and {CA} makes its own, which needs the package cryptography: pip install"
            f" 'collx[tls]' ({error})"
        ) from None
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a job of collx")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(_BEGINNING).not_valid_after(_END)
    cert = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, None)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return cert.public_bytes(serialization.Encoding.PEM), private


def _contexts(cert: str, key: str | None, cafile: str | None = None, cadata: str | None = None) -> Tls:
    import ssl

    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # who it is it proves by the secret; here, that it belongs to the job
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # ranks say goodbye themselves, and close one direction first
        if protocol is ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # nobody comes back
        context.load_cert_chain(cert, key, password=bytes)  # not asked for at a terminal
        context.load_verify_locations(cafile, cadata=cadata)
        contexts.append(context)
    return Tls(*contexts)
