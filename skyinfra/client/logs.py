"""Follow and fetch the logs of jobs on a cluster.

Bytes are passed on as they are. The offset counts what was passed on, so a follower that loses the server, the agent or
the network continues at the very next byte; and what the job came to is read from its row, never guessed from its log.
"""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyinfra.client import caller, transport
from skyinfra.model import exceptions
from skyinfra.model.exceptions import JobExitCode
from skyinfra.runtime.boundary import boundary

__all__ = ["Follower", "download_logs", "tail_logs"]

FINAL = frozenset(("SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED"))
LOST_S = 60.0
"""How long a job's log may give no progress while its node cannot be reached."""
FINAL_LOST_S = 15.0
"""The same once the job has ended: an agent that is to come back does so in this time."""
QUIET_S = 5.0
PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


def tail_logs(
    cluster_name: str,
    job_id: int | None,
    follow: bool,
    tail: int = 0,
    output_stream: Any = None,
    *,
    preload_content: bool = True,
) -> int | Iterator[str | None]:
    """Print a job's log (the latest job's when `job_id` is None) and return the job's exit code.

    0 succeeded or not followed to its end, 100 failed, 102 no such job, 103 cancelled. With `preload_content=False`:
    an iterator of lines instead. `output_stream` takes text; without it the bytes go to standard output untouched.
    """
    follower = Follower(cluster_name, job_id, follow, tail)
    if not preload_content:
        return _lines(follower)
    if output_stream is not None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for chunk in follower.chunks():
            output_stream.write(decoder.decode(chunk))
        output_stream.write(decoder.decode(b"", final=True))
    else:
        to_stdout(follower.chunks())
    return follower.exit_code()


def to_stdout(chunks: Iterator[bytes]) -> None:
    """Pass bytes on to standard output as they come."""
    sys.stdout.flush()
    out = getattr(sys.stdout, "buffer", None)
    for chunk in chunks:
        if out is not None:
            out.write(chunk)
            out.flush()
        else:  # a standard output that someone replaced by a text stream
            sys.stdout.write(chunk.decode(errors="replace"))


def _no_news(_state: str, _row: dict[str, Any]) -> None:
    pass


