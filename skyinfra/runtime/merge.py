"""Several nodes' logs into one: whole lines, each once, in the order in which they arrive.

The pieces lie in one folder, a file per node that only grows. How far each was taken, and what is being appended now,
is on disk before the append: a successor of a killed agent finishes that very append, so no line is lost or doubled.
"""

import os
from typing import Any, Dict, List

from skyinfra.runtime import disk, logs

BLOCK_BYTES = 262144
#: A longer line goes out in pieces; else one without end would be kept back for ever.
_LINE_BYTES = 1 << 20


class Merger:
    """`record` is where it keeps its place; `names` are the pieces in `folder`."""

    def __init__(self, folder: str, names: List[str], record: str) -> None:
        self._folder, self._record = folder, record
        self._out = os.path.join(folder, "run.log")
        self._taken: Dict[str, int] = dict.fromkeys(names, 0)
        kept = disk.read_json(record)
        if kept is not None:
            self._taken.update({name: at for name, at in kept["taken"].items() if name in self._taken})
        self._step = kept

    def move(self, ended: "set[str]") -> bool:
        """Take what there is, of every piece; False when there was nothing. Of a piece that has `ended`, the last
        unfinished line too. Raises `OSError`."""
        self._finish_step()  # of a predecessor, or one that met a full disk
        moved = False
        for name in self._taken:
            while self._move_one(name, name in ended):
                moved = True
        return moved

    def _move_one(self, name: str, ended: bool) -> bool:
        at = self._taken[name]
        path = os.path.join(self._folder, name)
        available = logs.size_of(path) - at
        if available <= 0:
            return False
        with open(path, "rb") as f:
            f.seek(at)
            data = f.read(BLOCK_BYTES)
        cut = data.rfind(b"\n") + 1
        newline = False
        if cut == 0:
            if not ended and available < _LINE_BYTES:
                return False
            cut = len(data)
            newline = ended and available <= len(data)
        step: Dict[str, Any] = {"name": name, "from": at, "to": at + cut, "newline": newline}
        step.update(out=logs.size_of(self._out), taken=dict(self._taken, **{name: at + cut}))
        disk.replace_json(self._record, step, sync=False)
        self._taken[name], self._step = at + cut, step
        self._finish_step()
        return True

    def _finish_step(self) -> None:
        """Carry out what is still to be appended."""
        if self._step is None:
            return
        step = self._step
        with open(os.path.join(self._folder, step["name"]), "rb") as f:
            f.seek(step["from"])
            data = f.read(step["to"] - step["from"])
        done = max(0, logs.size_of(self._out) - step["out"])
        self._write((data + b"\n" if step["newline"] else data)[done:])
        self._step = None

    def _write(self, data: bytes) -> None:
        if not data:
            return
        fd = os.open(self._out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            disk.write_all(fd, data)
        finally:
            os.close(fd)
