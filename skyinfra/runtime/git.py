"""A workdir that is a git repository: fetched on the node, checked out over what is there.

Git does the work, in a session of its own, with credentials in its environment and in one 0600 file that is gone when
it ends: never in the repository's configuration. Untracked files stay, changes to tracked ones give way, as with files
that are sent. Standard library only, Python >= 3.8.
"""

import asyncio
import fcntl
import glob
import os
import re
import shutil
import subprocess
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from skyinfra.runtime import disk
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.protocol import GitCheckout, GitState
from skyinfra.runtime.variables import STATE_MARKER

GIT_S = 3600.0
_COMMIT = re.compile(r"[0-9a-f]{7,40}\Z")
_USER = re.compile(r"//[^/@\s]+@")
#: Answers the questions for user and password; the token is in the environment of git alone.
_ASKPASS = """#!/bin/sh
case "$1" in Username*) echo x-access-token ;; *) printenv SKYINFRA_GIT_TOKEN ;; esac
"""
_NO_ACCESS = re.compile(
    "Authentication failed|could not read (Username|Password)|Permission denied|Repository not found|"
    "returned error: 40[13]|Host key verification failed"
)


class GitFailed(Exception):
    """What git could not do, in one line for the user."""


class Ref(NamedTuple):
    """What a ref is at the repository: a branch, a tag, or neither. The commit is empty until it was fetched."""

    commit: str
    branch: str = ""
    tag: str = ""


class Checkouts:
    """One at a time; asked for again, the same one is joined."""

    def __init__(self, state: str, home: str, destination: Callable[[str], str]) -> None:
        """`destination`: the path of a task's destination; raises `UnsafePath`."""
        self._state, self._home, self._destination = state, home, destination
        self._running: Dict[Tuple[str, ...], "asyncio.Future[GitState]"] = {}

    async def run(self, wanted: GitCheckout, wait_s: float) -> GitState:
        """Not done when `wait_s` was not enough: ask again. Raises `GitFailed`, `UnsafePath`, `OSError`."""
        key = (wanted.url, wanted.ref, wanted.commit, wanted.dest)
        if key not in self._running:
            work = _Checkout(self._state, self._home, self._destination(wanted.dest), wanted)
            self._running[key] = asyncio.get_event_loop().run_in_executor(None, work.run)
        running = self._running[key]
        done, _ = await asyncio.wait([running], timeout=wait_s)
        if not done:
            return GitState(done=False)
        self._running.pop(key, None)
        return running.result()