@dataclass
class Follower:
    """One reading of one job's log. After `chunks` is exhausted, `row` is the job as it was at the end."""

    cluster_name: str
    job_id: int | None
    follow: bool = True
    tail: int = 0
    rank: int | None = None
    """One rank's part of it; None: all."""
    on_state: Callable[[str, dict[str, Any]], None] = _no_news
    """Told of ``waiting`` (not started yet), ``started`` and ``finished``, with the job's row."""
    row: dict[str, Any] | None = None
    offset: int | None = None
    truncated: bool = False
    """The job ended and its node cannot be reached: the end of the log may be missing."""
    _since: float = field(default_factory=time.monotonic, init=False)
    """When the node was last known to be in reach."""
    _pause_s: float = field(default=PAUSE_S, init=False)
    _stopped: bool = field(default=False, init=False)
    """The cluster was stopped while its log was read: there is nobody to ask any more."""
    _whole: bool = field(default=False, init=False)
    """The last connection ended as the server meant it to."""

    def chunks(self) -> Iterator[bytes]:
        """The log's bytes, to its end when following. Raises what reaching the cluster raises; a job that does not
        exist gives nothing (`row` stays None)."""
        boundary("client.follow.before")
        self.row = self._read_row()
        if self.row is None:
            return
        self.job_id = self.row["job_id"]
        if self.row["state"] in ("INIT", "PENDING"):
            self.on_state("waiting", self.row)
        started = False
        while True:
            # Only a connection that began after the job's end is known to have given all of its log: an earlier one
            # may have ended because the node was lost.
            was_final = self.row["state"] in FINAL
            for chunk in self._one_connection():
                if not started:
                    started = True
                    self.on_state("started", self.row)
                yield chunk
            if not self.follow or (was_final and self._whole):
                break
            self.row = self._read_row() or self.row
            if self.row["state"] in FINAL and self._whole:
                continue
            lost = self._stopped or time.monotonic() - self._since > FINAL_LOST_S
            if self.row["state"] in FINAL and lost:
                self.truncated = True
                break
            self._pause()
        if not self.follow:
            return
        if not started:
            self.on_state("started", self.row)
        boundary("client.follow.made")
        self.on_state("finished", self.row)

    def exit_code(self) -> int:
        """What a command that showed this log exits with."""
        if self.row is None:
            return int(JobExitCode.NOT_FOUND)
        if self.row["state"] not in FINAL:
            return 0
        return int(JobExitCode.from_job_status(self.row["state"]))

    def _read_row(self) -> dict[str, Any] | None:
        job = "latest" if self.job_id is None else self.job_id
        try:
            return transport.call(
                "GET", transport.path("clusters", self.cluster_name, "jobs", job), patient=True
            ).json()
        except exceptions.CloudError as error:
            if error.error_type == "JobNotFound":  # no public class: how the server says it
                return None
            raise

    def _one_connection(self) -> Iterator[bytes]:
        """What one connection gives; ends, too, when it breaks or the node cannot be reached."""
        where = transport.path(
            *("clusters", self.cluster_name, "jobs", self.job_id, "log"),
            workspace=caller.named_workspace(),
            rank=self.rank,
            offset=self.offset or 0,
            follow=int(self.follow),
            tail=self.tail if self.offset is None else 0,
        )
        self._whole = False
        began = time.monotonic()
        try:
            with transport.open_stream(where, patient=True) as stream:
                if self.offset is None:
                    self.offset = int(stream.headers.get("X-Start-Offset") or 0)
                for chunk in stream.chunks():
                    self.offset += len(chunk)
                    self._progress()
                    yield chunk
                self._whole = True
        except exceptions.ClusterNotUpError:
            if not self.follow or self.offset is None:
                raise
            self._stopped = True
        except (ConnectionError, exceptions.NetworkError, exceptions.SkyletUnavailableError):
            if not self.follow:
                raise
        if time.monotonic() - began > QUIET_S:
            self._progress()  # a connection that stayed so long had reached the node; its job was merely quiet

    def _progress(self) -> None:
        self._since = time.monotonic()
        self._pause_s = PAUSE_S

    def _pause(self) -> None:
        """Wait before the next connection. Raises `NetworkError` when the node has been out of reach for `LOST_S`."""
        if time.monotonic() - self._since > LOST_S:
            raise self._lost()
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def _lost(self) -> Exception:
        return exceptions.with_hint(
            exceptions.NetworkError(
                f"the log of job {self.job_id} on {self.cluster_name} gave nothing for {LOST_S:.0f} s"
            ),
            f"the job may still run; see `skyinfra queue {self.cluster_name}`",
        )


def _lines(follower: Follower) -> Iterator[str]:
    rest = b""
    for chunk in follower.chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace") + "\n"
    if rest:
        yield rest.decode(errors="replace")


def download_logs(cluster_name: str, job_ids: Sequence[str] | None) -> dict[str, str]:
    """Fetch job logs to ``~/sky_logs/<cluster>/``; the folder by job id. None = the latest job.

    A job that does not exist is left out. Raises as any call that reaches the cluster.
    """
    folders: dict[str, str] = {}
    for job_id in ["latest"] if job_ids is None else job_ids:
        row = Follower(cluster_name, None if job_id == "latest" else int(job_id))._read_row()
        if row is not None:
            folders[str(row["job_id"])] = _download(cluster_name, row)
    return folders


def _download(cluster_name: str, row: dict[str, Any]) -> str:
    import tarfile

    name = os.path.basename(str(row.get("log_path") or "").rstrip("/")) or str(row["job_id"])
    folder = os.path.join(os.path.expanduser("~/sky_logs"), cluster_name, name)
    os.makedirs(folder, exist_ok=True)
    where = transport.path("clusters", cluster_name, "jobs", row["job_id"], "files", workspace=caller.named_workspace())
    with transport.open_stream(where) as stream, tempfile.TemporaryFile() as file:
        for chunk in stream.chunks(1 << 20):
            file.write(chunk)
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            tar.extractall(folder, filter="data")  # refuses names that leave the folder
    return folder
