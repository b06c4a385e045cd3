"""A library that takes as long as it is told: `fake_rival.py RANKS DIGEST SECONDS_PER_BYTE DIES_AT PROGRAM NAME ADDRESS
CORES`. It plays all ranks, answers as `contestant.py` does, and dies when asked for a call of DIES_AT elements."""

import json
import os
import socket
import sys
import threading
import time


def rank(number: int, size: int, digest: int, pace: float, dies_at: int, address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        stream = connection.makefile("rw")

        def answer(**reply: object) -> None:
            stream.write(json.dumps(reply) + "\n")
            stream.flush()

        answer(rank=number, size=size, version="Fake 1")
        count = 0
        for line in stream:
            command = json.loads(line)
            if command["do"] == "quit":
                return
            if command["do"] == "prepare":
                count = command["count"]
                if count == dies_at:
                    print("FakeError: it is too much", flush=True)
                    os._exit(1)
            if command["do"] == "run":
                time.sleep(1e-4)
            answer(digest=digest, seconds=pace * count, idle=0.0)


if __name__ == "__main__":
    size, digest, pace, dies_at, _program, name, address, _cores = sys.argv[1:]
    if name == "absent":
        sys.exit("FakeError: there is no such library")
    figures = (int(size), int(digest), float(pace), int(dies_at), address)
    threads = [threading.Thread(target=rank, args=(number, *figures)) for number in range(int(size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
