"""A PostgreSQL server of this machine's own binaries, in a temporary folder, on a unix socket only.

`Postgres.start()` gives None where PostgreSQL is not installed. PostgreSQL refuses root; as root it runs as ``nobody``.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from skyinfra.testing.world import wait_until

__all__ = ["Postgres", "postgres_binaries"]

START_S = 60.0


def postgres_binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, the newest there is."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: float(Path(path).parts[4]))
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class Postgres:
    """A running server. Not for data: it syncs nothing."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries = binaries
        self._root = root
        self._data = root / "data"
        self._process: Any = None  # Popen[bytes]; who it runs as makes its type unclear
        self._made = 0

    @classmethod
    def start(cls) -> Postgres | None:
        """Raises `TimeoutError` when it does not come up, `CalledProcessError` when it cannot be set up."""
        binaries = postgres_binaries()
        if binaries is None:
            return None
        root = Path(tempfile.mkdtemp(prefix="skypg-"))
        server = cls(binaries, root)
        owner = server._as_owner()
        if owner:
            os.chown(root, owner["user"], owner["group"])
        subprocess.run(
            [binaries / "initdb", "-D", server._data, "-U", "skyinfra", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=root,
            **owner,
        )
        server.run()
        return server

    @staticmethod
    def _as_owner() -> Any:
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(self) -> None:
        """Start the process, again after `kill`."""
        settings = [f"unix_socket_directories={self._root}", "listen_addresses=", "fsync=off", "max_connections=200"]
        options = [word for setting in settings for word in ("-c", setting)]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdout=log,
                stderr=log,
                cwd=self._root,
                **self._as_owner(),
            )
        wait_until(self._answers, START_S, f"PostgreSQL answers; its log is {self._root / 'log'}")

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(host=str(self._root), user="skyinfra", dbname="postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        self._made += 1
        name = f"db{self._made}"
        with psycopg.connect(host=str(self._root), user="skyinfra", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return f"postgresql://skyinfra@/{name}?host={self._root}"

    def kill(self) -> None:
        """Like a crash."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(10)
        shutil.rmtree(self._root, ignore_errors=True)
