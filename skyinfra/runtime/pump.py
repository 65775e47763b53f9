"""From a job's output pipe to its log, byte for byte, with the task's name before each line.

A line starts after ``\\n`` only: ``\\r`` frames, lines without end and bytes that are no UTF-8 pass untouched, and
what was read is written at once. A full disk neither stops the job nor the pump: the gap is counted and named in
the log.
"""

import os
from typing import List

from skyinfra.runtime.disk import FULL, write_all

READ_BYTES = 65536


class LinePrefixer:
    """Puts `prefix` at each line start of a stream that arrives in pieces."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._newline_prefix = b"\n" + prefix
        self.at_line_start = True

    def feed(self, data: bytes) -> bytes:
        if not data:
            return b""
        head = self.prefix if self.at_line_start else b""
        self.at_line_start = data.endswith(b"\n")
        if self.at_line_start:
            return head + data[:-1].replace(b"\n", self._newline_prefix) + b"\n"
        return head + data.replace(b"\n", self._newline_prefix)


class LogFile:
    """Append-only files that get the same bytes (run.log, during setup also setup.log)."""

    def __init__(self, paths: List[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._fds = [os.open(path, flags, 0o600) for path in paths]
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Raises `OSError` for anything but a full disk."""
        if self.lost_bytes:
            data = "\n[{} bytes of output lost: no space left on the node]\n".format(self.lost_bytes).encode() + data
        try:
            for fd in self._fds:
                write_all(fd, data)
            self.lost_bytes = 0
        except OSError as exc:
            if exc.errno not in FULL:
                raise
            self.lost_bytes += len(data)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


class Pump:
    """One pipe into one `LogFile`."""

    def __init__(self, pipe: int, log: LogFile, prefixer: LinePrefixer) -> None:
        os.set_blocking(pipe, False)
        self.pipe, self._log, self._prefixer = pipe, log, prefixer
        self.open = True

    def move(self) -> bool:
        """Pass on what there is; False when there was nothing (or the pipe's end: then `open` is False)."""
        try:
            data = os.read(self.pipe, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._log.write(self._prefixer.feed(data))
        return True

    def close(self) -> None:
        if self.open:
            self.open = False
            os.close(self.pipe)

    def say(self, text: str) -> None:
        """A line of our own, at a line start."""
        lead = b"" if self._prefixer.at_line_start else b"\n"
        self._log.write(lead + text.encode() + b"\n")
        self._prefixer.at_line_start = True
