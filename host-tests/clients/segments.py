"""Relays TCP connections and reports when the kernel received a segment on them, keepalive probes and acknowledgements included.

    segments.py HOST:PORT

Prints the port that it listens on, relays each connection to HOST:PORT, and ends with its standard input. For each line of input it
prints a list with an object for each connection: {"accepted": SIDE, "connected": SIDE}, where SIDE is {"segments": how many were
received, "gap": the longest time without one, in seconds}. The counts are TCP_INFO's, of Linux.
"""

import json
import socket
import struct
import sys
import threading
import time

# tcpi_state and tcpi_segs_in in Linux's struct tcp_info (include/uapi/linux/tcp.h).
STATE, SEGS_IN = 0, 140
ESTABLISHED = 1
SAMPLE = 0.02


class Side:
    """A connection's socket, sampled until it is closed."""

    def __init__(self, connection):
        self.connection = connection
        self.segments = self.count()
        self.last = time.monotonic()
        self.gap = 0.0

    def information(self):
        return self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)

    def count(self):
        return struct.unpack_from("I", self.information(), SEGS_IN)[0]

    def sample(self):
        if self.information()[STATE] != ESTABLISHED:
            return
        segments, now = self.count(), time.monotonic()
        if segments != self.segments:
            self.segments, self.last = segments, now
        self.gap = max(self.gap, now - self.last)

    def report(self):
        return {"segments": self.segments, "gap": round(self.gap, 2)}


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def main(target):
    host, _, port = target.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    pairs = []

    def accept():
        while True:
            accepted, _ = listener.accept()
            connected = socket.create_connection((host, int(port)))
            pairs.append((Side(accepted), Side(connected)))
            for ends in ((accepted, connected), (connected, accepted)):
                threading.Thread(target=copy, args=ends, daemon=True).start()

    def sample():
        while True:
            for pair in list(pairs):
                for side in pair:
                    side.sample()
            time.sleep(SAMPLE)

    for task in (accept, sample):
        threading.Thread(target=task, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for _ in sys.stdin:
        reports = [{"accepted": accepted.report(), "connected": connected.report()} for accepted, connected in pairs]
        print(json.dumps(reports), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