class _Checkout:
    """Blocks: it lives in a thread."""

    def __init__(self, state: str, home: str, dest: str, wanted: GitCheckout) -> None:
        self._home, self._dest, self._wanted = home, dest, wanted
        self._folder = os.path.join(state, "git")
        self._marker = os.path.join(self._folder, "began")
        self._env: Dict[str, str] = {}
        self._lock = -1

    def run(self) -> GitState:
        if shutil.which("git") is None:
            raise GitFailed("git is not installed on the node")
        if self._wanted.url.startswith("-") or self._wanted.ref.startswith("-"):
            raise GitFailed("a repository and a ref do not begin with '-'")
        disk.private_folder(self._folder)
        # inherited by git: after an agent that was killed, what its git still does is waited for
        self._lock = os.open(os.path.join(self._folder, "lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._env = self._environment()
            return self._check_out()
        finally:
            for name in ("key", "askpass"):
                disk.remove_file(os.path.join(self._folder, name))
            os.close(self._lock)

    def _check_out(self) -> GitState:
        url = self._wanted.url
        os.makedirs(self._dest, exist_ok=True)
        self._clear_locks()
        boundary("agent.git.before")
        disk.replace_json(self._marker, {"dest": self._dest})
        self._git("init", "-q")
        self._git("config", "remote.origin.url", url)
        self._git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        ref = self._resolve()
        commit = self._fetch(ref)
        how = ["--no-track", "-B", ref.branch] if ref.branch else ["--detach"]
        self._git("checkout", "-q", "--force", *how, commit)
        boundary("agent.git.made")
        disk.remove_file(self._marker)
        return GitState(done=True, commit=commit, branch=ref.branch, tag=ref.tag)

    def _clear_locks(self) -> None:
        """Of a git of ours that was killed in here. Others may hold theirs for a reason."""
        began = disk.read_json(self._marker)
        if began is not None and began.get("dest") == self._dest:
            for path in glob.glob(os.path.join(glob.escape(self._dest), ".git", "*.lock")):
                disk.remove_file(path)

    def _resolve(self) -> Ref:
        """What the ref is there now. Raises `GitFailed`."""
        refs: Dict[str, str] = {}
        head = ""
        for line in self._git("ls-remote", "--symref", "origin").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: ") and name == "HEAD":
                head = value[len("ref: refs/heads/") :]
            elif not value.startswith("ref: "):
                refs[name] = value
        return self._ref_among(refs, head)

    def _ref_among(self, refs: Dict[str, str], head: str) -> Ref:
        ref, where = self._wanted.ref, _shown(self._wanted.url)
        if not refs:
            raise GitFailed("the repository {} is empty".format(where))
        if not ref:
            return Ref(refs.get("HEAD", ""), branch=head)
        short = ref[len("refs/") :].partition("/")[2] if ref.startswith(("refs/heads/", "refs/tags/")) else ref
        if "refs/heads/" + short in refs and not ref.startswith("refs/tags/"):
            return Ref(refs["refs/heads/" + short], branch=short)
        tag = "refs/tags/" + short
        if tag in refs:
            return Ref(refs.get(tag + "^{}", refs[tag]), tag=short)
        if _COMMIT.match(ref):
            return Ref("")
        raise GitFailed("there is no branch, tag or commit {!r} in {}".format(ref, where))

    def _fetch(self, ref: Ref) -> str:
        """The commit, in full. `wanted.commit` is what the ref was when the first node asked."""
        everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        commit = self._wanted.commit or ref.commit or self._wanted.ref
        if ref.branch:
            self._git("fetch", "-q", "origin", "+refs/heads/{0}:refs/remotes/origin/{0}".format(ref.branch))
        elif ref.tag:
            self._git("fetch", "-q", "origin", "+refs/tags/{0}:refs/tags/{0}".format(ref.tag))
        full = self._find(commit)
        if full is None:
            self._git("fetch", "-q", "origin", *everything)
            full = self._find(commit)
        if full is None and len(commit) == 40:
            # not on any branch (any more): some servers give it all the same
            self._try("fetch", "-q", "origin", commit)
            full = self._find(commit)
        if full is None:
            raise GitFailed("there is no commit {!r} in {}".format(commit, _shown(self._wanted.url)))
        return full

    def _find(self, commit: str) -> Optional[str]:
        done = self._try("rev-parse", "-q", "--verify", commit + "^{commit}")
        return done.stdout.decode().strip() if done.returncode == 0 else None

    # --- git --------------------------------------------------------------------------------------------------------

    def _git(self, *argv: str) -> str:
        """Raises `GitFailed`."""
        done = self._try(*argv)
        if done.returncode != 0:
            raise GitFailed(self._reason(argv[0], done.stderr.decode(errors="replace")))
        return done.stdout.decode(errors="surrogateescape")

    def _try(self, *argv: str) -> "subprocess.CompletedProcess[bytes]":
        command = ["git", "-C", self._dest, "-c", "core.fsmonitor=false", *argv]
        options: Dict[str, Any] = {"pass_fds": (self._lock,), "start_new_session": True, "timeout": GIT_S}
        try:
            return subprocess.run(command, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, **options)
        except subprocess.TimeoutExpired:
            raise GitFailed("git {} took more than {:g} s".format(argv[0], GIT_S)) from None

    def _reason(self, verb: str, said: str) -> str:
        lines = [line.strip() for line in _shown(said).splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))] or lines or ["it failed"]
        reason = "git {} of {}: {}".format(verb, _shown(self._wanted.url), told[0].partition(": ")[2] or told[0])
        if _NO_ACCESS.search(said):
            reason += " (for a private repository set GIT_TOKEN, GIT_SSH_KEY or GIT_SSH_KEY_PATH where you launch)"
        return reason

    def _environment(self) -> Dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SKYINFRA_FAULTS"))}
        env.update(HOME=self._home, LC_ALL="C", GIT_TERMINAL_PROMPT="0")
        env.update(GIT_HTTP_LOW_SPEED_LIMIT="100", GIT_HTTP_LOW_SPEED_TIME="60")
        env[STATE_MARKER] = os.path.dirname(self._folder)  # by it a stop finds what still runs
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=20"]
        ssh += ["-o", "UserKnownHostsFile={}".format(os.path.join(self._folder, "known_hosts"))]
        if self._wanted.ssh_key:
            ssh += ["-o", "IdentitiesOnly=yes", "-i", self._private("key", self._wanted.ssh_key.rstrip() + "\n", 0o600)]
        env["GIT_SSH_COMMAND"] = " ".join("'{}'".format(word.replace("'", "'\\''")) for word in ssh)
        if self._wanted.token:
            env["SKYINFRA_GIT_TOKEN"] = self._wanted.token
            env["GIT_ASKPASS"] = self._private("askpass", _ASKPASS, 0o700)
        return env

    def _private(self, name: str, text: str, mode: int) -> str:
        path = os.path.join(self._folder, name)
        disk.remove_file(path)
        disk.write_file(path, text.encode(), mode)
        return path


def _shown(text: str) -> str:
    """Without the user and password that an address may hold."""
    return _USER.sub("//", text)
