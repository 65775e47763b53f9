"""Prefixes at line starts and nowhere else, whatever the pieces; and a full disk that costs only the bytes it must."""

import errno
import os

from hypothesis import given
from hypothesis import strategies as st

from skyinfra.runtime import pump
from skyinfra.runtime.pump import LinePrefixer, LogFile, Pump

pieces = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\x01", b"\n").replace(b"\x02", b"\r")), max_size=20)


@given(pieces)
def test_the_pieces_of_a_stream_do_not_matter(stream):
    whole = b"".join(stream)
    prefixer = LinePrefixer(b"> ")
    assert b"".join(map(prefixer.feed, stream)) == b"".join(b"> " + line for line in split(whole))


def split(data):
    """Lines by newline only: splitlines would also split at a carriage return."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def test_frames_are_not_lines():
    assert LinePrefixer(b"(t) ").feed(b"10%\r20%\r\n") == b"(t) 10%\r20%\r\n"


def test_our_own_line_begins_at_a_line_start(tmp_path):
    read_end, write_end = os.pipe()
    log = LogFile([str(tmp_path / "log")])
    moved = Pump(read_end, log, LinePrefixer(b"(t) "))
    os.write(write_end, b"half")
    assert moved.move()
    moved.say("ours")
    os.write(write_end, b"next\n")
    assert moved.move()
    assert not moved.move()
    assert moved.open
    os.close(write_end)
    assert not moved.move()
    assert not moved.open
    assert (tmp_path / "log").read_bytes() == b"(t) half\nours\n(t) next\n"


def test_a_full_disk_loses_bytes_but_says_how_many(tmp_path, monkeypatch):
    log = LogFile([str(tmp_path / "log")])
    log.write(b"before\n")

    def full(fd, data):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(pump, "write_all", full)
        log.write(b"lost one\n")
    log.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == (
        b"before\n\n[9 bytes of output lost: no space left on the node]\nafter\n"
    )
