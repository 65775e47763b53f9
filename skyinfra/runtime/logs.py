"""A job's log as a byte stream: from an offset, from the last N lines, to now or to the job's end.

Bytes go out as they are in the file, each once. Ends are decided by the ledger: a job is final only after its
supervisor has written everything, so what is read after that is all there is.
"""

import os
import tarfile
import tempfile
from typing import AsyncIterator, BinaryIO, Optional

from skyinfra.runtime.jobs import Jobs

CHUNK_BYTES = 262144
_SAFETY_S = 2.0


def size_of(path: str) -> int:
    """0 for a log that does not exist yet."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def tail_offset(path: str, lines: int) -> int:
    """Where the last `lines` lines begin; an unfinished last line counts as one."""
    end = size_of(path)
    if lines <= 0 or end == 0:
        return end
    with open(path, "rb") as f:
        f.seek(end - 1)
        missing = lines + (1 if f.read(1) == b"\n" else 0)
        at = end
        while at > 0:
            step = min(CHUNK_BYTES, at)
            at -= step
            f.seek(at)
            block = f.read(step)
            found = block.count(b"\n")
            if found >= missing:
                cut = len(block)
                for _ in range(missing):
                    cut = block.rindex(b"\n", 0, cut)
                return at + cut + 1
            missing -= found
    return 0


async def read(path: str, offset: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of `offset` to `end`."""
    if offset >= end:
        return
    with open(path, "rb") as f:  # noqa: ASYNC230 - a regular file: a thread per read would cost more than the read
        f.seek(offset)
        while offset < end:
            data = f.read(min(CHUNK_BYTES, end - offset))
            if not data:  # truncated by the job itself
                return
            offset += len(data)
            yield data


async def follow(jobs: Jobs, job_id: int, folder: str, path: str, offset: int) -> AsyncIterator[bytes]:
    """The bytes from `offset`, as they come, until the job is final."""
    f: Optional[BinaryIO] = None
    try:
        with jobs.watch.log(job_id, folder) as wake:
            while True:
                wake.clear()
                final = jobs.is_final(job_id)  # looked at before reading: see above
                if f is None and os.path.exists(path):  # noqa: ASYNC240 - see `read`
                    f = open(path, "rb", buffering=0)  # noqa: ASYNC230, SIM115 - closed below
                    f.seek(offset)
                while f is not None:
                    data = f.read(CHUNK_BYTES)
                    if not data:
                        break
                    yield data
                if final:
                    return
                await wake.wait(_SAFETY_S)
    finally:
        if f is not None:
            f.close()


def pack_folder(folder: str, tmp_folder: str) -> BinaryIO:
    """A tar of the log folder, in a file without a name. Blocks: call it in a thread. Raises `OSError`."""
    out = tempfile.TemporaryFile(dir=tmp_folder)  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=out, mode="w") as tar:
            if os.path.isdir(folder):
                tar.add(folder, arcname=os.path.basename(folder))
        out.seek(0)
        return out  # type: ignore[return-value]
    except BaseException:
        out.close()
        raise
