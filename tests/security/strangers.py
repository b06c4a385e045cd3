"""What strangers do at a rank's door, each attack in a thread: `python -m tests.security.strangers HOST PORT SAID`.

They know all but the secret, and what a rank once SAID there, in hexadecimal. Prints how many connections
they made, and how many of those were let in.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from collx.errors import BootstrapError
from collx.transports.connections.handshake import CONTROL, DATA, FRAME_BYTES, HELLO, PROOF, STORE, WELCOME, Identity
from collx.transports.connections.secret import KNOWN_TO_ALL, new_secret
from collx.transports.connections.visit import visit

LONG = 60.0
Address = tuple[str, int]


class Strangers:
    def __init__(self, address: Address, overheard: bytes) -> None:
        self.address = address
        self.hello, self.proof = overheard[:FRAME_BYTES], overheard[FRAME_BYTES:]
        self.connections = self.admitted = 0
        self.lock = threading.Lock()

    def attacks(self) -> dict[str, Callable[[], None]]:
        return {
            "wrong secret": self.wrong_secret,
            "replay": self.replay,
            "reflection": self.reflection,
            "200 idle sockets": self.idle,
            "one byte a second": self.dribble,
            "lengths of 2^63": self.lengths,
            "an HTTP request": self.http,
            "a TLS hello": self.tls,
            "random bytes": self.noise,
            "a reset in mid-handshake": self.resets,
        }

    def connected(self) -> socket.socket:
        with self.lock:
            self.connections += 1
        return socket.create_connection(self.address, timeout=LONG)

    def say(self, *words: bytes) -> None:
        """Say this, one after the other, each when there was an answer to the one before; until hung up on."""
        with self.connected() as connection, contextlib.suppress(ConnectionError):
            for word in words:
                connection.sendall(word)
                answer = connection.recv(FRAME_BYTES, socket.MSG_WAITALL)
                self.judge(answer)
                if not answer:
                    return
            while answer := connection.recv(FRAME_BYTES):
                self.judge(answer)

    def judge(self, answer: bytes) -> None:
        if answer.startswith(WELCOME):
            with self.lock:
                self.admitted += 1

    def wrong_secret(self) -> None:
        for secret in (new_secret(), KNOWN_TO_ALL, bytes(32)):
            for purpose in (STORE, CONTROL, DATA):
                with self.lock:
                    self.connections += 1
                with contextlib.suppress(BootstrapError):
                    visit(
                        self.address, secret, Identity(b"collx.Store", 1, 64), 0, purpose, 0, time.monotonic() + LONG
                    ).close()
                    with self.lock:
                        self.admitted += 1

    def replay(self) -> None:
        self.say(self.hello, self.proof)
        self.say(self.hello + self.proof)

    def reflection(self) -> None:
        """Give back what the door itself says, as a proof and as a hello."""
        with self.connected() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(self.hello)
            challenge = connection.recv(FRAME_BYTES, socket.MSG_WAITALL)
            connection.sendall(PROOF + challenge[len(PROOF) :])
            self.judge(connection.recv(FRAME_BYTES))
        self.say(challenge)

    def idle(self) -> None:
        connections = [self.connected() for _ in range(200)]
        for connection in connections:
            with connection, contextlib.suppress(ConnectionError):
                self.judge(connection.recv(FRAME_BYTES))

    def dribble(self) -> None:
        with self.connected() as connection, contextlib.suppress(ConnectionError):
            connection.settimeout(1.0)
            for byte in self.hello:
                connection.sendall(bytes([byte]))
                try:
                    if not connection.recv(1):
                        return
                except TimeoutError:
                    continue

    def lengths(self) -> None:
        for huge in (1 << 63, (1 << 64) - 1):
            self.say(struct.pack("!Q", huge) * 32)
            self.say(struct.pack("!BIQ", 1, 0xFFFFFFFF, huge))  # a store's question
            self.say(HELLO + struct.pack("!Q", huge) * 31)
            self.say(HELLO + bytes([STORE]) + struct.pack("!Q", huge) * 2 + bytes(FRAME_BYTES - 25))

    def http(self) -> None:
        with self.lock:
            self.connections += 1
        client = http.client.HTTPConnection(*self.address, timeout=LONG)
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            client.request("GET", "/")
            client.getresponse()
        client.close()

    def tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.connected() as connection, contextlib.suppress(OSError):
            context.wrap_socket(connection)

    def noise(self) -> None:
        for _ in range(10):
            self.say(os.urandom(1 << 20))
            self.say(HELLO + os.urandom(FRAME_BYTES - len(HELLO)), os.urandom(FRAME_BYTES))
            self.say(self.hello, PROOF + os.urandom(FRAME_BYTES - len(PROOF)))

    def resets(self) -> None:
        for said in (b"", self.hello[:100], self.hello):
            for _ in range(5):
                with self.connected() as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.sendall(said)
                    if said == self.hello:
                        connection.recv(FRAME_BYTES, socket.MSG_WAITALL)


def main() -> None:
    host, port, overheard = sys.argv[1:]
    strangers = Strangers((host, int(port)), bytes.fromhex(overheard))
    attacks = strangers.attacks()
    with ThreadPoolExecutor(len(attacks)) as pool:
        for attack in [pool.submit(attack) for attack in attacks.values()]:
            attack.result()
    print(json.dumps({"connections": strangers.connections, "admitted": strangers.admitted}))


if __name__ == "__main__":
    main()
