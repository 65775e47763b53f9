"""Trees that travel to the node: blobs by digest, and putting them in their places.

A blob is one uncompressed tar. Everything in it is checked before anything is written: names that leave the tree,
names that go through a link of the tree, hard links out of it and devices are refused as a whole. A symbolic link
arrives as it is, wherever it points (a virtual environment's `bin/python` points out of its tree): nothing is ever
written through one. Each file arrives by rename, so a reader sees the old or the new.
"""

import hashlib
import os
import re
import stat
import tarfile
import threading
from typing import IO, Any, Dict, List, Optional, Set

from skyinfra.runtime import disk
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.protocol import FilesApply

#: Blobs kept after they were applied: a second launch of the same tree sends nothing.
KEPT_BLOBS = 4
COPY_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class UnsafePath(Exception):
    """Something in the tree, or its destination, would be written outside its place."""


class WrongDigest(Exception):
    """The bytes are not those that were announced."""


class MissingBlob(Exception):
    """A tree that was not uploaded, or was removed since."""


class BlobWriter:
    """One upload. `commit` makes the blob visible, `discard` forgets it."""

    def __init__(self, path: str) -> None:
        self._path, self._tmp = path, "{}.{}.part".format(path, os.urandom(4).hex())
        self._hash = hashlib.sha256()
        self._fd = os.open(self._tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        disk.write_all(self._fd, data)

    def commit(self) -> None:
        """Raises `WrongDigest`."""
        boundary("agent.files.before")
        found = self._hash.hexdigest()
        if found != os.path.basename(self._path):
            raise WrongDigest("announced {}, received {}".format(os.path.basename(self._path), found))
        os.close(self._fd)
        self._fd = -1
        os.rename(self._tmp, self._path)
        boundary("agent.files.recorded")

    def discard(self) -> None:
        """Also after `commit`: then it only tidies up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        disk.remove_file(self._tmp)


class Files:
    def __init__(self, folder: str, home: str, absolute_paths: bool) -> None:
        self._folder, self._home, self._absolute = folder, home, absolute_paths
        self._applying = threading.Lock()  # guards the destinations: two applies of one tree would mix their renames
        disk.private_folder(folder)
        for name in os.listdir(folder):
            if name.endswith(".part"):
                disk.remove_file(os.path.join(folder, name))

    def blob(self, digest: str) -> str:
        """Its path, there or not. Raises `ValueError`."""
        if not _DIGEST.match(digest):
            raise ValueError("a digest is 64 hex digits, not {!r}".format(digest[:80]))
        return os.path.join(self._folder, digest)

    def has(self, digest: str) -> bool:
        return os.path.exists(self.blob(digest))

    def receive(self, digest: str) -> BlobWriter:
        return BlobWriter(self.blob(digest))

    def apply(self, wanted: FilesApply) -> None:
        """Put every tree in its place. Blocks: call it in a thread.

        Raises `UnsafePath`, `MissingBlob`, `ValueError` (not a tar, bad digest or kind), `OSError`.
        """
        with self._applying:
            boundary("agent.apply.before")
            for tree in wanted.trees:
                self._apply_tree(tree)
            boundary("agent.apply.made")
            self._forget_old(wanted)
            boundary("agent.apply.recorded")

    def _apply_tree(self, tree: Dict[str, str]) -> None:
        for name in ("digest", "dest"):
            if name not in tree:
                raise ValueError("a tree needs {}".format(name))
        dest, kind = self._destination(tree["dest"]), tree.get("kind", "dir")
        if kind not in ("dir", "file"):
            raise ValueError("kind is dir or file, not {!r}".format(kind))
        blob = self.blob(tree["digest"])
        try:
            tar = tarfile.open(blob, mode="r:")  # noqa: SIM115 - closed by the with below
            members = tar.getmembers()
        except FileNotFoundError:
            raise MissingBlob("tree {} was not uploaded".format(tree["digest"])) from None
        except tarfile.TarError as exc:
            raise ValueError("tree {} is not a tar: {}".format(tree["digest"], exc)) from exc
        with tar:
            check_members(members)
            os.utime(blob)  # used now: kept longest
            if kind == "file":
                files = [m for m in members if m.isreg()]
                if len(files) != 1:
                    raise ValueError("a tree of kind file holds one file, not {}".format(len(files)))
                os.makedirs(os.path.dirname(dest), exist_ok=True)
                _place_file(tar, files[0], dest)
            else:
                _unpack(tar, members, dest)

    def _destination(self, dest: str) -> str:
        """Raises `UnsafePath`."""
        home = os.path.realpath(self._home)
        if dest == "~" or dest.startswith("~/"):
            dest = dest[2:]
        if ".." in dest.split("/"):
            raise UnsafePath("destination {!r} holds '..'".format(dest))
        path = os.path.join(home, dest) if dest else home
        real = os.path.realpath(path)
        if not self._absolute and real != home and not real.startswith(home + "/"):
            raise UnsafePath("destination {!r} lies outside the node's home".format(dest))
        return path.rstrip("/")

    def _forget_old(self, applied: FilesApply) -> None:
        """Only what was applied once; an upload whose apply is still to come is newer than any of these."""
        names = [n for n in os.listdir(self._folder) if _DIGEST.match(n)]
        names.sort(key=lambda n: os.stat(os.path.join(self._folder, n)).st_mtime, reverse=True)
        for name in names[max(KEPT_BLOBS, len(applied.trees)) :]:
            disk.remove_file(os.path.join(self._folder, name))


def check_members(members: List[tarfile.TarInfo]) -> None:
    """Raises `UnsafePath` naming the first member that has no place in a tree."""
    links: Set[str] = set()
    for member in members:
        name = os.path.normpath(member.name)
        if member.name.startswith("/") or name == ".." or name.startswith("../"):
            raise UnsafePath("{!r} lies outside the tree".format(member.name))
        for parent in _parents(name):
            if parent in links:
                raise UnsafePath("{!r} goes through the link {!r}".format(member.name, parent))
        if member.issym():
            links.add(name)
        elif member.islnk():
            _check_hard_link(member, links)
        elif not (member.isreg() or member.isdir()):
            raise UnsafePath("{!r} is neither file, folder nor link".format(member.name))


def _check_hard_link(member: tarfile.TarInfo, links: Set[str]) -> None:
    target = os.path.normpath(member.linkname)
    if member.linkname.startswith("/") or target == ".." or target.startswith("../"):
        raise UnsafePath("hard link {!r} leaves the tree, to {!r}".format(member.name, member.linkname))
    for parent in _parents(target):
        if parent in links:
            raise UnsafePath("hard link {!r} goes through the link {!r}".format(member.name, parent))


def _parents(name: str) -> List[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _unpack(tar: tarfile.TarFile, members: List[tarfile.TarInfo], dest: str) -> None:
    os.makedirs(dest, exist_ok=True)
    folders = []
    for member in members:
        name = os.path.normpath(member.name)
        path = dest if name == "." else os.path.join(dest, name)
        for parent in _parents(name):
            _ensure_folder(os.path.join(dest, parent))
        if member.isdir():
            if path != dest:
                _ensure_folder(path)
            folders.append((path, member))
        elif member.issym():
            _place(path, lambda tmp, member=member: os.symlink(member.linkname, tmp))
        elif member.islnk():
            target = os.path.join(dest, os.path.normpath(member.linkname))
            _place(path, lambda tmp, target=target: os.link(target, tmp, follow_symlinks=False))
        else:
            _place_file(tar, member, path)
    for path, member in reversed(folders):  # last, so that a read-only folder can be filled
        os.chmod(path, member.mode & 0o777 | stat.S_IRWXU)
        os.utime(path, (member.mtime, member.mtime))


def _ensure_folder(path: str) -> None:
    """A real folder: a file or link that stood there before gives way."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkdir(path)


def _place_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    def write(tmp: str) -> None:
        source: Optional[IO[bytes]] = tar.extractfile(member)
        assert source is not None  # a regular file
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            left = member.size
            while left > 0:
                data = source.read(min(COPY_BYTES, left))
                if not data:
                    raise ValueError("{!r} is cut short".format(member.name))
                disk.write_all(fd, data)
                left -= len(data)
            os.fchmod(fd, member.mode & 0o777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    _place(path, write)


def _place(path: str, make: Any) -> None:
    """`make` a temporary name beside `path` and rename it there; a folder in the way gives way."""
    tmp = "{}/.skyinfra-{}".format(os.path.dirname(path), os.urandom(6).hex())
    try:
        make(tmp)
        try:
            os.rename(tmp, path)
        except IsADirectoryError:
            disk.remove_tree(path)
            os.rename(tmp, path)
    finally:
        disk.remove_file(tmp)  # renamed already, unless something failed
