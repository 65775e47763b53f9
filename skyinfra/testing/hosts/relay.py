"""A seeded packet relay between two interfaces: delay, and loss in each direction. A program of its own.

    python relay.py LEFT RIGHT '{"delay_ms": 20, "loss": [0.01, 0], "seed": 1}'

`loss` is the share of frames that vanish on the way from LEFT to RIGHT, and back. Which ones is decided by the seed and
a frame's place in its direction, so a run can be repeated. Standard library only; prints ``ready`` when frames pass.
"""

import json
import random
import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15  # offload state travels with the frame: no half-made checksum or oversized frame is lost
PACKET_IGNORE_OUTGOING = 23
FRAME_BYTES = 1 << 17
BUFFER_BYTES = 1 << 24


class Way:
    """One direction: first in, first out, each frame `delay_s` after it came."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float, loss: float, seed: str) -> None:
        self.source, self.sink, self.delay_s, self.loss = source, sink, delay_s, loss
        self._random = random.Random(seed)
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        try:
            frame = self.source.recv(FRAME_BYTES)
        except OSError:
            return  # the link is down: a cable was cut
        if self._random.random() >= self.loss:
            self._waiting.append((time.monotonic() + self.delay_s, frame))

    def pass_on(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            try:
                self.sink.send(self._waiting.popleft()[1])
            except OSError:
                pass  # link down or buffer full: what a wire does with a frame then is to lose it

    def next_due_s(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None


def open_interface(name: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, 33, BUFFER_BYTES)  # SO_RCVBUFFORCE
    raw.bind((name, 0))
    return raw


def main(left_name: str, right_name: str, settings: str) -> None:
    wanted = json.loads(settings)
    left, right = open_interface(left_name), open_interface(right_name)
    delay_s, (there, back), seed = wanted["delay_ms"] / 1000, wanted["loss"], wanted["seed"]
    ways = [Way(left, right, delay_s, there, f"{seed} there"), Way(right, left, delay_s, back, f"{seed} back")]
    print("ready", flush=True)
    while True:
        dues = [due for way in ways if (due := way.next_due_s()) is not None]
        readable, _, _ = select.select([left, right], [], [], min(dues) if dues else None)
        for way in ways:
            if way.source in readable:
                way.take()
            way.pass_on()


if __name__ == "__main__":
    main(*sys.argv[1:4])
