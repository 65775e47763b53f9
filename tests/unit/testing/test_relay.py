"""The relay's choice of which frames vanish: by seed, per direction, repeatable."""

from __future__ import annotations

import socket
import time

from skyinfra.testing.hosts.relay import Way


def passed(seed: str, loss: float, frames: int = 200) -> list[int]:
    source, feed = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with source, feed, sink, out:
        out.setblocking(False)
        way, arrived = Way(source, sink, 0, loss, seed), []
        for number in range(frames):
            feed.send(number.to_bytes(2, "big"))
            way.take()
            way.pass_on()
            try:
                arrived.append(int.from_bytes(out.recv(2), "big"))
            except BlockingIOError:
                pass  # that one was lost
        return arrived


def test_the_same_seed_loses_the_same_frames() -> None:
    first = passed("1 there", 0.3)
    assert first == passed("1 there", 0.3)
    assert first != passed("2 there", 0.3)
    assert 100 < len(first) < 180
    assert passed("1", 0) == list(range(200))
    assert passed("1", 1) == []


def test_a_frame_waits_its_time_and_order_is_kept() -> None:
    source, feed = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with source, feed, sink, out:
        way = Way(source, sink, 3600, 0, "1")
        assert way.next_due_s() is None
        feed.send(b"x")
        way.take()
        way.pass_on()
        assert 3500 < (way.next_due_s() or 0) <= 3600
        soon = Way(source, sink, 0.01, 0, "1")
        feed.send(b"a")
        feed.send(b"b")
        soon.take()
        soon.take()
        while soon.next_due_s() is not None:
            time.sleep(soon.next_due_s() or 0)
            soon.pass_on()
        assert (out.recv(9), out.recv(9)) == (b"a", b"b")
